"""Training of the audio VAE and the vocoder: their bank, their losses, what they leave alone, what they learn."""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from scope_ltx.models.antialias import antialiased_snake
from scope_ltx.models.mel import LogMel
from scope_ltx.models.small.sizes import build_vocoder
from scope_ltx.sound_in.resample import TO_MODEL
from tests.fakes.training_stage import CutOffError, CutOffStage, stage_in
from training import audio_vae, vocoder
from training.export import read_audio_vae, read_vocoder, write_audio_vae, write_vocoder
from training.sound_bank import SoundBank, to_model_rate
from training.spectral import SpectralDistance
from training.stage import Stage

CPU = torch.device("cpu")
SETTINGS = argparse.Namespace(rate=2e-3, batch=4, graph=False)


@pytest.fixture(scope="module")
def bank() -> SoundBank:
    return SoundBank(4, CPU, 11)


def fresh_vae() -> Any:
    vae: Any = audio_vae.build()
    vae.load_state_dict(audio_vae.initial_weights(3))
    return vae


def fresh_vocoder() -> Any:
    module: Any = build_vocoder()
    module.load_state_dict(vocoder.initial_weights(3))
    return module


def test_the_rate_is_lowered_by_the_products_own_filter() -> None:
    high = torch.randn(2, 4800, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(to_model_rate(high), torch.from_numpy(TO_MODEL.whole(high.numpy())), atol=1e-5)


def test_samples_of_the_bank_are_one_sound_in_three_forms(bank: SoundBank) -> None:
    sounds = bank.sample(3, 101, seeded())
    assert (sounds.mel.shape, sounds.low.shape, sounds.high.shape) == (
        (3, 2, 101, 64),
        (3, 2, 16160),
        (3, 2, 48480),
    )
    heard = LogMel(CPU)(sounds.low.flatten(0, 1))[:, :101].view(3, 2, 101, 64)
    # The first frames of a stretch hear what came before it.
    loud = sounds.mel[:, :, 8:-8] > -6.0
    assert loud.any()
    assert (heard - sounds.mel)[:, :, 8:-8][loud].abs().max() < 0.05
    lowered = to_model_rate(sounds.high.flatten(0, 1)).view(3, 2, -1)
    assert (lowered - sounds.low)[..., 100:-100].abs().max() < 1e-4
    again = SoundBank(4, CPU, 11).sample(3, 101, seeded())
    assert torch.equal(again.mel, sounds.mel)


def seeded() -> random.Random:
    return random.Random(4)


def test_the_spectral_distance_does_not_hear_phase() -> None:
    distance = SpectralDistance((512, 1024))
    seconds = torch.arange(16000) / 16000
    sine, cosine, other = (
        torch.sin(2 * math.pi * hertz * seconds + phase) for hertz, phase in ((440, 0), (440, 1.57), (880, 0))
    )
    assert distance(sine, sine) == 0
    assert distance(sine, cosine) < 0.15 * distance(sine, other)
    silent = torch.zeros(16000, requires_grad=True)
    distance(silent, sine).backward()
    assert silent.grad is not None
    assert silent.grad.isfinite().all()


def test_the_audio_vae_learns_goes_on_and_leaves_unused_channels_alone(tmp_path: Path, bank: SoundBank) -> None:
    whole, rest = fresh_vae(), fresh_vae()
    mel = bank.sample(2, 101, seeded()).mel
    before = float(audio_vae.mel_loss(whole.decoder(audio_vae.encode(whole, mel)), mel).detach())
    audio_vae.train(stage_in(tmp_path / "whole", Stage), whole, bank, SETTINGS)
    after = float(audio_vae.mel_loss(whole.decoder(audio_vae.encode(whole, mel)), mel).detach())
    assert after < before
    with pytest.raises(CutOffError):
        audio_vae.train(stage_in(tmp_path / "cut", CutOffStage), fresh_vae(), bank, SETTINGS)
    audio_vae.train(stage_in(tmp_path / "cut", Stage), rest, bank, SETTINGS)
    assert all(
        torch.equal(*pair) for pair in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True)
    )
    latents = whole.encoder(mel)
    assert latents[:, : audio_vae.USED_CHANNELS].abs().max() > 0
    assert latents[:, audio_vae.USED_CHANNELS : 8].abs().max() == 0
    audio_vae.measure_statistics(stage_in(tmp_path / "measured", Stage), whole, bank, 1)
    assert whole.latents_mean[64:].abs().max() == 0
    assert (whole.latents_std[64:] == 1.0).all()
    write_audio_vae(tmp_path / "audio.safetensors", whole.state_dict())
    assert read_audio_vae(tmp_path / "audio.safetensors").keys() == whole.state_dict().keys()


def test_interleaving_is_what_the_later_stages_of_the_vocoder_do() -> None:
    module = fresh_vocoder()
    mel = torch.rand(2, 2, 21, 64, generator=torch.Generator().manual_seed(1)) * -8
    with torch.inference_mode():
        whole = module.vocoder(mel)
        assert whole.std() > 1e-3
        assert torch.allclose(vocoder.core(module.vocoder, mel), whole, atol=1e-6)
        assert torch.allclose(module(mel), module.resampler(whole).clamp(-1, 1), atol=1e-6)


def test_the_vocoder_learns_goes_on_and_leaves_the_later_stages_alone(tmp_path: Path, bank: SoundBank) -> None:
    vae, whole, rest = fresh_vae().requires_grad_(False), fresh_vocoder(), fresh_vocoder()
    first = {name: weight.clone() for name, weight in whole.state_dict().items()}
    vocoder.train(stage_in(tmp_path / "whole", Stage, steps=3), whole, vae, bank, SETTINGS)
    with pytest.raises(CutOffError):
        vocoder.train(stage_in(tmp_path / "cut", CutOffStage, steps=3), fresh_vocoder(), vae, bank, SETTINGS)
    vocoder.train(stage_in(tmp_path / "cut", Stage, steps=3), rest, vae, bank, SETTINGS)
    state = vocoder.plain_state(whole)
    assert all(torch.equal(state[name], weight) for name, weight in rest.state_dict().items())
    changed = {name for name, weight in state.items() if not torch.equal(weight, first[name])}
    assert "vocoder.conv_in.weight" in changed
    assert not {name for name in changed if name.startswith(("bwe_generator", "mel_stft", "vocoder.upsamplers.3"))}
    write_vocoder(tmp_path / "vocoder.safetensors", state)
    assert read_vocoder(tmp_path / "vocoder.safetensors").keys() == first.keys()


def test_fused_activations_keep_the_names_and_the_result() -> None:
    module = fresh_vocoder()
    names = set(module.state_dict())
    mel = torch.rand(1, 2, 9, 64, generator=torch.Generator().manual_seed(1)) * -8
    with torch.inference_mode():
        plain = vocoder.core(module.vocoder, mel)
    vocoder.fuse_activations(module, antialiased_snake)
    assert set(module.state_dict()) != names
    assert set(vocoder.plain_state(module)) == names
    with torch.inference_mode():
        assert torch.allclose(vocoder.core(module.vocoder, mel), plain, atol=1e-5)
