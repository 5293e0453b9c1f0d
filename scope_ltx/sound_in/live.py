"""A live input as a track: what a host pushes now is what the next chunks play.

A small jitter buffer. Where the sender sent nothing there is silence. When a chunk needs more than has arrived,
silence fills the rest and the sound that was missing plays later, whole; so the delay grows once and then holds.
It never grows past the buffer: then the oldest sound is left out.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scope_ltx.sound_in.lengths import OUTPUT_RATE, model_samples_for
from scope_ltx.sound_in.resample import TO_MODEL, Samples
from scope_ltx.sound_in.track import Stretch, hear


@dataclass(frozen=True)
class LiveCounts:
    """What a live input went through, in samples at 48 kHz.

    waiting: arrived and not played yet. late: arrived after their turn, and left out. skipped: left out because
    the buffer was full. silent: played as silence because nothing had arrived.
    """

    waiting: int
    late: int
    skipped: int
    silent: int


class LiveTrack:
    """Thread-safe: any thread pushes, the generation thread peeks and commits.

    capacity_s: how far the sound may lag behind the sender, and what memory it takes (0.8 MB a second). It must
    hold a chunk: 20 s is four at the default size.
    """

    def __init__(self, capacity_s: float = 20.0) -> None:
        capacity = round(capacity_s * OUTPUT_RATE)
        if capacity < OUTPUT_RATE // 10:
            raise ValueError(f"a live input must hold at least 0.1 s, got {capacity_s:g} s")
        self._lock = threading.Lock()
        self._ring = np.zeros((2, capacity), np.float32)
        self._capacity = capacity
        self._played = np.zeros((2, 0), np.float32)
        self._clock: int | None = None
        """The sender's sample clock at our sample 0: its timestamps less this are our places."""
        self._end = self._cursor = self._committed = 0
        self._late = self._skipped = self._silent = 0

    def push(self, samples: Samples, timestamp: int | None = None) -> None:
        """(1 or 2, N) float32 at 48 kHz, of any length. `timestamp` is the sender's clock at the first sample, in
        samples; None puts them right after the last ones.

        A timestamp further from the last than the buffer is long is a new clock: its sound follows the last.
        Raises ValueError for another shape or type, and for values that are no numbers.
        """
        if samples.ndim != 2 or samples.shape[0] not in (1, 2) or samples.dtype != np.float32:
            raise ValueError(
                f"live sound must be float32 (1 or 2, N) at {OUTPUT_RATE} Hz, got {samples.dtype} {samples.shape}"
            )
        if not np.isfinite(samples).all():
            raise ValueError("live sound must be finite: it holds NaN or infinity")
        with self._lock:
            place = self._end if timestamp is None else self._place(timestamp)
            self._write(place, np.clip(samples, -1.0, 1.0))

    def ready(self, samples: int, audio_tokens: int, overlap: int = 0) -> bool:
        """Whether all that a chunk hears has arrived, so that it would have no silence of ours."""
        reach = TO_MODEL.extent(model_samples_for(audio_tokens)) - TO_MODEL.margin - overlap
        with self._lock:
            return self._end - self._cursor >= max(samples, reach)

    def peek(self, samples: int, audio_tokens: int, overlap: int = 0) -> Stretch:
        """As `Track.peek`; it never ends. What was played before is remembered for an overlap. `stop` lies before
        `start + samples` when sound is missing at the end.

        Raises ValueError for a chunk longer than the buffer.
        """
        if samples > self._capacity:
            raise ValueError(
                f"a chunk of {samples / OUTPUT_RATE:.2f} s does not fit a live input that holds "
                f"{self._capacity / OUTPUT_RATE:.2f} s: give it more"
            )
        with self._lock:
            start = self._cursor
            output, model = hear(self._sound, start, samples, audio_tokens, overlap)
            arrived = min(samples, self._end - start)
        return Stretch(start, start + arrived, output, model, sounding=arrived)

    def commit(self, stretch: Stretch) -> None:
        """Raises ValueError for a stretch from before the last one that was committed."""
        with self._lock:
            if stretch.start < self._committed:
                raise ValueError(f"the input is at sample {self._cursor}, the stretch starts at {stretch.start}")
            # The buffer may have overtaken the stretch since.
            self._cursor = max(self._cursor, stretch.stop)
            self._committed = stretch.stop
            self._played = np.concatenate([self._played, stretch.output], axis=1)[:, -self._capacity :]
            self._silent += stretch.output.shape[1] - stretch.sounding

    def take_back(self, stretch: Stretch) -> None:
        """It is gone, as what a camera saw meanwhile is."""

    def catch_up(self, keep: int) -> None:
        """Let go of all that waits but the newest `keep` samples; it counts as skipped. For sound that belongs to
        a picture which is never older than its chunk."""
        with self._lock:
            cursor = max(self._cursor, self._end - keep)
            self._skipped += cursor - self._cursor
            self._cursor = cursor

    def close(self) -> None:
        """Let go of everything that waits."""
        with self._lock:
            self._cursor = self._end

    @property
    def counts(self) -> LiveCounts:
        with self._lock:
            return LiveCounts(self._end - self._cursor, self._late, self._skipped, self._silent)

    def _place(self, timestamp: int) -> int:
        if self._clock is None or abs(timestamp - self._clock - self._end) > self._capacity:
            self._clock = timestamp - self._end
        return timestamp - self._clock

    @property
    def _begin(self) -> int:
        """The oldest place that the ring still holds."""
        return max(0, self._end - self._capacity)

    def _write(self, place: int, samples: Samples) -> None:
        """What lies before the cursor is late. Places that nothing was written to are silence."""
        stop = place + samples.shape[1]
        self._late += min(stop, max(place, self._cursor)) - place
        if stop <= self._cursor:
            return
        behind, self._end = self._end, max(self._end, stop)
        if self._begin > self._cursor:
            self._skipped += self._begin - self._cursor
            self._cursor = self._begin
        first = max(place, self._cursor)
        self._ring[:, self._slots(max(behind, self._begin), first)] = 0.0
        self._ring[:, self._slots(first, stop)] = samples[:, first - place :]

    def _sound(self, start: int, count: int) -> Samples:
        """What was played, silence of ours included, up to the cursor, and from there what has arrived."""
        result = np.zeros((2, count), np.float32)
        before = self._cursor - start
        old = self._played[:, max(0, self._played.shape[1] - before) :]
        result[:, before - old.shape[1] : before] = old
        stop = min(start + count, self._end)
        result[:, before : stop - start] = self._ring[:, self._slots(self._cursor, stop)]
        return result

    def _slots(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        return np.arange(first, stop, dtype=np.int64) % self._capacity
