"""Sound -> log-mel spectrogram, as the LTX-2.3 audio VAE was trained on.

1024-sample periodic Hann window, hop 160, centred with reflection, *magnitude* (not power), 64 mel bands on
Slaney's scale with Slaney's normalisation from 0 to 8000 Hz, natural logarithm of at least 1e-5; float32. Source:
Lightricks/LTX-2, ltx-core audio processor. The scale: M. Slaney, "Auditory Toolbox", Interval Research technical
report 1998-010: 200/3 Hz a mel up to 1000 Hz, above it 27 mels for every factor of 6.4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scope_ltx.sound_in.lengths import HOP_SAMPLES, MODEL_RATE, WINDOW_SAMPLES

MEL_BANDS = 64
LOWEST_HZ, HIGHEST_HZ = 0.0, 8000.0
SMALLEST_MAGNITUDE = 1e-5

_HZ_PER_MEL = 200.0 / 3.0
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz / _HZ_PER_MEL
    return _KNEE_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP


def mel_to_hz(mel: float) -> float:
    if mel < _KNEE_MEL:
        return mel * _HZ_PER_MEL
    return _KNEE_HZ * math.exp(_LOG_STEP * (mel - _KNEE_MEL))


def mel_filterbank() -> Tensor:
    """(513, 64) float32: what each band takes of each frequency. A band is a triangle between its neighbours'
    centres, of area 1 over its Hz."""
    lowest, highest = hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ)
    step = (highest - lowest) / (MEL_BANDS + 1)
    edges = torch.tensor([mel_to_hz(lowest + step * i) for i in range(MEL_BANDS + 2)], dtype=torch.float64)
    bins = torch.arange(WINDOW_SAMPLES // 2 + 1, dtype=torch.float64)[:, None] * (MODEL_RATE / WINDOW_SAMPLES)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangle = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_(min=0)
    return (triangle * 2.0 / (high - low)).float()


class LogMel:
    """The analysis with its tables on one device."""

    def __init__(self, device: torch.device) -> None:
        self._window = torch.hann_window(WINDOW_SAMPLES, periodic=True, device=device)
        self._filterbank = mel_filterbank().to(device)

    def __call__(self, waveform: Tensor) -> Tensor:
        """(channels, N) at 16 kHz on that device -> (channels, N // 160 + 1, 64) float32.

        Raises ValueError below 513 samples: half a window is reflected at either edge.
        """
        if waveform.ndim != 2 or waveform.shape[1] <= WINDOW_SAMPLES // 2:
            raise ValueError(
                f"a spectrogram needs (channels, N) with N at least {WINDOW_SAMPLES // 2 + 1}, "
                f"got {tuple(waveform.shape)}"
            )
        spectrum = torch.stft(
            waveform.float(),
            WINDOW_SAMPLES,
            HOP_SAMPLES,
            window=self._window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        mel = spectrum.abs().transpose(1, 2) @ self._filterbank
        return mel.clamp_(min=SMALLEST_MAGNITUDE).log_()
