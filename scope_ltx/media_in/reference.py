"""Reference frames for a chunk: the protocol of every source, and a still as one."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from scope_ltx.media_in.fit import FitMode, fit
from scope_ltx.media_in.frame_times import FrameTimes

Frames: TypeAlias = npt.NDArray[np.uint8]
"""uint8 RGB (F, H, W, 3)."""
AtEnd: TypeAlias = Literal["loop", "hold"]
"""After a source's last frame: start again from its first, or keep showing the last."""


class ReferenceSource(Protocol):
    """Where a chunk's reference frames come from. Used by one thread at a time; `close` when done."""

    def frames(self, times: FrameTimes, height: int, width: int, mode: FitMode) -> Frames:
        """The source's frames at `times`, fitted: uint8 RGB (times.count, height, width, 3), the caller's own.

        Asking again for the same times gives the same frames; a live source gives its newest instead.
        Raises MediaInputError.
        """

    def close(self) -> None:
        """Let go of files and frames."""


class Clip(ReferenceSource, Protocol):
    """A source with a beginning, which a path names."""

    def end_with(self, at_end: AtEnd, at_s: Fraction) -> Fraction:
        """From now on that follows the last frame. Returns what `at_s` is called then: `at_end.continued`."""


def checked_at_end(at_end: AtEnd) -> AtEnd:
    """Raises ValueError for what is neither loop nor hold."""
    if at_end not in {"loop", "hold"}:
        raise ValueError(f"at_end is loop or hold, got {at_end!r}")
    return at_end


class StillReference:
    """A reference sheet: one picture as a clip that does not move."""

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        self._image = image

    def frames(self, times: FrameTimes, height: int, width: int, mode: FitMode) -> Frames:
        still = fit(self._image, height, width, mode)
        return np.repeat(still[None], times.count, axis=0)

    def end_with(self, at_end: AtEnd, at_s: Fraction) -> Fraction:
        return at_s

    def close(self) -> None:
        """Nothing is open."""
