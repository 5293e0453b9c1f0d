"""Distance of two sounds by their spectrograms at several resolutions, which does not hear phase.

R. Yamamoto et al., "Parallel WaveGAN" (arXiv:1910.11480): spectral convergence and the difference of logarithms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLOOR = 1e-3
"""Of magnitudes of a window whose sum is 1: 60 dB under full scale."""


class SpectralDistance(nn.Module):
    """windows: lengths in samples; hops are a quarter of them."""

    def __init__(self, windows: tuple[int, ...]) -> None:
        super().__init__()
        self.windows = windows
        for length in windows:
            self.register_buffer(f"window_{length}", torch.hann_window(length), persistent=False)

    def forward(self, heard: Tensor, wanted: Tensor) -> Tensor:
        """(..., N) each -> a number."""
        total = torch.zeros((), device=heard.device)
        for length in self.windows:
            ours, theirs = self._magnitudes(heard, length), self._magnitudes(wanted, length)
            convergence = (ours - theirs).norm() / theirs.norm().clamp(min=1e-6)
            logs = ((ours + _FLOOR).log() - (theirs + _FLOOR).log()).abs().mean()
            total = total + convergence + logs
        return total / len(self.windows)

    def _magnitudes(self, samples: Tensor, length: int) -> Tensor:
        window = self.get_buffer(f"window_{length}")
        flat = samples.reshape(-1, samples.shape[-1])
        spectrum = torch.stft(flat, length, length // 4, window=window, return_complex=True)
        # The addend keeps the gradient of the magnitude finite in silence.
        power = spectrum.real.square() + spectrum.imag.square()
        return power.add(1e-9).sqrt() / (0.5 * length)
