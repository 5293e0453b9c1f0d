"""The log-mel analysis against a plain float64 transform written from its definition."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from scope_ltx.models.mel import LogMel, hz_to_mel, mel_filterbank, mel_to_hz
from tests.fakes.sounds import Samples, chirp, hiss

CPU = torch.device("cpu")
Float64 = npt.NDArray[np.float64]


def plain_log_mel(samples: Samples) -> Float64:
    """(C, N) -> (C, N // 160 + 1, 64), every step as the definition says it, in float64."""
    n_fft, hop = 1024, 160
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(samples.astype(np.float64), ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect")
    frames = samples.shape[1] // hop + 1
    cut = np.stack([padded[:, t * hop : t * hop + n_fft] * window for t in range(frames)], axis=1)
    turns = np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) % n_fft
    magnitude = np.abs(cut @ np.exp(-2j * np.pi * turns / n_fft))
    logs: Float64 = np.log(np.maximum(magnitude @ plain_filterbank(), 1e-5))
    return logs


def plain_filterbank() -> Float64:
    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * math.log(8) / math.log(6.4)
    edges = [to_hz(top * i / 65) for i in range(66)]
    bank = np.zeros((513, 64))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        for place in range(513):
            hz = place * 16_000 / 1024
            if low < hz <= centre:
                bank[place, band] = (hz - low) / (centre - low)
            elif centre < hz < high:
                bank[place, band] = (high - hz) / (high - centre)
        bank[:, band] *= 2 / (high - low)
    return bank


@pytest.mark.parametrize(
    ("hz", "mel"),
    [(0, 0), (60, 0.9), (110, 1.65), (220, 3.3), (440, 6.6), (1000, 15), (6400, 42), (8000, 45.245640471924965)],
)
def test_slaneys_scale(hz: float, mel: float) -> None:
    """Published values of the scale: 200/3 Hz a mel, 15 mel at 1000 Hz, 27 more at 6400 Hz."""
    assert hz_to_mel(hz) == pytest.approx(mel, rel=1e-12)
    assert mel_to_hz(mel) == pytest.approx(hz, rel=1e-12)


def test_the_filterbank_is_triangles_of_area_one() -> None:
    bank = mel_filterbank()
    assert bank.shape == (513, 64)
    assert bank.dtype == torch.float32
    np.testing.assert_allclose(bank.numpy(), plain_filterbank(), rtol=2e-6, atol=1e-9)
    # Wide triangles are well sampled by bins of 15.625 Hz.
    np.testing.assert_allclose(bank[:, 40:].sum(0).numpy() * 15.625, 1.0, atol=0.01)
    assert float(bank.sum(0).min()) > 0, "no band may be empty"


@pytest.mark.parametrize("kind", ["chirp", "noise", "quiet"])
def test_log_mel_is_the_plain_transform(kind: str) -> None:
    samples = {"chirp": chirp(1.005, 16_000), "noise": hiss(16_079), "quiet": hiss(8_000, level=1e-5)}[kind]
    ours = LogMel(CPU)(torch.from_numpy(samples)).double().numpy()
    plain = plain_log_mel(samples)
    assert ours.shape == plain.shape == (2, samples.shape[1] // 160 + 1, 64)
    # In magnitudes float32 is exact to its rounding. In logarithms a tone leaves bands that hold nothing but the
    # rounding of others, 1e-7 of them: hence 1e-4.
    magnitudes, exact = np.exp(ours), np.exp(plain)
    assert float(np.linalg.norm(magnitudes - exact) / np.linalg.norm(exact)) < 1e-6
    assert float(np.linalg.norm(ours - plain) / np.linalg.norm(plain)) < 1e-4
    assert float(np.abs(ours - plain).max()) < 0.02
    assert plain.std() > 0.1, "a flat spectrogram would prove nothing"


def test_silence_is_the_floor() -> None:
    mel = LogMel(CPU)(torch.zeros(2, 1_600))
    torch.testing.assert_close(mel, torch.full((2, 11, 64), math.log(1e-5)))


def test_a_sound_shorter_than_half_a_window_is_refused() -> None:
    assert LogMel(CPU)(torch.zeros(2, 513)).shape == (2, 4, 64)
    with pytest.raises(ValueError, match=r"N at least 513, got \(2, 512\)"):
        LogMel(CPU)(torch.zeros(2, 512))
    with pytest.raises(ValueError, match=r"got \(1600,\)"):
        LogMel(CPU)(torch.zeros(1_600))
