"""A viewer that is not a browser: joins by WHEP and keeps the number of every picture it sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from tests.fakes.generator import read_counter


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
    for kind in ("video", "audio"):
        connection.addTransceiver(kind, direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    headers = {"content-type": "application/sdp"} | ({"authorization": f"Bearer {token}"} if token else {})
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        async with asyncio.timeout(20):
            while True:
                answer = await client.post("/whep", content=connection.localDescription.sdp)
                if answer.status_code != 409:
                    break
                await asyncio.sleep(float(answer.headers["retry-after"]))
        assert answer.status_code == 201, answer.text
        await connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        try:
            yield watcher
        finally:
            await client.delete(answer.headers["location"])
            await connection.close()
            await asyncio.gather(*tasks)
