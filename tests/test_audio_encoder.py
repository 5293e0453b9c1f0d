"""Sound into audio tokens: against diffusers' own encoder, and back through our decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.models.audio_encoder import AudioEncoder
from scope_ltx.models.decode import AudioDecoder
from scope_ltx.models.mel import LogMel
from scope_ltx.sound_in.lengths import model_samples_for, tokens_of
from scope_ltx.sound_in.resample import to_model_rate
from scope_streaming.weights.graphs import EagerRunner
from tests.fakes.sounds import hiss
from tests.tiny import tiny_audio_vae

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module: Any = tiny_audio_vae().eval().requires_grad_(False)
        module.latents_mean.copy_(torch.randn(128))
        module.latents_std.copy_(torch.rand(128) + 0.5)
    return module


def sound(samples: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(hiss(samples, seed))


@torch.inference_mode()
def test_tokens_are_diffusers_posterior_mean_patchified_and_normalised(vae: Any) -> None:
    waveform = sound(16_000)
    mel = LogMel(CPU)(waveform)[None]
    posterior = vae.encode(mel).latent_dist
    mean = vae.encoder(mel)[:, :8]
    torch.testing.assert_close(posterior.mode(), mean)
    expected = torch.empty(1, mean.shape[2], 128)
    for channel in range(8):
        for place in range(16):
            index = channel * 16 + place
            value = (mean[0, channel, :, place] - vae.latents_mean[index]) / vae.latents_std[index]
            expected[0, :, index] = value
    tokens = AudioEncoder(vae).encode(waveform)
    assert tokens.shape == (1, 26, 128)
    assert tokens.dtype == torch.float32
    error = float((tokens - expected).norm() / expected.norm())
    assert error <= 1e-5
    assert float(expected.std()) > 0.1


@given(samples=st.integers(513, 30_000))
@settings(max_examples=15)
def test_a_token_for_every_four_frames_begun(vae: Any, samples: int) -> None:
    frames = samples // 160 + 1
    assert AudioEncoder(vae).encode(sound(samples)).shape[1] == -(-frames // 4) == tokens_of(samples)


@pytest.mark.parametrize("tokens", [1, 2, 26])
def test_a_chunk_is_encoded_as_the_whole_track_would_be(vae: Any, tokens: int) -> None:
    """Exactly the wanted tokens, and none would change if the model heard more of the track."""
    encoder = AudioEncoder(vae)
    track = sound(40_000)
    count = model_samples_for(tokens)
    alone = encoder.encode(track[:, :count])
    whole = encoder.encode(track)
    assert alone.shape == (1, tokens, 128)
    torch.testing.assert_close(alone, whole[:, :tokens], rtol=1e-5, atol=1e-5)
    shorter = encoder.encode(track[:, : max(513, count - 300)])
    if tokens > 1:
        assert float((shorter[:, tokens - 1] - whole[:, tokens - 1]).abs().max()) > 1e-4, "less would not do"


def test_other_shapes_are_refused(vae: Any) -> None:
    for wrong in (torch.zeros(1, 2_000), torch.zeros(2_000), torch.zeros(1, 2, 2_000)):
        with pytest.raises(ValueError, match=r"takes \(2, N\) samples"):
            AudioEncoder(vae).encode(wrong)
    with pytest.raises(ValueError, match="at least 513"):
        AudioEncoder(vae).encode(torch.zeros(2, 512))


def test_a_bfloat16_vae_gives_float32_tokens_close_to_the_float32_ones(vae: Any) -> None:
    half: Any = tiny_audio_vae().eval().requires_grad_(False)
    half.load_state_dict(vae.state_dict())
    waveform = sound(8_000)
    tokens = AudioEncoder(half.to(torch.bfloat16)).encode(waveform)
    full = AudioEncoder(vae).encode(waveform)
    assert tokens.dtype == torch.float32
    assert 0 < float((tokens - full).norm() / full.norm()) < 0.1


@torch.inference_mode()
def test_sound_comes_back_through_the_small_models_decoder(small_model_dir: Path) -> None:
    """A tone of the world that the small model knows, then silence: both come back, the tone at its pitch."""
    file = CheckpointFile(ModelFiles.in_directory(small_model_dir).audio_vae)
    vae = load_audio_vae(file, device=CPU, dtype=torch.float32)
    decoder = AudioDecoder(vae, load_vocoder(file, device=CPU), EagerRunner())
    tokens, hertz = 26, 1000
    played = np.stack([0.2 * np.sin(2 * np.pi * hertz * np.arange(57_600) / 48_000)] * 2).astype(np.float32)
    played[:, 24_000:] = 0
    waveform = torch.from_numpy(to_model_rate(played))[:, : model_samples_for(tokens)]
    encoded = AudioEncoder(vae).encode(waveform)
    heard = decoder.decode(encoded).numpy()
    assert encoded.shape == (1, tokens, 128)
    assert heard.shape == (2, (4 * tokens - 3) * 480)
    tone, silence = heard[:, 6_000:20_000], heard[:, 30_000:44_000]
    assert float(np.square(tone).mean()) > 100 * float(np.square(silence).mean())
    strongest = np.abs(np.fft.rfft(tone)).argmax(axis=1) * 48_000 / tone.shape[1]
    assert np.abs(strongest - hertz).max() < 10
