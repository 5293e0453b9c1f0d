"""Drives the fake Scope host through virtual time, and measures what its viewer got."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from scope_ltx.errors import GenerationCancelled
from scope_ltx.hosts.scope.node import Parts, build_pipeline_class
from scope_ltx.hosts.scope.weights import SharedWeights
from scope_ltx.hosts.scope.worker import Generation, Work, Worker
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_streaming.clock import Clock
from scope_streaming.media.timeline import exact_frame_rate, segment_samples
from tests.fakes.clock import FakeClock
from tests.fakes.scope_api import MediaTimestamp, host_api
from tests.fakes.scope_host import FakeScopeHost, FakeWorker, Ports, SoundTrack, VideoTrack, Wire

RATE = 48_000
SCALE = 2**-24
"""Sample n of the stream is (n + 1) / 2**24, which a float32 holds exactly: silence is the only 0."""
TURN_COSTS_S = 0.001


Content = Callable[[ChunkRequest], tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]
"""Frames and samples of a chunk, before they are numbered."""


def blank(request: ChunkRequest) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    config = request.config
    samples = segment_samples(config.num_frames, exact_frame_rate(config.frame_rate), RATE)
    frames = np.zeros((config.num_frames, config.height, config.width, 3), np.uint8)
    return frames, np.zeros((2, samples), np.float32)


class CountingGenerator:
    """Numbers every frame and every sample of its life. `speed` is media seconds per second of its clock."""

    def __init__(self, clock: Clock, speed: float, content: Content) -> None:
        self._clock = clock
        self._content = content
        self.speed = speed
        self.requests: list[ChunkRequest] = []
        self.making: tuple[ChunkRequest, Future[Chunk], Chunk, float] | None = None
        self.finished_s: list[float] = []
        self.failures: list[BaseException] = []
        """Of the next chunks."""
        self.abandoned = 0
        self.closed = 0
        self._frames = self._samples = 0

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        assert self.making is None, "two chunks at once on one model"
        self.requests.append(request)
        if self.failures:
            raise self.failures.pop(0)
        frames, samples = self._content(request)
        self._number(frames, samples)
        chunk = Chunk(frames, samples, RATE, ChunkStats(0, 1, 0, 8))
        future: Future[Chunk] = Future()
        seconds = len(frames) / float(exact_frame_rate(request.config.frame_rate))
        self.making = (request, future, chunk, self._clock.now() + seconds / self.speed)
        self.finish()
        return future

    def _number(self, frames: npt.NDArray[np.uint8], samples: npt.NDArray[np.float32]) -> None:
        numbers = np.arange(self._frames, self._frames + len(frames), dtype="<u4")
        frames[:, 0, 0] = numbers.view(np.uint8).reshape(-1, 4)[:, :3]
        first = self._samples + 1
        samples[:] = np.arange(first, first + samples.shape[1], dtype=np.float32) * np.float32(SCALE)
        self._frames, self._samples = self._frames + len(frames), self._samples + samples.shape[1]

    def finish(self) -> None:
        """Hand out what is done by now."""
        if self.making is None:
            return
        request, future, chunk, due_s = self.making
        if request.cancel.is_set():
            self.making = None
            self.abandoned += 1
            future.set_exception(GenerationCancelled("given up"))
        elif self._clock.now() >= due_s:
            self.making = None
            self.finished_s.append(self._clock.now())
            future.set_result(chunk)

    def close(self) -> None:
        self.closed += 1


class VirtualClock(FakeClock):
    """A wait of a generation thread lasts until virtual time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[threading.Thread, SteppedWorker] = {}

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        worker = self.workers.get(threading.current_thread())
        if worker is None:
            return super().wait(stop, seconds)
        worker.sleep(self.now() + seconds, stop)
        return stop.is_set()


class SteppedWorker:
    """A generation thread that moves only while the test waits for it, so that everything happens in one order."""

    def __init__(self, work: Work, clock: VirtualClock, generator: CountingGenerator) -> None:
        self._work = work
        self._clock = clock
        self._generator = generator
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._sleeps: tuple[float, threading.Event] | None = None
        self._thread = threading.Thread(target=self._run, name="stepped", daemon=True)
        self._alive = False

    def start(self) -> None:
        self._alive = True
        self._clock.workers[self._thread] = self
        self._thread.start()

    def is_alive(self) -> bool:
        return self._alive

    def join(self, timeout: float | None = None) -> None:
        while self._alive:
            self._generator.finish()
            self.pump()
        self._thread.join()

    def sleep(self, until_s: float, stop: threading.Event) -> None:
        """Of its own thread."""
        self._sleeps = (until_s, stop)
        self._park()
        self._sleeps = None

    def pump(self) -> None:
        """Let it go on, if it would."""
        if self._alive and self._may_go():
            self._go.release()
            self._back.acquire()

    def _may_go(self) -> bool:
        if self._sleeps is not None:
            until_s, stop = self._sleeps
            return stop.is_set() or self._clock.now() >= until_s
        assert isinstance(self._work, Generation)
        return self._work.stopped or (self._generator.making is None and not self._work.waiting)

    def _run(self) -> None:
        self._go.acquire()
        with suppress(SystemExit):
            while self._work.step():
                self._park()
        self._work.end()
        self._alive = False
        self._back.release()

    def _park(self) -> None:
        self._back.release()
        self._go.acquire()


class VirtualTime:
    """All that moves: the clock, the generator, the host with the plugin, and one session of it after another."""

    def __init__(self, speed: float = math.inf, content: Content = blank) -> None:
        self.clock = clock = VirtualClock()
        self.generator = generator = CountingGenerator(clock, speed, content)
        self.workers: list[SteppedWorker] = []
        self.sessions: list[VirtualSession] = []
        workers = self.workers

        def start_worker(work: Work) -> Worker:
            workers.append(SteppedWorker(work, clock, generator))
            return workers[-1]

        parts = Parts(
            clock=clock,
            workers=start_worker,
            weights=SharedWeights(clock),
            find=lambda model, models_dir: models_dir,
            identity=lambda directory, options: (directory, options),
            load=lambda directory, options, first: generator,
        )
        self.host = FakeScopeHost(build_pipeline_class(host_api(), parts))
        # A test that has seen enough leaves no threads behind.
        weakref.finalize(self, _end, self.host, self.sessions)

    def session(self, **parameters: Any) -> VirtualSession:
        """A new one. Those before are over for their viewers; their workers are what the test makes of them."""
        session = VirtualSession(self.host.pipeline, parameters, self.clock)
        self.sessions.append(session)
        return session

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, or until something has happened."""
        end_s = self.clock.now() + seconds
        while not until():
            live = [session for session in self.sessions if session.live]
            making = self.generator.making
            due = [making[3]] if making is not None and not making[0].cancel.is_set() else []
            next_s = min([end_s, *due, *(session.next_s for session in live)])
            self.clock.advance(max(0.0, next_s - self.clock.now()))
            self._generate()
            if self.clock.now() >= end_s:
                return
            for session in live:
                session.turn()
                self._generate()

    def _generate(self) -> None:
        self.generator.finish()
        for worker in self.workers:
            worker.pump()


def _end(host: FakeScopeHost, sessions: list[VirtualSession]) -> None:
    for session in sessions:
        session.close()
    host.unload()


class VirtualSession:
    """One session of the host: its worker on a thread of its own, and its tracks."""

    def __init__(self, pipeline: Any, parameters: dict[str, Any], clock: Clock) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fake-host")
        self.ports, self.wire = Ports(), Wire()
        self.worker = FakeWorker(pipeline, parameters, self.ports)
        self._video, self._sound = VideoTrack(self.ports, self.wire), SoundTrack(self.ports, self.wire)
        self.began_s = clock.now()
        self._due = dict.fromkeys(("worker", "video", "sound"), clock.now())
        self.live = True
        self.filmed = 0

    def film(self, frame_rate: float, height: int, width: int) -> None:
        """A camera, whose pictures are as bright as their number says, from 1 to 250. A rate of 0 ends it."""
        self._camera = (frame_rate, height, width)
        self._due["camera"] = self._clock.now() if frame_rate else math.inf

    @property
    def next_s(self) -> float:
        return min(self._due.values())

    def turn(self) -> None:
        """Everything that is due."""
        for name in self._due:
            while self._due[name] <= self._clock.now() + 1e-9:
                self._due[name] = self._clock.now() + self._do(name)

    def _do(self, name: str) -> float:
        if name == "worker":
            return max(TURN_COSTS_S, self._thread.submit(self.worker.turn).result())
        if name == "camera":
            return self._filmed()
        track = self._video if name == "video" else self._sound
        return track.turn(self._clock.now())

    def _filmed(self) -> float:
        frame_rate, height, width = self._camera
        self.filmed += 1
        if not self.worker.input.full():
            picture = torch.full((1, height, width, 3), brightness(self.filmed), dtype=torch.uint8)
            stamp = MediaTimestamp(round(self.filmed * 90_000 / frame_rate), Fraction(1, 90_000))
            self.worker.input.put_nowait((picture, stamp))
        return 1 / frame_rate

    def close(self) -> None:
        """The host drops its worker, and with it the pipeline."""
        self.live = False
        self.worker.pipeline = None
        self._thread.shutdown()


def brightness(number: int) -> int:
    return 1 + (number - 1) % 250


def number_of(picture: npt.NDArray[np.uint8]) -> int:
    low, middle, high = (int(value) for value in picture[0, 0])
    return low | middle << 8 | high << 16


def sample_of(sound: npt.NDArray[np.float32]) -> int:
    """Number of the first sample."""
    return round(float(sound[0, 0]) / SCALE) - 1


def longest_gap_s(wire: Wire) -> float:
    """Between two pictures."""
    moments = [moment for moment, _, _ in wire.shown]
    return max(after - before for before, after in pairwise(moments))


def skews_s(wire: Wire, frame_rate: float, after_s: float = 0.0) -> list[float]:
    """At each picture, how much later its sound is heard, where there is sound at that moment."""
    found = []
    heard = [(moment, sample_of(sound)) for moment, sound in wire.heard if sound is not None]
    moments = [moment for moment, _ in heard]
    for moment, _, picture in wire.shown:
        place = int(np.searchsorted(moments, moment, side="right")) - 1
        if moment < after_s or place < 0 or moment - moments[place] > 0.02:
            continue
        sounding_s = heard[place][1] / RATE + (moment - moments[place])
        found.append(number_of(picture) / frame_rate - sounding_s)
    return found
