"""plugin.toml as typed objects, and the model directory it describes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import Manifest, ModelFiles, load_manifest, manifest_path, survey
from tests.fakes.cli_backend import ROLES, complete_directory


def test_every_role_has_one_published_file() -> None:
    manifest = load_manifest()
    assert manifest.plugin.id == "ltx2"
    assert manifest.plugin.package == "scope-ltx"
    assert sorted(file.role for file in manifest.files) == sorted(ROLES)
    assert manifest.file("transformer").bytes == 25_226_571_988
    assert not any(Path(file.path).is_absolute() for file in manifest.files)


def test_a_complete_directory(tmp_path: Path) -> None:
    files = ModelFiles.in_directory(complete_directory(tmp_path))
    assert files == ModelFiles.below(tmp_path)
    assert files.video_vae == tmp_path / "vae" / "LTX23_video_vae_bf16.safetensors"
    assert len({getattr(files, role) for role in ROLES}) == 5


def test_what_is_missing_is_listed_with_advice(tmp_path: Path) -> None:
    complete_directory(tmp_path)
    ModelFiles.below(tmp_path).audio_vae.unlink()
    with pytest.raises(CheckpointError) as caught:
        ModelFiles.in_directory(tmp_path)
    assert caught.value.path == tmp_path
    assert caught.value.keys == ("vae/LTX23_audio_vae_bf16.safetensors",)
    assert "1 of 5 model files are missing" in str(caught.value)
    assert "scope-ltx doctor" in caught.value.advice
    assert "--model small" in caught.value.advice


def test_a_directory_in_the_place_of_a_file_counts_as_missing(tmp_path: Path) -> None:
    complete_directory(tmp_path)
    transformer = ModelFiles.below(tmp_path).transformer
    transformer.unlink()
    transformer.mkdir()
    with pytest.raises(CheckpointError, match="1 of 5 model files are missing"):
        ModelFiles.in_directory(tmp_path)


def test_no_directory_and_a_file_instead_of_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model directory"):
        ModelFiles.in_directory(tmp_path / "none")
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(CheckpointError, match="is a file, not a model directory"):
        ModelFiles.in_directory(file)


def test_a_survey_never_raises(tmp_path: Path) -> None:
    assert [status.nbytes for status in survey(tmp_path / "none")] == [None] * 5
    complete_directory(tmp_path)
    ModelFiles.below(tmp_path).text_encoder.unlink()
    found = {status.role: status.nbytes for status in survey(tmp_path)}
    assert found == {**dict.fromkeys(ROLES, 5), "text_encoder": None}
    assert tuple(status.role for status in survey(tmp_path)) == ROLES


def test_a_manifest_with_an_unknown_role_or_two_files_of_one_role(tmp_path: Path) -> None:
    text = manifest_path().read_text(encoding="utf-8")
    odd = tmp_path / "plugin.toml"
    odd.write_text(text.replace('role = "video_vae"', 'role = "vae"'), encoding="utf-8")
    with pytest.raises(ValidationError, match=r"files\.3\.role"):
        load_manifest(odd)
    odd.write_text(text.replace('role = "video_vae"', 'role = "audio_vae"'), encoding="utf-8")
    with pytest.raises(ValueError, match="one file for the role 'audio_vae', it lists 2"):
        load_manifest(odd).file("audio_vae")


def with_lora(tmp_path: Path, old: str, new: str) -> Manifest:
    """The shipped manifest with one text of it replaced; it must be there."""
    text = manifest_path().read_text(encoding="utf-8")
    assert old in text
    changed = tmp_path / "changed.toml"
    changed.write_text(text.replace(old, new, 1), encoding="utf-8")
    return load_manifest(changed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "sync"', 'id = "ingredients"', "two LoRAs have the same id: ingredients"),
        ('id = "sync"', 'id = "Sync LoRA"', r"loras\.3\.id"),
        ('file = "ltx-2.3-sync', 'file = "loras/ltx-2.3-sync', r"loras\.3\.file"),
        (
            'kind = "identity"',
            'kind = "in_context"',
            "id-lora: a reference_downscale_factor",
        ),
        ('kind = "standard"', 'kind = "style"', r"loras\.16\.kind"),
        ("reference_downscale_factor = 2", "reference_downscale_factor = 0", "reference_downscale_factor"),
        (
            "recommended = 1.4, low = 1.0",
            "recommended = 1.5, low = 1.0",
            "expected low <= recommended",
        ),
        ('token = "3d1t"', "", "form 'token' and a token come together"),
        ('mask = "blocks"', "", "reference 'masked_clip' does not go with mask None"),
        ('control_groups = ["pose"]', "", "reference 'control' does not go with control_groups"),
        (
            'unverified = ["rank"]',
            'unverified = ["ranks"]',
            "unverified names 'ranks', which is no",
        ),
        ('base = ["dev"]', 'base = ["turbo"]', r"loras\.18\.base"),
        ("stages = 2", "stage = 2", r"loras\.3\.stage"),
        ('sha256 = "a1b8', 'sha256 = "A1b8', r"loras\.0\.sha256"),
    ],
)
def test_a_wrong_lora_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        with_lora(tmp_path, old, new)


def test_a_lora_is_frozen_and_knows_what_is_unverified(tmp_path: Path) -> None:
    lora = with_lora(tmp_path, 'unverified = ["rank"]', 'unverified = ["rank", "preparation.steps"]').loras[1]
    assert lora.is_unverified("rank")
    assert lora.is_unverified("preparation.steps")
    assert not lora.is_unverified("reference_downscale_factor")
    with pytest.raises(ValidationError, match="frozen"):
        lora.rank = 3


def test_every_control_model_has_its_role(tmp_path: Path) -> None:
    manifest = load_manifest()
    for role in ("depth", "pose", "person_detector"):
        model = manifest.control_model(role)
        assert not Path(model.path).is_absolute()
        assert "config.json" in model.files
    changed = with_lora(tmp_path, 'role = "depth"', 'role = "pose"')
    with pytest.raises(ValueError, match="one control model for the role 'depth', it lists 0"):
        changed.control_model("depth")
    with pytest.raises(ValueError, match="one control model for the role 'pose', it lists 2"):
        changed.control_model("pose")
