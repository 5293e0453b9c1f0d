"""The forms of a model directory: split files or a complete checkpoint, FP8 or not, upsampler or none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scope_ltx.engine import GIB, EngineOptions
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import COMPLETE_DIRECTORY, ModelFiles, load_manifest, survey
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.small.upsampler_weights import write_upsampler
from scope_ltx.models.stage_upsampler import StageUpsampler
from scope_ltx.models.text import PromptEncoder
from scope_streaming.weights.layout import block_tensors
from tests.fakes.monolith import write_monolith
from tests.fakes.published import PublishedFiles, write_published
from tests.tiny import tiny_video_vae

CPU = torch.device("cpu")
NAME = "ltx-2.3-22b-dev.safetensors"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedFiles:
    return write_published(tmp_path_factory.mktemp("published"), fp8=False)


@pytest.fixture
def complete(published: PublishedFiles, tmp_path: Path) -> Path:
    """A model directory with one file for four parts, and the text encoder."""
    text = ModelFiles.below(tmp_path).text_encoder
    text.parent.mkdir(parents=True)
    shutil.copy(published.files.text_encoder, text)
    (tmp_path / COMPLETE_DIRECTORY).mkdir()
    write_monolith(tmp_path / COMPLETE_DIRECTORY / NAME, published)
    return tmp_path


def weights(parts: Components) -> dict[str, Tensor]:
    found = {}
    placement = parts.place(parts.plan(0))
    for run in placement.walk:
        for index, block in run:
            found |= {f"{index}.{name}": tensor.detach().clone() for name, tensor in block_tensors(block).items()}
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode("a red ball")
    placement.close()
    return {**found, "video context": context.video, "audio context": context.audio}


def test_a_complete_checkpoint_is_the_model_of_the_split_files(complete: Path, published: PublishedFiles) -> None:
    files = ModelFiles.in_directory(complete)
    assert files.transformer == files.audio_vae == complete / COMPLETE_DIRECTORY / NAME
    assert files.text_encoder == ModelFiles.below(complete).text_encoder
    with torch.inference_mode():
        ours, theirs = load_components(files, CPU), load_components(published.files, CPU)
        assert (ours.base, theirs.base) == ("dev", "distilled")
        assert ours.directory == complete
        expected = weights(theirs)
        for name, tensor in weights(ours).items():
            assert torch.equal(tensor, expected[name]), name
    for part in ("video_vae", "audio_vae", "vocoder"):
        state: dict[str, Tensor] = getattr(theirs, part).state_dict()
        assert all(torch.equal(value, state[name]) for name, value in getattr(ours, part).state_dict().items())


def test_split_files_come_first_and_only_the_rest_from_the_complete_one(
    complete: Path, published: PublishedFiles
) -> None:
    own = ModelFiles.below(complete).video_vae
    own.parent.mkdir()
    shutil.copy(published.files.video_vae, own)
    files = ModelFiles.in_directory(complete)
    assert files.video_vae == own
    assert files.transformer == complete / COMPLETE_DIRECTORY / NAME
    shown = {status.role: status for status in survey(complete)}
    assert shown["transformer"].published.path == f"checkpoints/{NAME}"
    assert shown["transformer"].published.bytes == shown["transformer"].nbytes
    assert shown["video_vae"].published == load_manifest().file("video_vae")


def test_several_complete_checkpoints_and_none(complete: Path) -> None:
    second = complete / COMPLETE_DIRECTORY / "another.safetensors"
    shutil.copy(complete / COMPLETE_DIRECTORY / NAME, second)
    with pytest.raises(
        CheckpointError,
        match=rf"checkpoints: holds several files: another\.safetensors, {NAME}\. Leave the one to use",
    ):
        ModelFiles.in_directory(complete)
    shutil.rmtree(complete / COMPLETE_DIRECTORY)
    with pytest.raises(CheckpointError, match=r"4 of 5 model files are missing.*put a complete checkpoint into"):
        ModelFiles.in_directory(complete)
    ModelFiles.below(complete).text_encoder.unlink()
    with pytest.raises(CheckpointError, match="5 of 5 model files are missing"):
        ModelFiles.in_directory(complete)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "dev-distilled.safetensors"])
def test_a_name_that_does_not_tell_the_base(complete: Path, name: str) -> None:
    (complete / COMPLETE_DIRECTORY / NAME).rename(complete / COMPLETE_DIRECTORY / name)
    assert load_components(ModelFiles.in_directory(complete), CPU).base is None


def types_of(parts: Components) -> set[torch.dtype]:
    return {tensor.dtype for block in parts.blocks[0] for tensor in block_tensors(block.module).values()}


def test_bfloat16_blocks_are_quantized_where_they_would_not_fit(complete: Path) -> None:
    files = ModelFiles.in_directory(complete)
    whole = load_components(files, CPU)
    assert types_of(whole) == {torch.float32}
    nbytes = sum(block.nbytes for block in whole.blocks[0])
    small = load_components(files, CPU, EngineOptions(0.8 * nbytes / GIB))
    assert torch.float8_e4m3fn in types_of(small)
    assert sum(block.nbytes for block in small.blocks[0]) < 0.7 * nbytes
    exact, rounded = weights(whole), weights(small)
    key = "0.attn1.to_q.weight"
    back = rounded[key].float() * rounded["0.attn1.to_q.weight_scale"]
    assert float((back - exact[key]).norm() / exact[key].norm()) < 0.04


def noise(vae: Any) -> Tensor:
    return torch.randn(1, 12, len(vae.latents_mean), generator=torch.Generator().manual_seed(2))


def test_the_upsampler_is_there_when_its_file_is(complete: Path) -> None:
    files = ModelFiles.in_directory(complete)
    assert load_components(files, CPU).upsampler is None
    write_upsampler(files.upsampler, seed=3)
    parts = load_components(ModelFiles.in_directory(complete), CPU)
    assert isinstance(parts.upsampler, StageUpsampler)
    with torch.inference_mode():
        first = parts.upsampler.upsample(noise(parts.video_vae), (2, 2, 3))
        assert first.shape == (1, 48, 128)
        for _ in range(2):
            parts.upsampler.rest()
            assert torch.equal(parts.upsampler.upsample(noise(parts.video_vae), (2, 2, 3)), first)


def test_an_upsampler_that_is_none(complete: Path) -> None:
    files = ModelFiles.in_directory(complete)
    files.upsampler.parent.mkdir()
    shutil.copy(files.transformer, files.upsampler)
    with pytest.raises(CheckpointError, match=r"upscaler-x2-1\.1\.safetensors: its settings have no"):
        load_components(files, CPU)
    files.upsampler.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="is a web page"):
        load_components(files, CPU)


class Narrow(torch.nn.Module):
    """Stands for an upsampler of other latents."""

    config = type("Config", (), {"in_channels": 16})


def test_an_upsampler_of_other_latents() -> None:
    with pytest.raises(ValueError, match="takes latents of 16 channels, the VAE has 128"):
        StageUpsampler(Narrow(), tiny_video_vae(), CPU)
