"""How a video's frames are turned for display: the eight ways that a display matrix can say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import av
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Orientation:
    """Rows and columns exchanged first, if at all; then mirrored."""

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """The size to fit a stored frame to, so that the turned one is (height, width)."""
        return (width, height) if self.transposed else (height, width)

    def turn(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A stored picture (H, W, 3) as it is shown; a view."""
        turned = picture.swapaxes(0, 1) if self.transposed else picture
        if self.mirrored:
            turned = turned[:, ::-1]
        return turned[::-1] if self.upside_down else turned


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """From the frame's display matrix; upright when it has none.

    The matrix takes a stored point (p, q) to (a p + c q, b p + d q), y downwards (FFmpeg, libavutil/display.h).
    Raises ValueError for a turn that is no multiple of 90 degrees.
    """
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return Orientation()
    (a, b), (c, d) = np.frombuffer(cast("bytes", stored), np.int32).reshape(3, 3)[:2, :2].tolist()
    if a and d and not (b or c):
        return Orientation(False, mirrored=a < 0, upside_down=d < 0)
    if b and c and not (a or d):
        return Orientation(True, mirrored=c < 0, upside_down=b < 0)
    raise ValueError(f"the display matrix turns the picture by {frame.rotation} degrees, not by a multiple of 90")
