"""The generation thread: makes one segment after another for as long as somebody takes them."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from scope_streaming.clock import Clock
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.pacing import may_start, should_overlap
from scope_streaming.media.segment import Segment

logger = logging.getLogger(__name__)

BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits after the first, second, ... failure in a row; the last one repeats."""
REMEMBERED_TIMES = 4
PACE_RESOLUTION_S = 0.001
"""Shorter waits are not worth a system call, and rounding can ask for one of 1e-17 s for ever."""


@dataclass(frozen=True)
class LoopReport:
    """`failures` counts those in a row and is 0 again after a success, which also clears `last_error`. `idle` says
    why there is nothing to make, until there is."""

    segments: int
    media_s: float
    last_segment_s: float
    failures: int
    last_error: str | None
    idle: str | None = None


def _never_early(work_s: float) -> float:
    return 0.0


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


class ChunkLoop:
    """Owns one named thread that calls `source`, the only code that touches the device.

    `source` returns when the next segment may be begun; the segment itself may still be finished by another
    thread. The next one is begun meanwhile only where `should_overlap` says that it pays.

    A failing source is tried again after a growing wait, with its error in `report`, so that a stream
    survives a bad parameter. An exception of a type in `fatal` ends the loop and is carried to the consumer
    through the hand-off, and so is anything that is not an `Exception`. A type in `abandoned` means that a
    chunk was given up on request: no error, the next one starts at once. One in `idle`, that there is nothing to
    make until something changes.
    """

    def __init__(
        self,
        source: Callable[[], Future[Segment]],
        handoff: Handoff[Segment],
        clock: Clock,
        slack: Callable[[], float],
        *,
        name: str = "chunk-loop",
        fatal: tuple[type[Exception], ...] = (),
        abandoned: tuple[type[Exception], ...] = (),
        idle: tuple[type[Exception], ...] = (),
        describe: Callable[[BaseException], str] = _said,
        early: Callable[[float], float] = _never_early,
    ) -> None:
        """`describe` makes the sentence of a failure for the report. `early` tells by how many seconds a segment
        would be begun too early now, from the seconds that the slowest of the last few took until it was there.
        """
        self._source = source
        self._handoff = handoff
        self._clock = clock
        self._slack = slack
        self._fatal = fatal
        self._abandoned = abandoned
        self._idle = idle
        self._describe = describe
        self._early = early
        self._took_s: deque[float] = deque(maxlen=REMEMBERED_TIMES)
        self._name = name
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._anchor_s: float | None = None
        self._work_s = 0.0
        self._delivered: threading.Event | None = None  # of the segment begun last; None when it was waited for
        self._must_back_off = False
        self._reporting = threading.Lock()
        self._report = LoopReport(0, 0.0, 0.0, 0, None)

    @property
    def report(self) -> LoopReport:
        return self._report

    def start(self) -> None:
        # A daemon, so that a process can end while a library does not answer; `stop` is the orderly way.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def retry(self) -> None:
        """End a wait now: parameters have changed, so what failed may work, and the slack may be another."""
        self._wake.set()

    def request_stop(self) -> None:
        """Make no further chunk and wake every wait. Does not wait for a chunk that is being made."""
        self._stopping.set()
        self._wake.set()
        self._handoff.close()

    def stop(self, timeout_s: float) -> bool:
        """`request_stop`, then join. Returns whether the thread has ended within `timeout_s`."""
        self.request_stop()
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def step(self) -> bool:
        """Wait for a free place and for the pace, then make one segment. False when the loop is over."""
        if not self._ready():
            return False
        started_s = self._clock.now()
        try:
            segment = self._source()
        except self._abandoned:
            self._handoff.release()
        except self._fatal as error:
            self._end(error)
            return False
        except self._idle as reason:
            self._handoff.release()
            self._rest(reason)
        except Exception as error:
            self._lose(error)
        else:
            self._work_s = self._clock.now() - started_s
            self._delivered = threading.Event()
            segment.add_done_callback(functools.partial(self._deliver, started_s, self._delivered))
        return not self._stopping.is_set()

    def _ready(self) -> bool:
        """Wait until a segment may be begun, with a place for it reserved. False when stopped meanwhile."""
        overlap = self._slack() == 0 and should_overlap(self._work_s, self._report.last_segment_s)
        if self._delivered is not None and not overlap:
            self._delivered.wait()
            self._delivered = None
        if not self._handoff.reserve(beyond=int(overlap)):
            return False
        # Only now: the segment that was waited for may have failed.
        if self._must_back_off:
            self._must_back_off = False
            self._back_off()
        if self._wait_for_pace():
            return True
        self._handoff.release()
        return False

    def _deliver(self, started_s: float, delivered: threading.Event, finished: Future[Segment]) -> None:
        """Called by whichever thread finishes the segment.

        `delivered` is set at the end. The future itself would not do: it wakes who waits for it before it calls
        this, so the loop could go on without knowing that the segment has failed.
        """
        try:
            self._hand_over(started_s, finished)
        finally:
            delivered.set()

    def _hand_over(self, started_s: float, finished: Future[Segment]) -> None:
        error = finished.exception()
        if error is not None:
            self._lose(error)
            return
        segment = finished.result()
        self._took_s.append(self._clock.now() - started_s)
        with self._reporting:
            done, seconds = self._report, segment.times.seconds
            self._report = LoopReport(done.segments + 1, done.media_s + seconds, seconds, 0, None)
        self._handoff.put(segment)

    def _lose(self, error: BaseException) -> None:
        """A segment has failed: tell it, and wait before the next."""
        if not self._stopping.is_set():
            before = self._report.last_error
            self._fail(error)
            # The same failure is told once: the chunk is tried every few seconds, for as long as it takes.
            level = logging.DEBUG if self._report.last_error == before else logging.ERROR
            logger.log(level, "chunk %d failed", self._report.segments, exc_info=error)
            self._must_back_off = True
        self._handoff.release()  # last: a place is what the loop may be waiting for

    def _run(self) -> None:
        try:
            while self.step():
                pass
        except BaseException as error:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        self._fail(error)
        self._handoff.fail(error)

    def _wait_for_pace(self) -> bool:
        """False when stopped meanwhile. A stall is not saved up: time that playback has lost buys no lead."""
        while not self._stopping.is_set():
            now = self._clock.now()
            media_s = self._report.media_s
            if self._anchor_s is None or now - self._anchor_s > media_s:
                self._anchor_s = now - media_s
            too_early_s = self._early(max(tuple(self._took_s), default=0.0))
            wait_s = max(too_early_s, may_start(media_s, now - self._anchor_s, self._slack()))
            if wait_s < PACE_RESOLUTION_S:
                return True
            self._wait(wait_s)
        return False

    def _rest(self, reason: BaseException) -> None:
        """Until `retry`, and look again from time to time. The segment that is being finished comes first: if it
        fails, there is something to make."""
        if self._delivered is not None:
            self._delivered.wait()
        if self._must_back_off:
            return
        with self._reporting:
            self._report = replace(self._report, failures=0, last_error=None, idle=self._describe(reason))
        self._wait(BACKOFF_S[-1])

    def _back_off(self) -> None:
        failures = self._report.failures
        if failures:  # else another segment has succeeded meanwhile
            self._wait(BACKOFF_S[min(failures, len(BACKOFF_S)) - 1])

    def _wait(self, seconds: float) -> None:
        self._clock.wait(self._wake, seconds)
        if not self._stopping.is_set():
            self._wake.clear()

    def _fail(self, error: BaseException) -> None:
        message = self._describe(error)
        with self._reporting:
            self._report = replace(self._report, failures=self._report.failures + 1, last_error=message, idle=None)
