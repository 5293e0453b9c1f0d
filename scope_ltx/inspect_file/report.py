"""The report on a file: its kind, size, dtypes and settings, and what is special about its kind.

Only the header is read, so a 25 GB file takes milliseconds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_ltx.checkpoints.header import Header, read_header
from scope_ltx.inspect_file.lora import describe_lora, is_lora

_SCALE_SUFFIXES = (".weight_scale", ".input_scale", ".scale_weight", ".comfy_quant")


@dataclass(frozen=True)
class FileReport:
    """What `scope-ltx inspect` tells. `parameters` leaves out scales, quantisation tags and embedded bytes.

    metadata: the file's own, with JSON values parsed. details: what only this kind of file has.
    """

    path: Path
    kind: str
    nbytes: int
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    metadata: Mapping[str, Any]
    details: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}

    def as_text(self) -> str:
        dtypes = ", ".join(f"{name} x{count}" for name, count in self.dtypes.items())
        lines = [
            f"file        {self.path}",
            f"kind        {self.kind}",
            f"size        {self.nbytes:,} bytes",
            f"tensors     {self.tensors:,} ({dtypes})",
            f"parameters  {self.parameters:,}",
        ]
        lines += [f"{name:<12}{value}" for name, value in self.details.items()]
        lines += [f"metadata    {name}: {_shortened(value)}" for name, value in self.metadata.items()]
        return "\n".join(lines)


def inspect_file(path: Path) -> FileReport:
    """Raises CheckpointError when `path` is no complete safetensors file."""
    header = read_header(path)
    tensors = header.tensors
    parsed = {name: _parsed(value) for name, value in header.metadata.items()}
    kind, details = _described(path, header, parsed)
    return FileReport(
        path=path,
        kind=kind,
        nbytes=path.stat().st_size,
        tensors=len(tensors),
        parameters=sum(math.prod(entry.shape) for key, entry in tensors.items() if _is_parameter(key)),
        dtypes=dict(Counter(entry.dtype for entry in tensors.values()).most_common()),
        metadata=parsed,
        details=details,
    )


def _described(path: Path, header: Header, metadata: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The kind in words, and its details."""
    if is_lora(header.tensors):
        return describe_lora(path, header)
    kind = file_kind(header.tensors)
    if kind == _UPSAMPLER:
        return kind, _upsampler_details(metadata.get("config"))
    if "transformer" in kind:
        return kind, _transformer_details(path, header)
    return kind, {}


def file_kind(tensors: Collection[str]) -> str:
    """The kind of a file that is no LoRA, from the keys' prefixes: the published files use a fixed set of them."""
    found = [name for name, prefixes in _PREFIXES.items() if any(key.startswith(prefixes) for key in tensors)]
    if {"transformer", "audio VAE"} <= set(found):
        return "complete checkpoint: " + ", ".join(found)
    if not found and any(key.startswith("transformer_blocks.") for key in tensors):
        return "transformer (keys without the published prefix)"
    if not found and any(key.startswith(("encoder.", "decoder.")) for key in tensors):
        known = any(key.startswith("per_channel_statistics.") for key in tensors)
        return "video VAE" if known else "unknown VAE"
    if not found and "initial_conv.weight" in tensors:
        return _UPSAMPLER
    return " + ".join(found) if found else "unknown: no known key prefix"


_UPSAMPLER = "latent upsampler"

_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.transformer_blocks.", "diffusion_model.transformer_blocks."),
    "text projection": ("text_embedding_projection.",),
    "text encoder (Gemma)": ("model.layers.", "language_model.model.layers."),
    "tokenizer": ("spiece_model",),
    "video VAE": ("vae.",),
    "audio VAE": ("audio_vae.",),
    "vocoder": ("vocoder.",),
}


def _transformer_details(path: Path, header: Header) -> dict[str, str]:
    """Which of the two models it is, and how it can be used: in FP8 as it is, in bfloat16 quantized."""
    from scope_ltx.checkpoints.monolithic import base_of  # noqa: PLC0415 - PyTorch, for the one rule of names
    from scope_ltx.checkpoints.reader import CheckpointFile  # noqa: PLC0415

    base = base_of(CheckpointFile(path))
    blocks = [entry.dtype for key, entry in header.tensors.items() if "transformer_blocks." in key]
    return {
        "base": f"{base}, as its name says" if base else "unknown: its name says neither distilled nor dev",
        "weights": "FP8" if "F8_E4M3" in blocks else "not in FP8: `scope-ltx quantize` writes the split FP8 files",
    }


def _upsampler_details(config: Any) -> dict[str, str]:
    """Its settings lie flat in its `config`."""
    if not isinstance(config, dict):
        return {"scale": "unknown: it has no settings"}
    space, time = config.get("spatial_upsample"), config.get("temporal_upsample")
    scale = config.get("spatial_scale", 2.0)
    told = [f"height and width x{scale:g}"] if space else []
    told += ["frames x2"] if time else []
    usable = bool(space) and not time and scale == 2
    use = "two-stage sampling" if usable else "nothing here: two-stage sampling takes the spatial x2 one"
    return {"scale": ", ".join(told) or "nothing", "used for": use}


def _is_parameter(key: str) -> bool:
    return not key.endswith(_SCALE_SUFFIXES) and key != "spiece_model"


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, TypeError):
        return value


def _shortened(value: Any, limit: int = 200) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters; --json shows all)"
