"""Reference frames for a chunk: the protocol of every source, and the sizes and lengths they must have."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from scope_ltx.media_in.fit import FitMode, fit
from scope_ltx.media_in.frame_times import FrameTimes

Frames: TypeAlias = npt.NDArray[np.uint8]
"""uint8 RGB (F, H, W, 3)."""
AtEnd: TypeAlias = Literal["loop", "hold"]
"""After a source's last frame: start again from its first, or keep showing the last."""

SIZE_MULTIPLE = 32
"""The video VAE halves height and width five times."""
FRAME_MULTIPLE = 8
SHEET_MIN_FRAMES = 121
"""The Ingredients LoRA was trained on references of at least 121 frames."""


class ReferenceSource(Protocol):
    """Where a chunk's reference frames come from. Used by one thread at a time; `close` when done."""

    def frames(self, times: FrameTimes, height: int, width: int, mode: FitMode) -> Frames:
        """The source's frames at `times`, fitted: uint8 RGB (times.count, height, width, 3), the caller's own.

        Asking again for the same times gives the same frames; a live source gives its newest instead.
        Raises MediaInputError.
        """

    def close(self) -> None:
        """Let go of files and frames."""


class StillReference:
    """A reference sheet: one picture as a clip that does not move."""

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        self._image = image

    def frames(self, times: FrameTimes, height: int, width: int, mode: FitMode) -> Frames:
        still = fit(self._image, height, width, mode)
        return np.repeat(still[None], times.count, axis=0)

    def close(self) -> None:
        """Nothing is open."""


def reference_size(height: int, width: int, downscale: int) -> tuple[int, int]:
    """Height and width of the reference for an output of `height` x `width`, by the LoRA's downscale factor.

    Raises ValueError with the nearest sizes that fit: both must be multiples of 32 * downscale.
    """
    if downscale < 1:
        raise ValueError(f"a reference downscale factor is 1 or more, got {downscale}")
    step = SIZE_MULTIPLE * downscale
    wrong = [
        f"{name} {size} -> {' or '.join(str(near) for near in _nearest(size, step))}"
        for name, size in (("height", height), ("width", width))
        if size < 1 or size % step
    ]
    if wrong:
        raise ValueError(
            f"a reference at 1/{downscale} of the output needs height and width in multiples of {step}, "
            f"got {height} x {width}: {', '.join(wrong)}"
        )
    return height // downscale, width // downscale


def _nearest(size: int, step: int) -> tuple[int, ...]:
    lower = size // step * step
    return (lower, lower + step) if lower > 0 else (step,)


def check_sheet_frames(num_frames: int) -> None:
    """Raises ValueError when a chunk is too short for a reference sheet."""
    if num_frames < SHEET_MIN_FRAMES:
        raise ValueError(
            f"a reference sheet needs at least {SHEET_MIN_FRAMES} frames, got {num_frames}: "
            f"set num_frames to {SHEET_MIN_FRAMES} (or more, {FRAME_MULTIPLE}K + 1)"
        )
