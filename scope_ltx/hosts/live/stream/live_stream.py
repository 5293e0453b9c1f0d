"""What the live host plays: loads the model, makes chunks and publishes them, and knows how it is going."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

from scope_ltx.config import LTX2Config
from scope_ltx.errors import GenerationCancelled
from scope_ltx.hosts.live.stream.explain import explained
from scope_ltx.hosts.live.stream.loading import LoadingGenerator, ModelLoadError
from scope_ltx.hosts.live.stream.made_chunk import ChunkObserver, MadeChunk
from scope_ltx.request import Generator
from scope_ltx.session import Session
from scope_ltx.sound_in.track import TrackEnded
from scope_streaming.clock import Clock
from scope_streaming.media.broadcast import Broadcaster
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.loop import ChunkLoop
from scope_streaming.media.pacing import LiveMargin, live_wait
from scope_streaming.media.segment import Segment

logger = logging.getLogger(__name__)

StreamState = Literal["loading", "live", "error"]
STOP_TIMEOUT_S = 1.2
"""A chunk gives up at its next step. What takes longer is left to the end of the process (daemon thread), which is
to come within 2 s of SIGTERM: last answers take .3 s of them, and a busy machine some tenths."""


class LiveStream:
    """Owns the session, the generation thread, the encoder thread and the broadcast.

    `open` and `close` belong to one event loop, and so does everything but `session`.
    """

    def __init__(
        self,
        start: Callable[[], Generator],
        config: LTX2Config,
        prompt: str,
        clock: Clock,
        nonce: str,
        observers: Sequence[ChunkObserver] = (),
    ) -> None:
        self._observers = tuple(observers)
        self._generator = LoadingGenerator(start)
        self.session = Session(self._generator, config, prompt, nonce, live_input=True)
        self._clock = clock
        self._live_margin = LiveMargin()
        self._handoff: Handoff[Segment] = Handoff()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="media-encoder")
        self.broadcaster = Broadcaster(
            self._handoff,
            clock,
            self._executor,
            self._on_air,
            resting=lambda: self._loop.report.idle is not None,
        )
        self._loop = ChunkLoop(
            self._begin_segment,
            self._handoff,
            clock,
            lambda: self.session.config.realtime_pacing_slack,
            name="generation",
            fatal=(ModelLoadError,),
            abandoned=(GenerationCancelled,),
            idle=(TrackEnded,),
            describe=explained,
            early=self._early_s,
        )
        self._playing: asyncio.Task[None] | None = None
        self._opened_s = clock.now()
        self._failure: str | None = None
        self._asked_prompt = self.session.prompt
        self._asked_s: float | None = None

    @property
    def state(self) -> StreamState:
        """A failed chunk is an error only when nothing is left to play: the next try may come in time."""
        if self._failure is not None or (self._loop.report.failures and self.buffer_s == 0):
            return "error"
        return "live" if self.broadcaster.playing else "loading"

    @property
    def last_error(self) -> str | None:
        return self._failure or self._loop.report.last_error

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided for the user about the newest chunk, and that no other comes after a song's end."""
        idle = self._loop.report.idle
        if idle is None:
            return self.session.last_notes
        rest = f"{idle}: the picture stands until audio_input or audio_at_end is another"
        return (*self.session.last_notes, rest)

    @property
    def buffer_s(self) -> float:
        """Seconds that can be played from what is made: on its way to viewers, and waiting in the hand-off."""
        return self.broadcaster.buffer_s + len(self._handoff) * self._loop.report.last_segment_s

    @property
    def uptime_s(self) -> float:
        return self._clock.now() - self._opened_s

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of media per second of work in the newest chunk, loading not counted."""
        stats, report = self.session.last_stats, self._loop.report
        if stats is None or not report.segments or stats.busy_s <= 0:
            return None
        return report.last_segment_s / stats.busy_s

    def retry(self) -> None:
        """Parameters or prompts have changed: what failed is tried again now."""
        if (prompt := self.session.prompt) != self._asked_prompt:
            self._asked_prompt, self._asked_s = prompt, self._clock.now()
        self._loop.retry()

    def open(self) -> None:
        self._playing = asyncio.create_task(self._play(), name="broadcast")
        self._loop.start()

    async def close(self) -> None:
        """Stop within about two seconds. A generation thread that does not answer is told of and left."""
        self._loop.request_stop()
        self.session.close()
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)
        if await asyncio.to_thread(self._loop.stop, STOP_TIMEOUT_S):
            await asyncio.to_thread(self._generator.close)
            self.session.close_sources()
        else:
            logger.warning("the generation thread is still busy after %.1f s", STOP_TIMEOUT_S)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _early_s(self, work_s: float) -> float:
        """On the generation thread. Live pictures are old as soon as they wait; all else may be made ahead."""
        margin_s = self._live_margin.seconds(self.broadcaster.stall_s, self._clock.now())
        return live_wait(self.buffer_s, work_s, margin_s) if self.session.live else 0.0

    def _begin_segment(self) -> Future[Segment]:
        try:
            segment = self.session.begin_segment()
        except Exception as error:
            self._tell_failed(error)
            raise
        segment.add_done_callback(self._finished)
        return segment

    def _finished(self, finished: Future[Segment]) -> None:
        error = finished.exception()
        if error is not None:
            self._tell_failed(error)
            return
        segment, stats = finished.result(), self.session.last_stats
        assert stats is not None
        prompt = self.session.prompt_of(segment.index) or ""
        made = MadeChunk(segment.index, segment.times.seconds, stats, prompt, self.session.last_notes)
        for observer in self._observers:
            observer.made(made)

    def _tell_failed(self, error: BaseException) -> None:
        if isinstance(error, GenerationCancelled | TrackEnded):
            return
        for observer in self._observers:
            observer.failed(error)

    def _on_air(self, index: int) -> None:
        if self._asked_s is None or self.session.prompt_of(index) != self._asked_prompt:
            return
        seconds, self._asked_s = self._clock.now() - self._asked_s, None
        for observer in self._observers:
            observer.prompt_shown(seconds)

    async def _play(self) -> None:
        try:
            await self.broadcaster.run()
        except ModelLoadError as error:
            self._failure = str(error)
            logger.error("the model could not be loaded: %s", error)
        except Exception as error:
            self._failure = str(error) or type(error).__name__
            self._loop.request_stop()
            logger.exception("the broadcast has ended")
