"""The tables of a vocoder's analysis: those that libraries compute, and those that the shipped model holds."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers.audio_utils import mel_filter_bank

from scope_ltx.manifest import ModelFiles
from scope_ltx.models import mel
from scope_ltx.models.small import WEIGHTS
from scope_ltx.models.small.sizes import MELS, STFT_LENGTH, VOCODER_RATE
from scope_ltx.models.small.spectral_tables import mel_filterbank, stft_bases


@pytest.mark.parametrize(("mels", "n_fft", "rate"), [(64, 512, 16_000), (64, 1024, 16_000), (80, 1024, 22_050)])
def test_the_mel_table_is_the_librarys_on_slaneys_scale(mels: int, n_fft: int, rate: int) -> None:
    bank = mel_filterbank(mels, n_fft, rate)
    theirs = mel_filter_bank(n_fft // 2 + 1, mels, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    assert bank.dtype == torch.float32
    torch.testing.assert_close(bank, torch.from_numpy(theirs).T.float(), rtol=1e-6, atol=1e-9)


def test_the_mel_table_is_that_of_the_analysis_before_the_audio_vae() -> None:
    torch.testing.assert_close(mel_filterbank(64, 1024, 16_000).T, mel.mel_filterbank(), rtol=1e-6, atol=1e-9)


def test_bands_are_in_order_and_none_is_empty() -> None:
    bank = mel_filterbank(64, 512, 16_000)
    assert bank.shape == (64, 257)
    assert (bank >= 0).all()
    assert (bank.sum(dim=1) > 0).all()
    centres = bank.argmax(dim=1) * 16_000 / 512
    assert (centres.diff() >= 0).all()
    # Slaney's scale: 1000 Hz is mel 15 of 45.245, so about a third of the bands lie below it.
    assert (centres < 1000).sum().item() in (20, 21, 22)


def test_the_forward_basis_is_the_librarys_transform() -> None:
    wave = torch.randn(512, generator=torch.Generator().manual_seed(1))
    forward, _ = stft_bases(512)
    window = torch.hann_window(512)
    theirs = torch.stft(wave, 512, 512, window=window, center=False, return_complex=True)[:, 0]
    ours = (forward[:, 0] @ wave).reshape(2, -1)
    torch.testing.assert_close(ours, torch.view_as_real(theirs).T, rtol=1e-5, atol=1e-4)


def test_the_inverse_basis_takes_the_forward_one_back() -> None:
    forward, inverse = stft_bases(64)
    wave = torch.cos(2 * torch.pi * 5 / 64 * torch.arange(64))
    spectrum = (forward[:, 0] @ wave).reshape(2, -1).norm(dim=0)
    assert spectrum.argmax() == 5
    window = torch.hann_window(64)
    assert torch.allclose(inverse[:, 0].T @ (forward[:, 0] @ wave), wave * window**2, atol=1e-5)


def test_the_shipped_vocoder_holds_these_tables() -> None:
    shipped = load_file(ModelFiles.below(WEIGHTS).audio_vae)
    forward, inverse = stft_bases(STFT_LENGTH)
    tables = {
        "mel_basis": mel_filterbank(MELS, STFT_LENGTH, VOCODER_RATE),
        "stft_fn.forward_basis": forward,
        "stft_fn.inverse_basis": inverse,
    }
    for name, table in tables.items():
        assert torch.equal(shipped[f"vocoder.mel_stft.{name}"], table.bfloat16()), name
