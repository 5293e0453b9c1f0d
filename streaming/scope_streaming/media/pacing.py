"""When things may happen: when a chunk may start, and when a moment of media is due.

Pure arithmetic. Nothing here sleeps or reads a clock: seconds come in, seconds or a finding go out.
"""

from __future__ import annotations

from dataclasses import dataclass

from scope_streaming.media.timeline import TICKS_PER_SECOND


def may_start(media_s: float, elapsed_s: float, slack: float) -> float:
    """Seconds to wait before the next chunk starts, so that `media_s <= elapsed_s * (1 + slack)` then holds.

    `media_s` of media were made in `elapsed_s` of wall clock. A slack of 0 means that the generator never
    waits. Raises ValueError for a negative slack.
    """
    if not slack >= 0:
        raise ValueError(f"slack must be 0 or more, got {slack}")
    if slack == 0:
        return 0.0
    return max(0.0, media_s / (1 + slack) - elapsed_s)


LIVE_MARGIN_S = 0.12
"""A live chunk is due this long after it came: three frames to encode, and a wake-up that comes late."""
LIVE_WORK_MARGIN = 1.1
"""Chunks of one size take the same time to a few percent; the worst of the last few counts."""


LIVE_EXTRA_S, LIVE_EXTRA_FOR_S = 0.5, 30.0
"""A busy machine wakes later than that: a stall widens the margin by its own length, at most by the first, for the
second."""


def live_wait(buffer_s: float, work_s: float, margin_s: float = LIVE_MARGIN_S) -> float:
    """Seconds to wait before a chunk of live input starts that takes `work_s`, with `buffer_s` left to play.

    A chunk shows what was live when it started, so one that starts early shows old pictures. It starts as late as
    it can: `margin_s` before it would be too late, and at once where the work takes longer than what is left.
    """
    return max(0.0, buffer_s - margin_s - LIVE_WORK_MARGIN * work_s)


class LiveMargin:
    """The margin for `live_wait`: wider for a while after viewers had to wait. One thread at a time."""

    def __init__(self) -> None:
        self._stalled_s: float | None = None
        self._extra_s = self._until_s = 0.0

    def seconds(self, stalled_s: float, now_s: float) -> float:
        """`stalled_s`: how long viewers had to wait since the stream began."""
        more_s = 0.0 if self._stalled_s is None else stalled_s - self._stalled_s
        self._stalled_s = stalled_s
        if more_s > 0:
            self._extra_s = min(LIVE_EXTRA_S, max(self._extra_s, more_s))
            self._until_s = now_s + LIVE_EXTRA_FOR_S
        elif now_s >= self._until_s:
            self._extra_s = 0.0
        return LIVE_MARGIN_S + self._extra_s


def should_overlap(work_s: float, media_s: float) -> bool:
    """Whether to start a chunk while the one before, of `media_s`, made in `work_s`, is still being finished.

    Within a fifth of real time every tenth of a second counts. Faster than that the buffer is full anyway, and
    starting early would only put one more chunk between a new prompt and the screen.
    """
    return work_s > 0.8 * media_s


@dataclass(frozen=True)
class Stall:
    """Viewers waited: presentation went on for `ticks` without media, starting at `at_ticks`."""

    at_ticks: int
    ticks: int

    @property
    def seconds(self) -> float:
        return self.ticks / TICKS_PER_SECOND


class PlayoutClock:
    """Ties media time to presentation time, and presentation time to the wall clock.

    Presentation time is what viewers see on the wire: continuous, in ticks, 0 at the anchor. It is media time
    plus every stall so far, so a stall moves picture and sound by the same amount and lips stay in sync.
    Deadlines are absolute: a late wake-up delays one packet, never those after it. One thread at a time.
    """

    def __init__(self) -> None:
        self._anchor_s: float | None = None
        self._shift_ticks: int | None = None
        self._stalls = 0
        self._stall_ticks = 0

    @property
    def started(self) -> bool:
        return self._anchor_s is not None

    @property
    def stalls(self) -> int:
        return self._stalls

    @property
    def stall_s(self) -> float:
        return self._stall_ticks / TICKS_PER_SECOND

    def start(self, anchor_s: float) -> None:
        """Presentation tick 0 is due at `anchor_s`. Raises RuntimeError when it has started before."""
        if self._anchor_s is not None:
            raise RuntimeError("the playout clock has started already")
        self._anchor_s = anchor_s

    def deadline_s(self, ticks: int) -> float:
        """Wall seconds at which presentation `ticks` is due."""
        return self._anchor() + ticks / TICKS_PER_SECOND

    def ticks_at(self, now_s: float) -> int:
        """Presentation ticks that are due at `now_s`; negative before the anchor."""
        return int((now_s - self._anchor()) * TICKS_PER_SECOND // 1)

    def place(self, media_ticks: int, earliest: int) -> tuple[int, Stall | None]:
        """Presentation ticks for media that start at `media_ticks` and cannot show before `earliest`.

        Media that come too late move everything after them, and the stall says by how much. The first media
        of a stream, or after a rest, set the relation and are no stall.
        """
        if self._shift_ticks is None:
            self._shift_ticks = earliest - media_ticks
        due = media_ticks + self._shift_ticks
        return max(due, earliest), self.stall(due, earliest - due)

    def rest(self) -> None:
        """Nothing more is to come for now, as is wanted: the next media, whenever they come, are no stall."""
        self._shift_ticks = None

    def stall(self, at_ticks: int, ticks: int) -> Stall | None:
        """All media from `at_ticks` on show `ticks` later. Nothing happens when that is not positive."""
        if ticks <= 0:
            return None
        if self._shift_ticks is None:
            raise RuntimeError("nothing was placed yet, so nothing can stall")
        self._shift_ticks += ticks
        self._stalls += 1
        self._stall_ticks += ticks
        return Stall(at_ticks, ticks)

    def _anchor(self) -> float:
        if self._anchor_s is None:
            raise RuntimeError("the playout clock has not started")
        return self._anchor_s
