"""What one instance in the host does between its calls: it hands out slices when they are due, and passes on what
the host wants to whoever makes the chunks. Knows nothing of the host's classes.

Every call returns within milliseconds: the host serves updates, pause and stop only between calls.
"""

from __future__ import annotations

import logging
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.scope.once import OncePinned
from scope_ltx.hosts.scope.reference import InputFrames
from scope_ltx.hosts.scope.reports import Reports
from scope_ltx.hosts.scope.slices import Placed, Playout, Slice, slices_of
from scope_ltx.hosts.scope.translate import Asked, Translator
from scope_ltx.hosts.scope.weights import Lease
from scope_ltx.hosts.scope.worker import Generation, StartWorker
from scope_ltx.prompt_mix import Mix, described
from scope_ltx.sampling.geometry import SAMPLE_RATE
from scope_streaming.clock import Clock

logger = logging.getLogger(__name__)

State = Literal["idle", "no prompt", "no input", "starting", "playing", "ended", "error", "closed"]
JOIN_S = 10.0
"""A chunk is abandoned within tens of milliseconds; merging a LoRA or a decode is not interrupted."""


@dataclass(frozen=True)
class Status:
    """last_error: why the newest chunk could not be made, until one can. notes: what was decided about it; once a
    song that is to stop has ended, that."""

    state: State
    prompt: str | None = None
    last_error: str | None = None
    failures: int = 0
    chunks: int = 0
    underrun_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HandedOut:
    """One slice, and where the host shall play it."""

    piece: Slice
    placed: Placed


class _HostSession:
    """From a new thread of the host's to the next one."""

    def __init__(self, thread: threading.Thread, loaded: LTX2Config, once: OncePinned, reports: Reports) -> None:
        # Weakly: the thread holds the host's processor, which holds the instance.
        self.thread = weakref.ref(thread)
        self.config = loaded
        self.mix: Mix | None = None
        self.once = once
        self.translator = Translator(loaded, reports.once)
        self.input = InputFrames(reports.once)
        self.playout = Playout(SAMPLE_RATE)
        self.generation: Generation | None = None
        self.slices: deque[Slice] = deque()
        self.handed_out = False
        self.waits_for_input = False


class Stream:
    """The live state of one instance. Any thread of the host's may call; the newest session's is served."""

    def __init__(
        self, lease: Lease, loaded: LTX2Config, clock: Clock, workers: StartWorker, reports: Reports
    ) -> None:
        self._lease = lease
        self._loaded = loaded
        self._clock = clock
        self._workers = workers
        self._reports = reports
        self._lock = threading.Lock()
        self._session: _HostSession | None = None
        self._over: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._ending: list[Generation] = []
        self._failure: str | None = None
        self._closed = False

    @property
    def config(self) -> LTX2Config:
        session = self._session
        return self._loaded if session is None else session.config

    @property
    def status(self) -> Status:
        session = self._session
        if self._closed or session is None:
            return Status("closed" if self._closed else "idle", last_error=self._failure)
        generation = session.generation
        if session.mix is None or generation is None:
            state: State = "no prompt" if session.mix is None else "no input"
            return Status(state, last_error=self._failure)
        report, stalled = generation.report, not session.slices
        error = report.last_error or self._failure
        playing: State = "playing" if session.handed_out else "starting"
        if report.idle is not None and stalled:
            playing = "ended"
        return Status(
            "error" if generation.dead or (report.failures and stalled) else playing,
            described(session.mix),
            error,
            report.failures,
            report.segments,
            session.playout.underrun_s,
            generation.session.last_notes if report.idle is None else (report.idle,),
        )

    def wants_input(self, kwargs: Mapping[str, object]) -> bool:
        """Whether the next call shall come with input frames: where they are looked at, and not while a slice is
        due, which may not wait for them. Called by the host before each call, and alone while it waits for frames.
        """
        with self._lock:
            session = self._session
            if session is None or session.thread() is not threading.current_thread():
                # With nothing but the mode, the host asks how large its queues shall be.
                return kwargs.keys() <= {"video"} or bool(self._loaded.loras or kwargs.get("loras"))
            now_s = self._clock.now()
            session.playout.seen(now_s)
            if session.generation is not None:
                session.input.push_due(now_s, session.generation.session.push_frame)
            return bool(session.config.loras) and not self._ready(session, now_s)

    def call(self, kwargs: Mapping[str, object]) -> HandedOut | None:
        """One call of the host's. None: nothing is due. Never raises for what the host or a client sends."""
        with self._lock:
            session = self._current_session()
            if session is None:
                return None
            now_s = self._clock.now()
            session.playout.seen(now_s)
            try:
                self._take(session, kwargs, now_s)
            except Exception as error:
                self.failed("the parameters of a call could not be taken", error)
            if not self._ready(session, now_s):
                return None
            piece = session.slices.popleft()
            session.handed_out = True
            return HandedOut(piece, session.playout.place(piece, now_s))

    def failed(self, what: str, error: Exception) -> None:
        """Kept for `status`, and logged once."""
        self._failure = f"{what}: {error}"
        self._reports.failure(what, error)

    def close(self) -> None:
        """Stop what is being made, wait for its threads, give the model back. Once more does nothing."""
        if self._closed:
            return
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            self._end_generation(session)
        if not all(generation.join(JOIN_S) for generation in self._ending):
            logger.warning("a generation thread is still busy after %.0f s: it gives the model back later", JOIN_S)
        self._ending.clear()
        self._lease.close()

    def _current_session(self) -> _HostSession | None:
        """None for a thread whose session is over: what it still wants is nobody's."""
        thread = threading.current_thread()
        if self._closed or thread in self._over:
            return None
        session = self._session
        if session is None or session.thread() is not thread:
            if session is not None:
                before = session.thread()
                if before is not None:
                    self._over.add(before)
                self._end_generation(session)
            once = OncePinned(self._lease, self._reports.once)
            session = self._session = _HostSession(thread, self._loaded, once, self._reports)
        return session

    def _take(self, session: _HostSession, kwargs: Mapping[str, object], now_s: float) -> None:
        asked = session.translator.take(kwargs, session.config)
        session.once.latch(asked.once)
        if asked.fresh and session.handed_out:
            session.handed_out = False
            session.slices.clear()
            session.playout.flushed()
            self._end_generation(session)
        if asked.changes:
            session.config = session.config.updated(**asked.changes)
        if asked.mix is not None:
            session.mix = asked.mix
        self._pass_on(session, asked)
        if asked.transition is not None:
            session.mix = asked.transition.target
        session.waits_for_input = kwargs.get("input_mode") == "video" or "video" in kwargs
        frames = kwargs.get("video")
        self._begin(session, has_input=frames is not None)
        if frames is not None:
            self._look(session, frames, kwargs.get("video_timestamps"), now_s)
        if session.generation is not None:
            session.generation.start()

    def _pass_on(self, session: _HostSession, asked: Asked) -> None:
        """To the chunks that are being made."""
        generation = session.generation
        if generation is None:
            return
        if asked.changes:
            generation.session.update(**asked.changes)
        if asked.mix is not None:
            generation.session.set_prompts(asked.mix)
        if asked.transition is not None:
            generation.session.set_prompts(asked.transition.target, asked.transition.chunks)
        if asked.changes or asked.mix or asked.transition or asked.once:
            generation.retry()

    def _begin(self, session: _HostSession, *, has_input: bool) -> None:
        """Make chunks, as soon as there is a prompt, and a picture where the camera guides."""
        if session.generation is not None or session.mix is None:
            return
        if session.waits_for_input and self._guided(session) and not has_input:
            return
        release = self._lease.another()
        session.generation = Generation(
            session.once,
            session.config,
            session.mix,
            secrets.token_hex(8),
            self._clock,
            self._workers,
            release.close,
        )

    def _look(self, session: _HostSession, frames: object, stamps: object, now_s: float) -> None:
        if session.generation is not None and self._guided(session):
            size = (session.config.height, session.config.width)
            session.input.take(frames, stamps, size, now_s)
            session.input.push_due(now_s, session.generation.session.push_frame)

    def _guided(self, session: _HostSession) -> bool:
        """Whether input frames are looked at. Without a LoRA the model cannot."""
        if session.config.loras:
            return True
        if session.waits_for_input:
            self._reports.once(
                "video mode: input frames guide the picture through an in-context LoRA, and none is loaded: they "
                "are not looked at"
            )
        return False

    def _ready(self, session: _HostSession, now_s: float) -> bool:
        if not session.playout.due(now_s):
            return False
        generation = session.generation
        if generation is None:
            return False
        if not session.slices:
            segment = generation.poll()
            if segment is None:
                self._tell_idle(generation)
            else:
                session.slices.extend(slices_of(segment))
                for note in generation.session.last_notes:
                    self._reports.once(note)  # the host shows none
        self._ending = [ending for ending in self._ending if ending.alive]
        return bool(session.slices)

    def _tell_idle(self, generation: Generation) -> None:
        """A song that is to stop has ended: what was made is shown, and nothing more comes."""
        if (reason := generation.report.idle) is not None:
            self._reports.once(f"{reason}: nothing more is made until audio_input or audio_at_end is another")

    def _end_generation(self, session: _HostSession) -> None:
        generation, session.generation = session.generation, None
        if generation is not None:
            generation.stop()
            self._ending.append(generation)
