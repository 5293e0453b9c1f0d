"""Records the viewers' own encoded packets, from a keyframe on, into MP4 files, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path

from scope_ltx.hosts.live.http.problems import ProblemError
from scope_ltx.hosts.live.recording.files import OpenFile, RecordingFiles, open_exclusive
from scope_streaming.media.broadcast import Broadcaster, Subscription, SubscriptionClosedError
from scope_streaming.media.encoder import EncodedPacket

logger = logging.getLogger(__name__)

SUFFIX = ".mp4"
MAX_WAITING = 3_000
"""Packets: half a minute of picture and sound. A disk that is further behind will not catch up."""
CLOSE_TIMEOUT_S = 1.5


@dataclass(frozen=True)
class RecordingState:
    """One recording. `error` says why it has ended by itself; what it holds until there can be played."""

    active: bool
    files: tuple[str, ...]
    seconds: float
    nbytes: int
    error: str | None


class _Writing:
    """A recording that goes on: takes packets from the event loop, writes them on its thread."""

    def __init__(self, files: RecordingFiles, ended: Callable[[], None], max_waiting: int) -> None:
        self._files = files
        self._ended = ended
        self._waiting: queue.Queue[EncodedPacket | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self.error: str | None = None
        self.active = True
        """More packets are taken."""
        self._thread.start()

    @property
    def state(self) -> RecordingState:
        files = self._files
        names = tuple(path.name for path in files.paths)
        return RecordingState(self.active, names, round(files.seconds, 3), files.nbytes, self.error)

    def put(self, packet: EncodedPacket | None) -> None:
        """Never waits. None: nothing follows. A full queue ends the recording."""
        if not self.active:
            return
        try:
            self._waiting.put_nowait(packet)
        except queue.Full:
            self.error = "the disk cannot keep up: the recording has ended, what was written is kept"
            self.active = False
            self._ended()

    def finish(self, timeout_s: float) -> bool:
        """Write what waits and close the file. False when that took longer. Blocks."""
        try:
            self._waiting.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (packet := self._waiting.get()) is not None:
                self._files.write(packet)
                # After a full queue nothing follows, and nobody may be there to say so.
                if not self.active and self._waiting.empty():
                    break
            self._files.close()
        except OSError as error:
            self._fail(f"the recording has ended: {error.strerror or error}. What was written until then is kept")
        except Exception as error:
            logger.exception("the recording has ended")
            self._fail(f"the recording has ended: {error}")
        finally:
            self.active = False
            self._ended()

    def _fail(self, sentence: str) -> None:
        self.error = sentence
        logger.error("%s", sentence)
        # The thread takes no more: room for the end that `finish` may put.
        while not self._waiting.empty():
            self._waiting.get_nowait()


class Recorder:
    """One recording at a time of one broadcast, into `directory`. Belongs to one event loop."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        directory: Path,
        now: Callable[[], datetime] = datetime.now,
        open_file: OpenFile = open_exclusive,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._broadcaster = broadcaster
        self.directory = directory
        self._now = now
        self._open_file = open_file
        self._max_waiting = max_waiting
        self._writing: _Writing | None = None
        self._subscriptions: tuple[Subscription, ...] = ()
        self._starting = asyncio.Lock()
        self._taking: asyncio.Task[None] | None = None

    @property
    def state(self) -> RecordingState | None:
        """Of the newest recording; None before the first."""
        return self._writing.state if self._writing else None

    async def start(self) -> RecordingState:
        """Raises ProblemError: 409 while one is running or nothing is on air, 507 when nothing can be written."""
        async with self._starting:
            return await self._start()

    async def _start(self) -> RecordingState:
        if self._writing is not None and self._writing.active:
            raise ProblemError(HTTPStatus.CONFLICT, "a recording is running already: stop it first")
        if self._broadcaster.over:
            raise ProblemError(HTTPStatus.CONFLICT, "the stream is over: there is nothing to record any more")
        if not self._broadcaster.playing:
            detail = "there is nothing to record before the first chunk: try again"
            raise ProblemError(HTTPStatus.CONFLICT, detail, {"Retry-After": "2"})
        await self._unsubscribe()
        try:
            path = await asyncio.to_thread(self._free_path)
        except OSError as error:
            detail = f"{self.directory}: {error.strerror}. Start the server with another --record-dir"
            raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, detail) from error
        loop = asyncio.get_running_loop()
        subscriptions = tuple(self._broadcaster.subscribe(stream) for stream in ("H264", "audio"))
        # Its own: one that ends after the next has begun must leave that alone.
        files = RecordingFiles(path, self._open_file)
        writing = _Writing(files, lambda: self._wake(loop, subscriptions), self._max_waiting)
        self._writing, self._subscriptions = writing, subscriptions
        self._taking = asyncio.create_task(_take(subscriptions, writing), name="recording")
        logger.info("recording to %s", path)
        return writing.state

    async def stop(self) -> RecordingState:
        """Raises ProblemError 409 when none is running."""
        if self._writing is None or not self._writing.active:
            raise ProblemError(HTTPStatus.CONFLICT, "no recording is running")
        return await self._end(self._writing)

    async def close(self) -> None:
        """Finish the recording that is running, if any, within CLOSE_TIMEOUT_S."""
        if self._writing is not None:
            await self._end(self._writing)

    async def _end(self, writing: _Writing) -> RecordingState:
        await self._unsubscribe()
        if not await asyncio.to_thread(writing.finish, CLOSE_TIMEOUT_S):
            logger.warning("the disk is slow: the recording's last second may be missing")
        return writing.state

    async def _unsubscribe(self) -> None:
        for subscription in self._subscriptions:
            self._broadcaster.unsubscribe(subscription)
        self._subscriptions = ()
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)
            self._taking = None

    def _wake(self, loop: asyncio.AbstractEventLoop, subscriptions: Sequence[Subscription]) -> None:
        """From the writing thread: nobody should encode for a recording that is over."""
        if loop.is_closed():
            return
        for subscription in subscriptions:
            loop.call_soon_threadsafe(self._broadcaster.unsubscribe, subscription)

    def _free_path(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"scope-{self._now():%Y%m%d-%H%M%S}"
        taken = {path.name for path in self.directory.iterdir()}
        number = 0
        while any(each.startswith(_stem(name, number)) for each in taken):
            number += 1
        return self.directory / f"{_stem(name, number)}{SUFFIX}"


async def _take(subscriptions: Sequence[Subscription], writing: _Writing) -> None:
    """Until the stream is over, which ends the recording as well."""
    await asyncio.gather(*(_pump(subscription, writing) for subscription in subscriptions))
    writing.put(None)


async def _pump(subscription: Subscription, writing: _Writing) -> None:
    try:
        while True:
            writing.put(await subscription.next())
    except SubscriptionClosedError:
        return


def _stem(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_{number}"
