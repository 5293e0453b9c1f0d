"""The small model before training: weights laid out by hand for a picture and a sound fit for a person."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scope_ltx.catalog import load_catalog
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.config import LTX2Config
from scope_ltx.inputs import ChunkInputs, Samples
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.small.published import write_untrained_model
from scope_ltx.models.small.vocoder_weights import mel_filterbank, stft_bases
from scope_ltx.pipeline import Pipeline
from scope_ltx.request import Chunk, ChunkRequest
from tests.fakes.clock import FakeClock

SHORT = LTX2Config(height=192, width=160, num_frames=41, randomize_seed=False)
ROLES = ("transformer", "text_projection", "text_encoder", "video_vae", "audio_vae")


@pytest.fixture(scope="module")
def components(untrained_model_dir: Path) -> Components:
    components = load_components(ModelFiles.in_directory(untrained_model_dir), torch.device("cpu"))
    components.place(components.plan(headroom_nbytes=0))
    return components


@pytest.fixture(scope="module")
def pipeline(components: Components) -> Pipeline:
    return Pipeline(components, FakeClock())


@pytest.fixture(scope="module")
def generate(pipeline: Pipeline) -> Callable[[str, int], Chunk]:
    return functools.cache(lambda prompt, seed: pipeline.generate(ChunkRequest(SHORT, prompt, seed)))


def test_another_seed_gives_other_weights_under_the_same_names(untrained_model_dir: Path, tmp_path: Path) -> None:
    write_untrained_model(tmp_path, seed=1)
    for role in ROLES:
        path = getattr(ModelFiles.below(untrained_model_dir), role)
        other = getattr(ModelFiles.below(tmp_path), role)
        assert CheckpointFile(other).shapes == CheckpointFile(path).shapes
        assert other.read_bytes() != path.read_bytes()


def test_a_standard_lora_is_seen_and_mild(pipeline: Pipeline, generate: Callable[[str, int], Chunk]) -> None:
    plain = generate("a red ball", 7)
    changed = pipeline.generate(ChunkRequest(SHORT.updated(loras=[{"path": "dual-character"}]), "a red ball", 7))
    difference = np.abs(changed.frames.astype(np.float32) - plain.frames).mean()
    assert 2 < difference < 25
    assert relative(changed.samples, plain.samples) < 0.05


def test_the_id_lora_changes_the_sound(pipeline: Pipeline, generate: Callable[[str, int], Chunk]) -> None:
    plain = generate("a red ball", 7)
    config = SHORT.updated(audio_input="voice.wav", audio_mode="id_lora", identity_guidance_scale=0)
    inputs = ChunkInputs(voice=np.zeros((2, 16_000), np.float32))
    changed = pipeline.generate(ChunkRequest(config, "a red ball", 7, inputs))
    assert relative(changed.samples, plain.samples) > 0.1
    assert np.abs(changed.frames.astype(np.float32) - plain.frames).mean() < 25


@pytest.mark.parametrize("name", ["union-control", "ingredients", "sync"])
def test_with_an_in_context_lora_a_picture_follows_its_reference(pipeline: Pipeline, name: str) -> None:
    """Two references that differ on one side: so do the two pictures, on that side and in that colour."""
    frames = load_catalog().find(name).preparation.min_frames or SHORT.num_frames
    # Longer clips are smaller, so that all take about as long.
    height = SHORT.height if frames == SHORT.num_frames else 64
    config = SHORT.updated(width=192, height=height, num_frames=frames, loras=[{"path": name}])
    made = []
    for left in (230, 20):
        reference = np.full((config.num_frames, config.height, config.width, 3), 60, np.uint8)
        reference[:, :, : config.width // 2, 1] = left
        inputs = ChunkInputs(reference=reference)
        made.append(pipeline.generate(ChunkRequest(config, "a blue ball", 7, inputs)).frames.astype(np.float32))
    difference = (made[0] - made[1]).mean(axis=(0, 1))
    near, far = difference[:64], difference[-64:]
    assert near[:, 1].mean() > 30
    assert np.abs(far).mean() < near[:, 1].mean() / 3
    assert np.abs(near[:, [0, 2]]).mean() < near[:, 1].mean() / 2


def relative(got: Samples, want: Samples) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def test_picture_is_bright_smooth_and_slowly_moving(generate: Callable[[str, int], Chunk]) -> None:
    frames = generate("a red ball on a blue background", 7).frames.astype(np.float32)
    assert 60 < frames.mean() < 200
    assert frames.std() > 25
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert 0.5 < steps.mean() < 6
    assert steps.max() < 12
    # No grain: a pixel is close to the mean of its neighbours.
    grain = frames[:, 1:-1, 1:-1] - (frames[:, :-2, 1:-1] + frames[:, 2:, 1:-1]) / 2
    assert np.abs(grain).mean() < 2


def test_prompt_and_seed_both_matter(generate: Callable[[str, int], Chunk]) -> None:
    means = {
        colour: generate(f"a {colour} ball", 7).frames.astype(np.float32).mean(axis=(0, 1, 2))
        for colour in ("red", "green", "blue")
    }
    assert means["red"].argmax() == 0
    assert means["green"].argmax() == 1
    assert means["blue"].argmax() == 2
    first, second = (generate("a red ball", seed).frames.astype(np.float32) for seed in (7, 8))
    assert np.abs(first - second).mean() > 5


def test_sound_is_a_quiet_tone_without_clicks(generate: Callable[[str, int], Chunk]) -> None:
    chunk = generate("a red ball", 7)
    assert chunk.samples.shape[0] == 2
    rms_db = 20 * np.log10(np.sqrt(np.mean(chunk.samples**2, axis=1)))
    assert (rms_db > -35).all()
    assert (rms_db < -18).all()
    assert not np.array_equal(chunk.samples[0], chunk.samples[1])
    spectrum = np.abs(np.fft.rfft(chunk.samples[0] * np.hanning(chunk.samples.shape[1]))) ** 2
    flatness = np.exp(np.mean(np.log(spectrum + 1e-20))) / np.mean(spectrum)
    assert flatness < 1e-3  # noise has about 0.56
    # A full-scale sine of 1200 Hz, the highest partial, changes by 0.16 from sample to sample.
    assert np.abs(np.diff(chunk.samples)).max() < 0.16 * np.abs(chunk.samples).max()


def test_audio_vae_round_trip_keeps_a_loudness(components: Components) -> None:
    vae = components.audio_vae
    with torch.inference_mode():
        levels = [
            vae.decode(vae.encode(torch.full((1, 2, 41, 64), level)).latent_dist.mode(), return_dict=False)[0]
            for level in (-7.0, -3.0)
        ]
    quiet, loud = (level[..., 8:32, 8:56].mean().item() for level in levels)
    assert quiet == pytest.approx(-7.0, abs=0.5)
    assert loud == pytest.approx(-3.0, abs=0.5)


def test_spectrogram_bases_are_real() -> None:
    forward, inverse = stft_bases(64)
    wave = torch.cos(2 * torch.pi * 5 / 64 * torch.arange(64))
    spectrum = (forward[:, 0] @ wave).reshape(2, -1).norm(dim=0)
    assert spectrum.argmax() == 5
    window = torch.hann_window(64)
    assert torch.allclose(inverse[:, 0].T @ (forward[:, 0] @ wave), wave * window**2, atol=1e-5)
    bank = mel_filterbank(64, 512, 16000)
    assert bank.shape == (64, 257)
    assert (bank >= 0).all()
    assert (bank.sum(dim=1) > 0).all()
    centres = bank.argmax(dim=1) * 16000 / 512
    assert (centres.diff() >= 0).all()
    # Slaney's scale: 1000 Hz is mel 15 of 45.245, so about a third of the bands lie below it.
    assert (centres < 1000).sum().item() in (20, 21, 22)
