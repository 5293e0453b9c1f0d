"""A viewer that is not a browser: joins by WHEP and keeps the number of every picture it sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError

from tests.fakes.generator import read_counter
from tests.fakes.joining import joining


@dataclass
class Seen:
    """A picture: wall seconds of its arrival, the number in its squares, and its mean colour."""

    at_s: float
    number: int
    luma: float


@dataclass
class Watcher:
    pictures: list[Seen] = field(default_factory=list)
    sound: list[npt.NDArray[np.float32]] = field(default_factory=list)

    async def watch(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            at_s = time.time()
            if isinstance(frame, av.VideoFrame):
                luma = frame.to_ndarray(format="gray")[: frame.height, : frame.width]
                self.pictures.append(Seen(at_s, read_counter(luma[..., None]), float(luma[-32:].mean())))
            else:
                self.sound.append(frame.to_ndarray().reshape(-1, 2)[:, 0].astype(np.float32) / 2**15)

    async def until_seen(self, count: int, seconds: float) -> None:
        """Until it has seen so many pictures. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.pictures) < count:  # noqa: ASYNC110 - the tracks set no event
                await asyncio.sleep(0.02)


@asynccontextmanager
async def watching(url: str, token: str = "") -> AsyncIterator[Watcher]:
    """Joins at `url`, waits for the stream as it is told to, and leaves."""
    watcher = Watcher()
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    tasks: list[asyncio.Task[None]] = []
    connection.on("track", lambda track: tasks.append(asyncio.create_task(watcher.watch(track))))
    try:
        async with joining(url, connection, token=token):
            yield watcher
    finally:
        await asyncio.gather(*tasks)
