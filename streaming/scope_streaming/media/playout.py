"""Segments in, 20 ms blocks of presentation out: the place where a late segment becomes a stall.

Presentation time never stops. While media are missing, a block has silence and no frames; when they come,
they start at the next block, so picture and sound move by the same amount and nothing is lost.
Pure: no clock, no waiting, no encoding.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scope_streaming.media.pacing import PlayoutClock, Stall
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND

SAMPLE_RATE = 48_000
"""Opus' own rate."""
BLOCK_SAMPLES = 960
"""20 ms, the packet length that WebRTC uses."""
TICKS_PER_SAMPLE = TICKS_PER_SECOND // SAMPLE_RATE
BLOCK_TICKS = BLOCK_SAMPLES * TICKS_PER_SAMPLE
FADE_SAMPLES = 240
"""5 ms: enough that sound which breaks off or sets in does not click, too short to be heard as a fade."""


@dataclass(frozen=True)
class TimedFrame:
    """A frame that is due at presentation `ticks`. `rate` is its segment's frames per second."""

    ticks: int
    pixels: npt.NDArray[np.uint8]
    rate: float


@dataclass(frozen=True)
class Block:
    """20 ms of presentation from `ticks` on. samples: float32 (2, 960). `segment` is None for silence."""

    ticks: int
    samples: npt.NDArray[np.float32]
    frames: tuple[TimedFrame, ...]
    segment: int | None


@dataclass
class _Placed:
    segment: Segment
    start: int
    next_frame: int = 0

    @property
    def end(self) -> int:
        return self.start + self.segment.times.end - self.segment.times.start


class Playout:
    """Cursor over the segments that are on their way to the viewers. One thread at a time.

    Holds only segments that still have something to show, so its memory is bounded by what the caller adds.
    """

    def __init__(self, clock: PlayoutClock) -> None:
        self._clock = clock
        self._placed: deque[_Placed] = deque()
        self._next = 0
        self._end = 0
        self._sounding = False
        self._last: tuple[npt.NDArray[np.uint8], float] | None = None

    @property
    def next_ticks(self) -> int:
        """Presentation ticks of the block that `next_block` gives next."""
        return self._next

    @property
    def end_ticks(self) -> int:
        """Presentation ticks at which the newest segment ends; 0 before the first."""
        return self._end

    @property
    def ready_ticks(self) -> int:
        """Ticks of media that wait behind `next_ticks`."""
        return max(0, self._end - self._next)

    def add(self, segment: Segment) -> Stall | None:
        """Queue `segment` behind the others. Returns the stall when it came after its time.

        Raises ValueError when its sound is not 48 kHz mono or stereo.
        """
        channels = segment.samples.shape[0]
        if segment.times.sample_rate != SAMPLE_RATE or channels not in (1, 2):
            raise ValueError(
                f"playout needs {SAMPLE_RATE} Hz mono or stereo, got {segment.times.sample_rate} Hz "
                f"with {channels} channels"
            )
        start, stall = self._clock.place(segment.times.start, max(self._next, self._end))
        self._placed.append(_Placed(segment, start))
        self._end = self._placed[-1].end
        return stall

    def next_block(self, *, force: bool, stands: bool = False) -> Block | None:
        """The next 20 ms, or None while media for it are missing. `force` fills in silence; where the last picture
        `stands` meanwhile, it comes again once a second."""
        start, end = self._next, self._next + BLOCK_TICKS
        if self._end < end and not force:
            return None
        samples = np.zeros((2, BLOCK_SAMPLES), np.float32)
        index = None
        filled = 0
        for placed in self._placed:
            if placed.start < end and placed.end > start:
                filled = self._copy_samples(placed, samples)
                index = placed.segment.index if index is None else index
        frames = tuple(frame for placed in self._placed for frame in self._due(placed, end))
        if stands and self._last is not None and start % TICKS_PER_SECOND < BLOCK_TICKS:
            frames = (TimedFrame(start, *self._last),)
        self._smooth_edges(samples, filled)
        self._next = end
        while self._placed and self._placed[0].end <= end:
            shown = self._placed.popleft().segment
            self._last = shown.frames[-1].copy(), len(shown.frames) / shown.times.seconds
        return Block(start, samples, frames, index)

    def skip(self, blocks: int) -> Stall | None:
        """Presentation jumps ahead by `blocks` without packets: this process itself was held up."""
        ticks = blocks * BLOCK_TICKS
        if not self._placed:
            self._next += ticks
            return None
        stall = self._clock.stall(self._next, ticks)
        self._next += ticks
        self._end += ticks
        for placed in self._placed:
            placed.start += ticks
        return stall

    def _copy_samples(self, placed: _Placed, samples: npt.NDArray[np.float32]) -> int:
        """Copy what `placed` has for the block at the cursor; returns where it ends in the block."""
        offset = (self._next - placed.start) // TICKS_PER_SAMPLE
        first = max(0, -offset)
        piece = placed.segment.samples[:, offset + first : offset + BLOCK_SAMPLES]
        last = first + int(piece.shape[1])
        samples[:, first:last] = piece
        return last

    def _due(self, placed: _Placed, end: int) -> list[TimedFrame]:
        times = placed.segment.times
        rate = len(times.frame_ticks) / times.seconds
        frames = []
        while placed.next_frame < len(times.frame_ticks):
            ticks = placed.start + times.frame_ticks[placed.next_frame] - times.start
            if ticks >= end:
                break
            frames.append(TimedFrame(ticks, placed.segment.frames[placed.next_frame], rate))
            placed.next_frame += 1
        return frames

    def _smooth_edges(self, samples: npt.NDArray[np.float32], filled: int) -> None:
        ramp = np.linspace(0, 1, FADE_SAMPLES, dtype=np.float32)
        if filled and not self._sounding:
            samples[:, :FADE_SAMPLES] *= ramp
        if 0 < filled < BLOCK_SAMPLES:
            length = min(FADE_SAMPLES, filled)
            samples[:, filled - length : filled] *= ramp[:length][::-1]
        self._sounding = filled == BLOCK_SAMPLES
