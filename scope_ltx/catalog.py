"""The LoRA catalog of plugin.toml: what is known of a LoRA by its name, and the table `scope-ltx loras` prints.

A file that is not listed is no error: it is used as its own keys and metadata say. Imports no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath

from scope_ltx.manifest import Lora, Strength, load_manifest
from scope_ltx.prompts.findings import Finding, advice
from scope_ltx.prompts.lint import lint_prompt

LORA_DIRECTORY = "loras"
"""Where downloads put LoRAs below a model directory. They are found anywhere below it."""


@dataclass(frozen=True)
class Catalog:
    """The LoRAs that plugin.toml lists, in its order."""

    loras: tuple[Lora, ...]

    def get(self, name: str | PurePath) -> Lora | None:
        """The LoRA with this id, file name or path to a file, or None if it is not listed."""
        last = PurePath(name).name
        return next((lora for lora in self.loras if last in (lora.id, lora.file)), None)

    def find(self, name: str | PurePath) -> Lora:
        """Like `get`. Raises ValueError with the nearest names if it is not listed."""
        lora = self.get(name)
        if lora is not None:
            return lora
        asked, known = PurePath(name).name, [lora.id for lora in self.loras]
        near = [lora.id for lora in self.loras if asked and asked.lower() in lora.file.lower()]
        near = near or get_close_matches(asked, [*known, *(lora.file for lora in self.loras)], n=3)
        meant = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"no LoRA in the catalog is called {str(name)!r}: {meant}")


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalog of plugin.toml, the product's own unless `path` is given."""
    return Catalog(load_manifest(path).loras)


def recommended_strength(lora: Lora, *, stacked: bool = False) -> float:
    """The strength to start with; `stacked` beside other LoRAs (not counting the distillation LoRA)."""
    strength = lora.strength
    return strength.stacked if stacked and strength.stacked is not None else strength.recommended


def lint(lora: Lora, prompt: str) -> tuple[Finding, ...]:
    """What this LoRA will not understand in a prompt, or understand better otherwise. Never raises."""
    return lint_prompt(lora.prompt, lora.name, prompt)


def lint_strength(lora: Lora, strength: float, *, stacked: bool = False) -> tuple[Finding, ...]:
    """Advice when a strength is outside of what the LoRA is known to work with."""
    usual = lora.strength
    if stacked and usual.stacked is not None:
        low, high = min(usual.low, usual.stacked), max(usual.high, usual.stacked)
    else:
        low, high = usual.low, usual.high
    if strength == 0 or low <= strength <= high:
        return ()
    best = recommended_strength(lora, stacked=stacked)
    usual_range = f"{low:g} to {high:g}, best {best:g}"
    return (advice(f"{lora.name} is used at strengths of {usual_range}; it has {strength:g} here."),)


def download_command(lora: Lora, models: Path) -> str:
    """The command that puts the file below a model directory."""
    return shlex.join(["scope-ltx", "download", "--only-loras", "--lora", lora.id, "--model", str(models)])


def find_files(loras: Iterable[Lora], models: Path) -> dict[str, Path]:
    """{id: path} of the listed files that are somewhere below `models`; nothing for a missing directory."""
    found: dict[str, Path] = {}
    ids = {lora.file: lora.id for lora in loras}
    for path in sorted(models.rglob("*.safetensors")):
        if path.name in ids and path.is_file():
            found.setdefault(ids[path.name], path)
    return found


def lora_table(loras: Sequence[Lora], models: Path | None) -> list[str]:
    """Lines for a terminal: one row per LoRA, files below `models` marked, and what the marks mean."""
    found = {} if models is None else find_files(loras, models)
    rows: list[tuple[str, ...]] = [("", "id", "kind", "f", "strength", "prompt", "input", "file")]
    rows += [(_mark(lora, found.get(lora.id)), *_cells(lora)) for lora in loras]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_row(row, widths) for row in rows]
    lines.append("")
    if models is not None:
        lines.append(f"+ is below {models}, ! is there with another size than published")
    lines.append("f: how many times smaller the reference video is than the output; ? is unverified")
    return lines


def lora_card(lora: Lora, models: Path | None) -> list[str]:
    """Lines with all that is known of one LoRA."""
    path = None if models is None else find_files([lora], models).get(lora.id)
    facts = [
        ("id", lora.id),
        ("file", lora.file),
        ("source", f"https://huggingface.co/{lora.repo}"),
        ("kind", lora.kind.replace("_", "-") + (f", rank {lora.rank}" if lora.rank else "")),
        ("made for", " or ".join(lora.base) + (" (LTX-2 19B)" if lora.trained_on == "ltx-2-19b" else "")),
        ("strength", _strength(lora.strength)),
        ("prompt", lora.prompt.hint),
        ("negative", lora.prompt.negative or ""),
        ("input", lora.preparation.steps),
        ("pin", f"first frame {lora.preparation.first_frame}" if lora.preparation.first_frame != "none" else ""),
        ("trained at", _clip(lora)),
        ("notes", lora.notes),
        ("unverified", ", ".join(lora.unverified)),
        ("present", "" if path is None else str(path)),
        ("download", "" if path or models is None else download_command(lora, models)),
    ]
    return [f"{lora.name}: {lora.purpose}", *(f"  {name:<11}{text}" for name, text in facts if text)]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(lora: Lora) -> tuple[str, ...]:
    factor = "" if lora.reference_downscale_factor is None else str(lora.reference_downscale_factor)
    if lora.is_unverified("reference_downscale_factor"):
        factor += "?"
    prompt = lora.prompt.token or lora.prompt.form.replace("_", "-")
    return (
        lora.id,
        lora.kind.replace("_", "-"),
        factor,
        _strength(lora.strength),
        prompt + ("?" if lora.is_unverified("prompt") else ""),
        _input(lora),
        lora.file + ("?" if lora.is_unverified("file") else ""),
    )


def _mark(lora: Lora, path: Path | None) -> str:
    if path is None:
        return ""
    return "+" if lora.bytes in (None, path.stat().st_size) else "!"


def _strength(strength: Strength) -> str:
    text = f"{strength.recommended:g} ({strength.low:g}-{strength.high:g})"
    return text if strength.stacked is None else f"{text}, stacked {strength.stacked:g}"


def _input(lora: Lora) -> str:
    """What to give, in a few words: `control (canny, depth, pose)`, `clip + first frame`."""
    preparation = lora.preparation
    parts = []
    if preparation.reference != "none":
        groups = f" ({', '.join(preparation.control_groups)})" if preparation.control_groups else ""
        parts.append(preparation.reference.replace("_", " ") + groups)
    if preparation.reference_audio:
        parts.append("voice")
    if preparation.first_frame == "required":
        parts.append("first frame")
    return " + ".join(parts) or "-"


def _clip(lora: Lora) -> str:
    clip = lora.trained_clip
    if clip is None:
        return ""
    return f"{clip.width}x{clip.height}, {clip.num_frames} frames, {clip.frame_rate:g} fps"
