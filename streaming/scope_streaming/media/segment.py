"""A segment: what one generated chunk becomes for everything after generation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scope_streaming.media.timeline import SegmentTimes


@dataclass(frozen=True)
class Segment:
    """Frames and samples with their place on the timeline.

    frames: uint8 RGB, (F, H, W, 3), contiguous. samples: float32 in [-1, 1], (channels, N).
    `index` counts the segments of a stream from 0. Raises ValueError when the media do not fit the times.
    """

    index: int
    frames: npt.NDArray[np.uint8]
    samples: npt.NDArray[np.float32]
    times: SegmentTimes

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 (F, H, W, 3), got {self.frames.dtype} {self.frames.shape}")
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(
                f"samples must be float32 (channels, N), got {self.samples.dtype} {self.samples.shape}"
            )
        if len(self.frames) != len(self.times.frame_ticks) or self.samples.shape[1] != self.times.samples:
            raise ValueError(
                f"the times are for {len(self.times.frame_ticks)} frames and {self.times.samples} samples, "
                f"the media have {len(self.frames)} and {self.samples.shape[1]}"
            )
