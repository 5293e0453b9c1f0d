"""A segment cut into slices, and when each is due. Pure: wall seconds come in, nothing waits.

The host plays what it is given: pictures by their timestamps, sound without any, one after the other on the wall
clock, silence where there is none. Both are followed here on one axis, ticks since the first slice was handed
out, so that it is known how long either will last; every slice's sound is then cut to fit its pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND

SLICE_FRAMES = 8
LEAD_S = 0.5
"""How far ahead of the wall clock slices are handed out: what a paused host still shows, what a stall may take."""
HOST_QUEUE_FRAMES = 30
"""The host drops frames beyond that. Two are left free, for the one on show and the one that is being sent."""
PAUSE_S = 0.5
"""Calls that stay away for so long were paused by a person: the host plays no sound then. Shorter gaps are stalls
of a busy machine, in which the sound goes on."""


@dataclass(frozen=True)
class Slice:
    """frames: uint8 (T, H, W, 3), contiguous; samples: float32 (2, N); offsets: ticks of each frame after the
    first; ticks: how long it lasts."""

    frames: npt.NDArray[np.uint8]
    samples: npt.NDArray[np.float32]
    offsets: tuple[int, ...]
    ticks: int

    @property
    def frame_ticks(self) -> int:
        """How long one frame lasts."""
        return self.ticks // len(self.offsets)


@dataclass(frozen=True)
class Placed:
    """Where a slice goes: its frames' ticks, and how many samples of its sound are left out at the start."""

    frame_ticks: tuple[int, ...]
    skipped_samples: int


def slices_of(segment: Segment) -> Iterator[Slice]:
    """As few as can be of at most SLICE_FRAMES frames, of equal length as far as possible."""
    times = segment.times
    count = len(times.frame_ticks)
    parts = -(-count // SLICE_FRAMES)
    bounds = [count * part // parts for part in range(parts + 1)]
    ticks = [*times.frame_ticks, times.end]
    per_sample = TICKS_PER_SECOND // times.sample_rate
    samples = [round((tick - times.start) / per_sample) for tick in ticks]
    sound = segment.samples if segment.samples.shape[0] == 2 else np.repeat(segment.samples[:1], 2, axis=0)
    for first, end in pairwise(bounds):
        yield Slice(
            np.ascontiguousarray(segment.frames[first:end]),
            sound[:, samples[first] : samples[end]],
            tuple(tick - ticks[first] for tick in ticks[first:end]),
            ticks[end] - ticks[first],
        )


class Playout:
    """What the host still has to play. Of one host session; one thread at a time."""

    def __init__(self, sample_rate: int) -> None:
        self._per_sample = TICKS_PER_SECOND // sample_rate
        self._anchor_s: float | None = None
        self._seen_s = 0.0
        self._video_end = 0
        self._sound_end = 0
        self._frame_ticks = 0
        self._underrun = 0
        self._flushed = False

    @property
    def started(self) -> bool:
        return self._anchor_s is not None

    @property
    def underrun_s(self) -> float:
        """How long the pictures have stood still for want of frames, pauses included."""
        return self._underrun / TICKS_PER_SECOND

    def seen(self, now_s: float) -> None:
        """The host has called. If that took so long that it was paused, sound that it had has waited meanwhile."""
        gap_s = now_s - self._seen_s
        if self._anchor_s is not None and gap_s >= PAUSE_S:
            waiting = self._sound_end > self._ticks(self._seen_s)
            self._sound_end += round(gap_s * TICKS_PER_SECOND) if waiting else 0
        self._seen_s = now_s

    def flushed(self) -> None:
        """The host has thrown away the pictures that it had not sent yet, but not their sound.

        The last one stands still while that sounds, and the media clock runs on. What comes next is handed out
        when it is due, no earlier: after a jump of the timestamps the host shows a picture at once.
        """
        self._flushed = self.started

    def due(self, now_s: float) -> bool:
        """The next slice should be handed out now, if there is one."""
        if self._anchor_s is None:
            return True
        room = (HOST_QUEUE_FRAMES - SLICE_FRAMES - 2) * self._frame_ticks
        lead = 0 if self._flushed else min(LEAD_S * TICKS_PER_SECOND, room)
        return self._video_end - self._ticks(now_s) <= lead

    def place(self, piece: Slice, now_s: float) -> Placed:
        """It is handed out now. Media that came too late move all that follow: the same for both."""
        if self._anchor_s is None:
            self._anchor_s = self._seen_s = now_s
        position = self._ticks(now_s)
        if position > self._video_end:
            self._underrun += position - self._video_end
        start = max(self._video_end, position)
        self._sound_end = max(self._sound_end, position)
        count = piece.samples.shape[1]
        skipped = min(count, max(0, (self._sound_end - start) // self._per_sample))
        self._video_end = start + piece.ticks
        self._sound_end += (count - skipped) * self._per_sample
        self._frame_ticks = piece.frame_ticks
        self._flushed = False
        return Placed(tuple(start + offset for offset in piece.offsets), skipped)

    def _ticks(self, now_s: float) -> int:
        assert self._anchor_s is not None
        return int((now_s - self._anchor_s) * TICKS_PER_SECOND)
