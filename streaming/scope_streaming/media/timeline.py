"""One integer cursor from which audio and video both take their times.

Ticks are 1/720000 s: the least common multiple of the 48 kHz sample clock (15 ticks) and RTP's 90 kHz video
clock (8 ticks). A frame at 24, 25, 30, 50, 60, 24000/1001 or 30000/1001 fps is a whole number of them.
Picture and sound cannot drift apart, because a segment's end is one number that both share.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fractions import Fraction

TICKS_PER_SECOND = 720_000


def exact_frame_rate(frame_rate: float) -> Fraction:
    """The rational that a decimal frame rate stands for: 23.976 -> 24000/1001, 24.0 -> 24.

    Raises ValueError when the rate is not positive and finite.
    """
    if not 0 < frame_rate < float("inf"):
        raise ValueError(f"frame_rate must be positive and finite, got {frame_rate}")
    ntsc = Fraction(round(frame_rate * 1001 / 1000) * 1000, 1001)
    if ntsc and abs(float(ntsc) - frame_rate) < 1e-3 and round(frame_rate) != frame_rate:
        return ntsc
    return Fraction(frame_rate).limit_denominator(1001)


@dataclass(frozen=True)
class SegmentTimes:
    """Where one segment lies on the timeline, in ticks. `frame_ticks[i]` is when frame i starts to show."""

    start: int
    end: int
    frame_ticks: tuple[int, ...]
    samples: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / TICKS_PER_SECOND


def segment_samples(frames: int, frame_rate: Fraction, sample_rate: int) -> int:
    """Samples per channel that last as long as `frames`, to the nearest whole sample."""
    return round(Fraction(frames * sample_rate) / frame_rate)


class Timeline:
    """Gapless cursor. Thread-safe; starts at tick 0 and only moves forward."""

    def __init__(self, sample_rate: int) -> None:
        if sample_rate <= 0 or TICKS_PER_SECOND % sample_rate:
            raise ValueError(f"sample_rate must divide {TICKS_PER_SECOND}, got {sample_rate}")
        self._sample_rate = sample_rate
        self._cursor = 0
        self._lock = threading.Lock()

    def peek(self, frames: int, frame_rate: Fraction) -> SegmentTimes:
        """Times that the next segment of `frames` frames would have; the cursor stays.

        The end is rounded to a whole sample (at most 10 µs at 48 kHz) and the next segment starts exactly
        there: no gap, no overlap. Frames are rounded to a whole tick from their own segment's start.
        """
        if frames < 1:
            raise ValueError(f"a segment needs at least one frame, got {frames}")
        samples = segment_samples(frames, frame_rate, self._sample_rate)
        if samples < 1:
            raise ValueError(f"{frames} frames at {frame_rate} fps are shorter than one sample")
        with self._lock:
            start = self._cursor
        end = start + samples * (TICKS_PER_SECOND // self._sample_rate)
        ticks = tuple(start + round(i * TICKS_PER_SECOND / frame_rate) for i in range(frames))
        return SegmentTimes(start, end, ticks, samples, self._sample_rate)

    def commit(self, times: SegmentTimes) -> None:
        """Move the cursor to the end of `times`. Raises ValueError when they do not start at the cursor."""
        with self._lock:
            if times.start != self._cursor:
                raise ValueError(f"the cursor is at {self._cursor}, the times start at {times.start}")
            self._cursor = times.end

    def advance(self, frames: int, frame_rate: Fraction) -> SegmentTimes:
        """`peek` and `commit`: the next segment's times, taken. One caller at a time."""
        times = self.peek(frames, frame_rate)
        self.commit(times)
        return times
