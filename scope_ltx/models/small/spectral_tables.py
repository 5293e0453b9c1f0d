"""The tables of a vocoder's own spectrogram analysis: triangles on Slaney's mel scale, and a windowed DFT.

Published vocoders keep them beside their weights. They are computed, not learnt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mel_filterbank(mels: int, n_fft: int, rate: int) -> Tensor:
    """(mels, n_fft / 2 + 1) triangles of equal area from 0 to rate / 2, on Slaney's mel scale.

    Linear below 1 kHz (200/3 Hz a mel), logarithmic above (a factor of 6.4 in 27 mels); Slaney 1998, Auditory
    Toolbox.
    """

    def hertz(mel: Tensor) -> Tensor:
        return torch.where(mel < 15, mel * (200 / 3), 1000 * torch.exp((mel - 15) * (math.log(6.4) / 27)))

    top = 15 + math.log(rate / 2000) * 27 / math.log(6.4)
    edges = hertz(torch.linspace(0, top, mels + 2, dtype=torch.float64))
    bins = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    low, middle, high = (edges[start : start + mels, None] for start in range(3))
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def stft_bases(n_fft: int) -> tuple[Tensor, Tensor]:
    """Forward and inverse DFT, (n_fft + 2, 1, n_fft): real parts, then imaginary, under a periodic Hann window.

    inverse is forward's pseudo-inverse without its window, windowed again, so that overlapping frames add up.
    """
    time = torch.arange(n_fft, dtype=torch.float64)
    angles = 2 * math.pi / n_fft * torch.outer(torch.arange(n_fft // 2 + 1, dtype=torch.float64), time)
    waves = torch.cat([angles.cos(), -angles.sin()])
    window = torch.hann_window(n_fft, dtype=torch.float64)
    # Every frequency but the first and the last stands for two.
    weights = torch.full((n_fft // 2 + 1, 1), 2.0, dtype=torch.float64)
    weights[[0, -1]] = 1.0
    inverse = waves * torch.cat([weights, weights]) / n_fft
    return (waves * window).float()[:, None], (inverse * window).float()[:, None]
