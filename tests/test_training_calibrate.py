"""The transformer's way to FP8: what its layers see, and that its velocities are nearer to the unrounded ones'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from scope_ltx.sampling.geometry import ChunkGeometry
from scope_quant.fp8 import Quantized, dequantize, quantize_per_tensor
from training.bank import SIZES, Job, save
from training.calibrate import calibrated, input_moments
from training.clips import Clips
from training.conditions import Conditioner
from training.distill import load_model
from training.joint import JointModel
from training.text import CaptionEncoder
from training.transformer import as_fp8, build_model, places_of, save_weights
from training.walk import Walk, velocities_of

CPU = torch.device("cpu")
BATCH = 2
CAPTION = "a large red circle slides right on a navy background"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As training begins, with every weight moved, as training leaves them: on no grid."""
    model = build_model(7, CPU, compiled=False, audio_used=64).requires_grad_(False)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
    path = tmp_path_factory.mktemp("weights") / "distilled.safetensors"
    save_weights(path, model.state_dict())
    return path


@pytest.fixture(scope="module")
def clips() -> Clips:
    geometry = ChunkGeometry.of(SIZES["small"])
    generator = torch.Generator().manual_seed(1)
    features, lengths = CaptionEncoder(CPU).features([CAPTION] * 2)
    video = torch.randn(2, geometry.video_tokens, 32, generator=generator)
    audio = torch.randn(2, geometry.audio_tokens, 64, generator=generator)
    return Clips(geometry, video.bfloat16(), audio.bfloat16(), features[:, None], lengths[:, None])


@pytest.fixture(scope="module")
def bank(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bank")
    save(directory, Job("base", "small", 0), clips)
    return directory


def walk_of(clips: Clips, seed: int) -> Walk:
    empty = CaptionEncoder(CPU).features([""])
    return Walk(Conditioner(clips, BATCH, empty, torch.Generator().manual_seed(seed)), CPU)


def velocities(model: JointModel, clips: Clips) -> Tensor:
    """Of samples that the calibration has not seen, one behind the other."""
    now = walk_of(clips, 99).now()
    contexts = model.contexts(now["features"], now["lengths"])
    with torch.no_grad():
        video, audio = velocities_of(model, now, places_of(model, SIZES["small"]), contexts)
    return torch.cat([video[..., :32].flatten(), audio[..., :64].flatten()])


def test_velocities_stay_nearer_than_with_every_weight_at_its_nearest_value(
    weights: Path, clips: Clips, bank: Path
) -> None:
    quantize = calibrated(weights, bank, 5, CPU, BATCH)
    model = load_model(weights, 7, CPU, compiled=False).requires_grad_(False)
    true, state = velocities(model, clips), {name: value.clone() for name, value in model.state_dict().items()}

    def off(rounded: dict[str, Quantized]) -> float:
        values = {name: dequantize(one.data, one.scale, torch.float32) for name, one in rounded.items()}
        model.load_state_dict(state | values)
        return float((velocities(model, clips) - true).norm() / true.norm())

    published = {name: weight for name, weight in state.items() if as_fp8(name, weight)}
    nearest = {name: quantize_per_tensor(weight) for name, weight in published.items()}
    ours = {name: quantize(name.removeprefix("transformer."), weight) for name, weight in published.items()}
    assert all(torch.equal(ours[name].scale, nearest[name].scale) for name in published)
    assert off(ours) < 0.7 * off(nearest)


def test_every_layer_that_is_published_in_fp8_has_been_looked_at_and_no_other(weights: Path, clips: Clips) -> None:
    model = load_model(weights, 7, CPU, compiled=False).requires_grad_(False)
    moments = input_moments(model, walk_of(clips, 3), places_of(model, SIZES["small"]), 1)
    wanted = {
        name.removeprefix("transformer."): weight.shape[1]
        for name, weight in model.state_dict().items()
        if as_fp8(name, weight)
    }
    assert {name: len(moment) for name, moment in moments.items()} == wanted
    assert all(bool((moment.diagonal() >= 0).all()) and bool(moment.any()) for moment in moments.values())
    # It has taken its hooks away again.
    before = {name: moment.clone() for name, moment in moments.items()}
    velocities(model, clips)
    assert all(torch.equal(moments[name], before[name]) for name in before)


def test_a_bank_without_clips_is_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no short clips of the base model: draw some with training\.bank"):
        calibrated(weights, tmp_path, 5, CPU)
