"""48 kHz -> 16 kHz for the model, by the filter that its training data went through.

A Hann-windowed sinc with 6 zero crossings to either side and its cut-off at 0.99 of the lower rate's half:
torchaudio's default, which Lightricks/LTX-2 resamples with. It is softer than a player's resampler (it begins to
fall at 6 kHz), and the model has only ever heard sound like that.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import numpy.typing as npt

from scope_ltx.sound_in.lengths import MODEL_RATE, OUTPUT_RATE

Samples = npt.NDArray[np.float32]
"""(channels, N), nominally within -1..1."""

_ZERO_CROSSINGS = 6
_ROLL_OFF = 0.99


class HannSincResampler:
    """Changes the rate of whole numbers of Hz. Stateless, so any stretch of a longer sound can be made alone.

    margin: samples before and after a stretch, at `source_rate`, that its edges depend on.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        if source_rate <= 0 or target_rate <= 0:
            raise ValueError(f"rates must be positive, got {source_rate} Hz to {target_rate} Hz")
        divisor = math.gcd(source_rate, target_rate)
        self._source, self._target = source_rate // divisor, target_rate // divisor
        # A cut-off in cycles per sample of the source, doubled: 1 would be its half rate.
        self._band = min(1.0, self._target / self._source) * _ROLL_OFF
        self._unchanged = self._source == self._target
        self.margin = 0 if self._unchanged else math.ceil(_ZERO_CROSSINGS / self._band) + 1
        self._kernels = [self._kernel(phase) for phase in range(0 if self._unchanged else self._target)]

    def whole(self, samples: Samples) -> Samples:
        """(C, N) -> (C, ceil(N * target / source)), with silence before and after."""
        count = -(-samples.shape[1] * self._target // self._source)
        behind = self.extent(count) - self.margin - samples.shape[1]
        padded = np.pad(samples, ((0, 0), (self.margin, max(0, behind))))
        return self.stretch(padded, count)

    def extent(self, count: int) -> int:
        """Samples of the source that `count` results hang on, with the margins."""
        return (count - 1) * self._source // self._target + 1 + 2 * self.margin

    def stretch(self, samples: Samples, count: int) -> Samples:
        """`count` results, the first at the time of `samples[:, margin]`. (C, N) -> (C, count), where N is at
        least `extent(count)`. Raises ValueError when it is less."""
        wanted = self.extent(count)
        if samples.shape[1] < wanted:
            raise ValueError(f"{count} results need {wanted} samples, got {samples.shape[1]}")
        if self._unchanged:
            return samples[:, :count].copy()
        result = np.empty((samples.shape[0], count), np.float32)
        for phase, kernel in enumerate(self._kernels[:count]):
            first = phase * self._source // self._target
            results = len(range(phase, count, self._target))
            windows = np.lib.stride_tricks.sliding_window_view(samples, len(kernel), axis=1)
            result[:, phase :: self._target] = windows[:, first :: self._source][:, :results] @ kernel
        return result

    def _kernel(self, phase: int) -> npt.NDArray[np.float32]:
        """Weights of the samples around result `phase`, which lies between samples `first` and `first + 1`."""
        fraction = (phase * self._source % self._target) / self._target
        distance = (np.arange(-self.margin, self.margin + 1) - fraction) * self._band
        window = np.cos(distance * np.pi / (2 * _ZERO_CROSSINGS)) ** 2
        kernel = np.where(np.abs(distance) < _ZERO_CROSSINGS, np.sinc(distance) * window * self._band, 0.0)
        return cast("npt.NDArray[np.float32]", kernel.astype(np.float32))


TO_MODEL = HannSincResampler(OUTPUT_RATE, MODEL_RATE)
"""Three to one."""


def to_model_rate(samples: Samples) -> Samples:
    """A whole sound, (C, N) at 48 kHz -> (C, ceil(N / 3)) at 16 kHz: what the audio encoder takes."""
    return TO_MODEL.whole(samples)
