"""The generation thread of one host session: chunks are made here, never inside the host's call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from scope_ltx.config import LTX2Config
from scope_ltx.errors import GenerationCancelled
from scope_ltx.prompt_mix import Mix
from scope_ltx.request import Generator
from scope_ltx.session import Session
from scope_ltx.sound_in.track import TrackEnded
from scope_streaming.clock import Clock
from scope_streaming.media.handoff import Handoff, HandoffClosedError
from scope_streaming.media.loop import ChunkLoop, LoopReport
from scope_streaming.media.segment import Segment

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """A thread that calls its step until that returns False, and then its end."""

    def start(self) -> None: ...

    def is_alive(self) -> bool: ...

    def join(self, timeout: float | None = None) -> None: ...


class Work(Protocol):
    """What it is given to do."""

    def step(self) -> bool: ...

    def end(self) -> None: ...


StartWorker = Callable[[Work], Worker]


def worker_thread(work: Work) -> Worker:
    """A real one. A daemon: a process can end while a library does not answer."""

    def run() -> None:
        try:
            while work.step():
                pass
        except BaseException:
            logger.exception("the generation thread has ended")
        finally:
            work.end()

    return threading.Thread(target=run, name="scope-ltx-generation", daemon=True)


class Generation:
    """Makes one segment ahead, from `start` to `stop`. Holds the generator until its thread has ended.

    A chunk that fails is tried again after a growing wait; `report` tells of it. All but the thread's own part
    belongs to the host's calling thread.
    """

    def __init__(
        self,
        generator: Generator,
        config: LTX2Config,
        mix: Mix,
        nonce: str,
        clock: Clock,
        workers: StartWorker,
        release: Callable[[], None],
    ) -> None:
        """`release` is called once, when nothing of this is being made any more."""
        self.session = session = Session(generator, config, mix[0].text, nonce, clock, live_input=True)
        session.set_prompts(mix)
        self._handoff: Handoff[Segment] = Handoff()
        self._release = release
        self._loop = ChunkLoop(
            session.begin_segment,
            self._handoff,
            clock,
            lambda: session.config.realtime_pacing_slack,
            abandoned=(GenerationCancelled,),
            idle=(TrackEnded,),
        )
        self._workers = workers
        self._worker: Worker | None = None
        self._stopped = False

    @property
    def report(self) -> LoopReport:
        return self._loop.report

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def waiting(self) -> int:
        """Segments that are ready."""
        return len(self._handoff)

    @property
    def alive(self) -> bool:
        return self._worker is not None and self._worker.is_alive()

    @property
    def dead(self) -> bool:
        """Its thread has ended unasked. The next session begins anew, and so does this one when it is reset."""
        return self._worker is not None and not self._stopped and not self._worker.is_alive()

    def start(self) -> None:
        """Once more does nothing."""
        if self._worker is None and not self._stopped:
            worker = self._workers(self)
            worker.start()  # where no thread can be started, nothing is there to wait for
            self._worker = worker

    def retry(self) -> None:
        """Something has changed: what failed is tried again now."""
        self._loop.retry()

    def poll(self) -> Segment | None:
        """The next segment, if it is ready."""
        try:
            return self._handoff.poll()
        except HandoffClosedError:
            return None

    def stop(self) -> None:
        """Abandon the chunk that is being made, between two of the model's blocks. Does not wait."""
        self._stopped = True
        self._loop.request_stop()
        self.session.close()
        if self._worker is None:
            self.end()

    def join(self, timeout_s: float) -> bool:
        """Whether the thread has ended within that time."""
        if self._worker is not None and self._worker.is_alive():
            self._worker.join(timeout_s)
        return not self.alive

    def step(self) -> bool:
        """For the generation thread: make one chunk. False when it is over."""
        return self._loop.step()

    def end(self) -> None:
        """For the generation thread, when it is over."""
        self.session.close_sources()
        self._release()
