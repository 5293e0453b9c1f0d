"""The latent x2 upsampler: the same latents as diffusers' own upsample pipeline, and strict about its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplePipeline
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.inspect_file import inspect_file
from scope_ltx.models.small.upsampler_weights import upsampler_metadata, write_upsampler
from scope_ltx.models.upsampler import LatentUpsampler, load_upsampler, upsampled_grid, upsampler_kwargs
from tests.tiny import tiny_video_vae

CPU = torch.device("cpu")
F32: dict[str, Any] = {"device": CPU, "dtype": torch.float32}
GRID = (3, 5, 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upsampler") / "deep" / "upscaler.safetensors"
    write_upsampler(path, seed=7)
    return path


@pytest.fixture(scope="module")
def video_vae() -> Any:
    generator = torch.Generator().manual_seed(4)
    with torch.random.fork_rng():
        vae: Any = tiny_video_vae().eval().requires_grad_(False)
    # The class counts every stage as one that changes height, width and frames.
    vae.spatial_compression_ratio, vae.temporal_compression_ratio = 32, 8
    vae.latents_mean.copy_(torch.randn(128, generator=generator) * 0.3)
    vae.latents_std.copy_(torch.rand(128, generator=generator) + 0.5)
    return vae


def noise(grid: tuple[int, int, int] = GRID) -> Tensor:
    frames, height, width = grid
    return torch.randn(1, frames * height * width, 128, generator=torch.Generator().manual_seed(5))


def test_same_latents_as_diffusers(path: Path, video_vae: Any) -> None:
    model = load_upsampler(CheckpointFile(path), **F32)
    ours = LatentUpsampler(model, video_vae).upsample(noise(), GRID)

    frames, height, width = GRID
    pipeline = LTX2LatentUpsamplePipeline(vae=video_vae, latent_upsampler=model)
    theirs = pipeline(
        latents=noise(),
        latents_normalized=True,
        height=32 * height,
        width=32 * width,
        num_frames=8 * (frames - 1) + 1,
        output_type="latent",
        return_dict=False,
    )[0]
    assert upsampled_grid(GRID) == tuple(theirs.shape[2:]) == (3, 10, 8)
    expected = (theirs.flatten(2).transpose(1, 2) - video_vae.latents_mean) / video_vae.latents_std
    assert ours.shape == (1, 4 * noise().shape[1], 128)
    assert float((ours.double() - expected.double()).norm() / expected.double().norm()) <= 1e-5


def test_statistics_belong_to_the_vae(path: Path, video_vae: Any) -> None:
    """Without them the result is another: the upsampler is not linear."""
    upsampler = LatentUpsampler(load_upsampler(CheckpointFile(path), **F32), video_vae)
    plain: Any = tiny_video_vae()
    plain.latents_mean.zero_()
    plain.latents_std.fill_(1.0)
    other = LatentUpsampler(load_upsampler(CheckpointFile(path), **F32), plain)
    ours = upsampler.upsample(noise(), GRID)
    assert (ours - other.upsample(noise(), GRID)).norm() / ours.norm() > 0.1


def test_runs_in_its_own_type_between_float32_tokens(path: Path, video_vae: Any) -> None:
    half = load_upsampler(CheckpointFile(path), device=CPU, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.bfloat16}
    got = LatentUpsampler(half, video_vae).upsample(noise(), GRID)
    expected = LatentUpsampler(load_upsampler(CheckpointFile(path), **F32), video_vae).upsample(noise(), GRID)
    assert got.dtype == torch.float32
    assert 0 < (got - expected).norm() / expected.norm() < 0.05


def test_small_file_is_the_same_every_time_and_of_the_published_layout(path: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    again = tmp_path / "again.safetensors"
    write_upsampler(again, seed=7)
    assert again.read_bytes() == path.read_bytes()
    assert torch.equal(before, torch.get_rng_state())
    write_upsampler(again, seed=8)
    assert again.read_bytes() != path.read_bytes()
    report = inspect_file(path)
    assert report.kind == "latent upsampler"
    assert report.nbytes < 2e6
    file = CheckpointFile(path)
    assert {"initial_conv.weight", "upsampler.0.weight", "post_upsample_res_blocks.0.norm2.bias"} < set(file.keys)
    assert set(file.dtypes.values()) == {"BF16"}


def test_small_model_gives_latents_of_about_one(path: Path) -> None:
    vae: Any = tiny_video_vae()
    vae.latents_mean.zero_()
    vae.latents_std.fill_(1.0)
    upsampler = LatentUpsampler(load_upsampler(CheckpointFile(path), **F32), vae)
    larger = upsampler.upsample(noise((5, 6, 5)), (5, 6, 5))
    assert 0.5 < larger.pow(2).mean().sqrt() < 2.0


def test_published_settings_give_the_published_size(path: Path, tmp_path: Path) -> None:
    """72 tensors of 497,867,904 parameters (the published file's own header)."""
    settings = {**upsampler_metadata(), "mid_channels": 1024, "num_blocks_per_stage": 4}
    kwargs = upsampler_kwargs(with_settings(path, tmp_path, settings))
    with torch.device("meta"):
        state = LTX2LatentUpsamplerModel(**kwargs).state_dict()
    assert len(state) == 72
    assert sum(tensor.numel() for tensor in state.values()) == 497_867_904
    assert state["upsampler.0.weight"].shape == (4096, 1024, 3, 3)


def with_settings(path: Path, directory: Path, settings: dict[str, Any] | None) -> CheckpointFile:
    changed = directory / "changed.safetensors"
    save_file(load_file(path), changed, {} if settings is None else {"config": json.dumps(settings)})
    return CheckpointFile(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_scale": 1.5, "rational_resampler": True}, r"`config.spatial_scale` is 1.5, expected 2.0"),
        ({"rational_resampler": True}, r"`config.rational_resampler` is True, expected False"),
        (
            {"spatial_upsample": False, "temporal_upsample": True},
            r"`config.spatial_upsample` is False, expected True",
        ),
        ({"dims": 2}, r"`config.dims` is 2, expected 3"),
        ({"_class_name": "AutoencoderKL"}, r"`config._class_name` is 'AutoencoderKL', expected 'LatentUpsampler'"),
        ({"mid_channels": 48}, r"`config.mid_channels` is 48, expected a multiple of 32"),
        ({"mid_channels": 64}, r"keys of the wrong shape: .*\[32, 128, 3, 3, 3\], expected \[64, 128, 3, 3, 3\]"),
        ({"num_blocks_per_stage": 2}, r"missing keys: .*res_blocks\.1\.conv1\.weight"),
    ],
)
def test_another_upsampler_is_refused(path: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = with_settings(path, tmp_path, {**upsampler_metadata(), **change})
    with pytest.raises(CheckpointError, match=message):
        load_upsampler(file, **F32)


def test_settings_that_are_not_there_are_not_guessed(path: Path, tmp_path: Path) -> None:
    settings = upsampler_metadata()
    del settings["mid_channels"]
    with pytest.raises(CheckpointError, match=r"its settings have no `config.mid_channels`"):
        load_upsampler(with_settings(path, tmp_path, settings), **F32)
    with pytest.raises(CheckpointError, match="has no metadata entry `config`"):
        load_upsampler(with_settings(path, tmp_path, None), **F32)


def test_extra_keys_are_named(path: Path, tmp_path: Path) -> None:
    changed = tmp_path / "extra.safetensors"
    extra = {"blur_down.kernel": torch.ones(1, 1, 5, 5)}
    save_file(load_file(path) | extra, changed, {"config": json.dumps(upsampler_metadata())})
    with pytest.raises(CheckpointError, match=r"unexpected keys: blur_down\.kernel"):
        load_upsampler(CheckpointFile(changed), **F32)


def test_tokens_must_fill_the_grid(path: Path, video_vae: Any) -> None:
    upsampler = LatentUpsampler(load_upsampler(CheckpointFile(path), **F32), video_vae)
    with pytest.raises(ValueError, match=r"a grid \(3, 5, 5\) needs tokens \(1, 75, 128\), got \(1, 60, 128\)"):
        upsampler.upsample(noise(), (3, 5, 5))


def test_a_vae_of_another_model_is_refused(path: Path) -> None:
    vae: Any = tiny_video_vae()
    vae.register_buffer("latents_mean", torch.zeros(16))
    model = load_upsampler(CheckpointFile(path), **F32)
    with pytest.raises(ValueError, match="takes latents of 128 channels, the VAE has 16"):
        LatentUpsampler(model, vae)
