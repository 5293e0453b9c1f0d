"""The catalog that ships: every LoRA of it, looked up, recommended, linted and listed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_ltx.catalog import (
    Catalog,
    download_command,
    find_files,
    lint,
    lint_strength,
    load_catalog,
    lora_card,
    lora_table,
    recommended_strength,
)
from scope_ltx.cli import main
from scope_ltx.manifest import Lora, manifest_path

CATALOG = load_catalog()

LISTED = {
    "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors": ("in_context", 2),
    "ltx-2.3-22b-ic-lora-motion-track-control-ref0.5.safetensors": ("in_context", 2),
    "ltx-2.3-22b-ic-lora-ingredients-0.9.safetensors": ("in_context", 1),
    "ltx-2.3-sync-lora-3d1t-r256.safetensors": ("in_context", 1),
    "ltx23_anime2real_rank64_v1_4500.safetensors": ("in_context", 1),
    "ltx23_inpaint_masked_t2v_rank128_v1_10000steps.safetensors": ("in_context", 1),
    "ltx-2.3-22b-ic-lora-in-outpainting-0.9.safetensors": ("in_context", 1),
    "ltx23_edit_anything_global_rank128_v1_9000steps_adamw.safetensors": ("in_context", 1),
    "ltx-2.3-22b-ic-lora-ungrade.safetensors": ("in_context", 1),
    "ltx-2.3-22b-ic-lora-refocus.safetensors": ("in_context", 1),
    "ltx-2.3-22b-ic-lora-uncompress.safetensors": ("in_context", 1),
    "ltx-2.3-22b-ic-lora-outpaint.safetensors": ("in_context", 1),
    "LTX2.3-22B_IC-LoRA-Cameraman_v1_10500.safetensors": ("in_context", 1),
    "LTX-2.3-22b-IC-LoRA-Colorizer-0.9.safetensors": ("in_context", 1),
    "ltx-2-19b-ic-lora-pose-control.safetensors": ("in_context", 1),
    "ltx-2-19b-ic-lora-detailer.safetensors": ("in_context", 1),
    "LTX2.3-IC-LORA-Dual-Character.safetensors": ("standard", None),
    "ltx-2.3-id-lora-talkvid-3k.safetensors": ("identity", None),
    "ltx-2.3-22b-distilled-lora-384-1.1.safetensors": ("distillation", None),
}
"""Every LoRA that the guides and cards of LTX-2.3 name, with its kind and reference downscale factor."""


def test_every_known_lora_is_listed() -> None:
    found = {lora.file: (lora.kind, lora.reference_downscale_factor) for lora in CATALOG.loras}
    assert found == LISTED


@pytest.mark.parametrize("lora", CATALOG.loras, ids=lambda lora: lora.id)
def test_a_lora_is_found_by_id_by_file_and_by_path(lora: Lora) -> None:
    for name in (lora.id, lora.file, Path("/models/loras") / lora.file, f"loras/{lora.file}"):
        assert CATALOG.get(name) is lora
        assert CATALOG.find(name) is lora


@pytest.mark.parametrize("lora", CATALOG.loras, ids=lambda lora: lora.id)
def test_what_ships_is_complete_and_ends_in_full_stops(lora: Lora) -> None:
    assert lora.name
    for sentence in (lora.purpose, lora.prompt.hint, lora.preparation.steps, lora.notes or "."):
        assert sentence.endswith(".")
    assert lint_strength(lora, recommended_strength(lora)) == ()
    assert lint_strength(lora, recommended_strength(lora, stacked=True), stacked=True) == ()


def test_a_file_that_is_not_listed() -> None:
    assert CATALOG.get("my-own.safetensors") is None
    with pytest.raises(ValueError, match=r"no LoRA .* is called 'union': did you mean union-control\?"):
        CATALOG.find("union")
    with pytest.raises(ValueError, match="did you mean dual-character"):
        CATALOG.find("dual-charakter")
    with pytest.raises(ValueError, match=r"called 'xyzzy': known are union-control, motion-track, ingredients,"):
        CATALOG.find("xyzzy")


def test_recommendations() -> None:
    expected = {"ingredients": 1.4, "edit-anything": 1.2, "dual-character": 0.8, "union-control": 1.0}
    assert {name: recommended_strength(CATALOG.find(name)) for name in expected} == expected
    assert recommended_strength(CATALOG.find("dual-character"), stacked=True) == 0.4
    assert recommended_strength(CATALOG.find("cameraman"), stacked=True) == 1.0
    sync = CATALOG.find("sync")
    assert (sync.stages, sync.preparation.size_multiple, sync.preparation.first_frame) == (2, 64, "required")
    sheet = CATALOG.find("ingredients")
    assert sheet.preparation.min_frames == 121
    assert sheet.sampling is not None
    assert (sheet.sampling.num_steps, sheet.sampling.guidance_scale, sheet.sampling.stg_block) == (30, 4.0, 29)
    assert sheet.prompt.negative == "worst quality, inconsistent motion, blurry, jittery, distorted"
    assert CATALOG.find("union-control").preparation.control_groups == ("canny", "depth", "pose")
    assert CATALOG.find("inpaint-masked-t2v").preparation.mask == "blocks"
    assert CATALOG.find("in-outpainting").preparation.mask == "fill"
    assert CATALOG.find("id-lora").preparation.reference_audio


@pytest.mark.parametrize(
    ("name", "only"),
    [("union-control", "distilled"), ("sync", "distilled"), ("ingredients", None), ("dual-character", None),
     ("id-lora", None), ("distilled-lora", None)],
)  # fmt: skip
def test_which_model_a_lora_works_on(name: str, only: str | None) -> None:
    """dev with the distillation LoRA counts as distilled."""
    assert CATALOG.find(name).trained_for == only


@pytest.mark.parametrize(
    ("name", "prompt", "found"),
    [
        ("sync", "3d1t", []),
        ("sync", "a person with red hair", ["error"]),
        ("ingredients", "Reference sheet: a cat. Generated video: it sleeps.", []),
        ("ingredients", "A cat sleeps.", ["error", "error"]),
        ("id-lora", "[VISUAL]: a face [SPEECH]: hello [SOUNDS]: birds", []),
        ("id-lora", "[VISUAL]: a face [SPEECH]: hello", ["error"]),
        ("edit-anything", "Remove the dog.", []),
        ("edit-anything", "There is no dog.", ["error"]),
        ("dual-character", "He says it softly.", []),
        ("dual-character", 'He says "come" softly.', ["advice"]),
        ("union-control", 'He says "come" softly.', []),
        ("in-outpainting", "", []),
        ("cameraman", "", ["advice"]),
    ],
)
def test_prompts_are_linted_by_the_lora_that_is_chosen(name: str, prompt: str, found: list[str]) -> None:
    lora = CATALOG.find(name)
    findings = lint(lora, prompt)
    assert [finding.severity for finding in findings] == found
    assert all(lora.name in finding.text for finding in findings)


@given(name=st.sampled_from([lora.id for lora in CATALOG.loras]), prompt=st.text(), strength=st.floats(0, 9))
def test_linting_never_raises(name: str, prompt: str, strength: float) -> None:
    lora = CATALOG.find(name)
    assert all(finding.text for finding in lint(lora, prompt))
    outside = not lora.strength.low <= strength <= lora.strength.high
    assert len(lint_strength(lora, strength)) == (outside and strength != 0)


def test_a_strength_out_of_range_is_told() -> None:
    (found,) = lint_strength(CATALOG.find("dual-character"), 1.5)
    assert found.severity == "advice"
    assert found.text == "Dual Character is used at strengths of 0.7 to 0.9, best 0.8; it has 1.5 here."
    assert lint_strength(CATALOG.find("dual-character"), 0.4, stacked=True) == ()
    assert lint_strength(CATALOG.find("dual-character"), 0.4) != ()


def test_downloads_land_where_they_are_found() -> None:
    """The command that is told is one that there is; where it puts a file, tests/test_download.py holds."""
    command = download_command(CATALOG.find("sync"), Path("/my models"))
    assert command == "scope-ltx download --only-loras --lora sync --model '/my models'"
    name, *arguments = shlex.split(command)[1:]
    parsed = main.commands[name].make_context(name, arguments)
    assert parsed.params["loras"] == ("sync",)
    assert parsed.params["model"] == Path("/my models")


def row(lines: list[str], name: str) -> str:
    (found,) = [line for line in lines if f" {name} " in line]
    return found


def test_the_table_has_a_row_for_each_and_marks_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "loras" / "deep").mkdir(parents=True)
    sync, union = CATALOG.find("sync"), CATALOG.find("union-control")
    (tmp_path / "loras" / sync.file).write_bytes(b"12345")
    (tmp_path / "loras" / "deep" / union.file).write_bytes(b"12345")
    (tmp_path / "loras" / CATALOG.find("ungrade").file).mkdir()
    assert find_files(CATALOG.loras, tmp_path) == {
        "sync": tmp_path / "loras" / sync.file,
        "union-control": tmp_path / "loras" / "deep" / union.file,
    }
    lines = lora_table(CATALOG.loras, tmp_path)
    assert len(lines) == 1 + len(CATALOG.loras) + 3
    assert row(lines, "sync").startswith("+"), "no size is published, so being there is enough"
    assert row(lines, "union-control").startswith("!"), "five bytes are not the published 654,465,352"
    assert row(lines, "ungrade").startswith(" ")
    assert f"below {tmp_path}" in lines[-2]
    for part in ("in-context", "  2  ", "1 (0.8-1.2)", "scene", "control (canny, depth, pose)", union.file):
        assert part in row(lines, "union-control")
    for part in ("1?", "3d1t", "clip + first frame"):
        assert part in row(lines, "sync")
    assert "0.8 (0.7-0.9), stacked 0.4" in row(lines, "dual-character")
    assert "voice" in row(lines, "id-lora")


def test_columns_line_up_and_no_directory_marks_nothing(tmp_path: Path) -> None:
    lines = lora_table(CATALOG.loras, None)
    head = lines[0]
    for name in ("id", "kind", "strength", "prompt", "input", "file"):
        column = head.index(f" {name}") + 1
        for line in lines[1 : 1 + len(CATALOG.loras)]:
            assert line[column - 1] == " "
            assert line[column] != " "
    assert all(line.startswith(" ") for line in lines[: 1 + len(CATALOG.loras)])
    assert lora_table(CATALOG.loras, tmp_path / "none")[:-2] == lines[:-1]


def test_a_card_tells_all_and_how_to_get_it(tmp_path: Path) -> None:
    lora = CATALOG.find("ingredients")
    text = "\n".join(lora_card(lora, tmp_path))
    for part in (
        "Keeps characters", lora.file, lora.repo, "in-context, rank 128", "dev or dev+distilled-lora",
        "1.4 (1-1.4)", "worst quality", "121 frames", "768x448, 121 frames, 24 fps", "scope-ltx download",
    ):  # fmt: skip
        assert part in text
    (tmp_path / lora.file).write_bytes(b"1")
    text = "\n".join(lora_card(lora, tmp_path))
    assert str(tmp_path / lora.file) in text
    assert "scope-ltx download" not in text
    assert "reference_downscale_factor" in "\n".join(lora_card(CATALOG.find("sync"), None))


def test_another_catalog_can_be_read(tmp_path: Path) -> None:
    own = tmp_path / "plugin.toml"
    own.write_text(manifest_path().read_text(encoding="utf-8").replace('id = "sync"', 'id = "in-sync"'))
    other = load_catalog(own)
    assert isinstance(other, Catalog)
    assert other.get("sync") is None
    assert other.find("in-sync").file == CATALOG.find("sync").file


def test_the_catalog_is_light() -> None:
    heavy = "[name for name in ('torch', 'numpy', 'diffusers', 'transformers', 'av') if name in sys.modules]"
    program = f"import sys, scope_ltx.catalog as c; c.lora_table(c.load_catalog().loras, None); print({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
