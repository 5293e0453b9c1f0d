"""A webcam as a browser sends it: 30 numbered pictures a second by WHIP, as a process of its own, until a signal.

python -m tests.fakes.camera_sender http://127.0.0.1:8000/whip --size 192x320

FFmpeg's muxer (`whip_sender`) is given up by ICE after 30 s, because it answers no consent checks (RFC 7675).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import av
import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack

from tests.fakes.generator import draw_counter
from tests.fakes.lossy_path import LossyPath


class Camera(VideoStreamTrack):
    """Paced by aiortc: 30 pictures a second."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self._pixels = np.full((height, width, 3), 96, np.uint8)
        self._sent = 0

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        draw_counter(self._pixels, self._sent)
        self._sent += 1
        frame = av.VideoFrame.from_ndarray(self._pixels, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


@dataclass
class Sending:
    """`ended` is set when the server has given the camera up."""

    connection: RTCPeerConnection
    ended: asyncio.Event


@asynccontextmanager
async def camera(
    url: str, height: int, width: int, codec: str = "video/H264", path: LossyPath | None = None
) -> AsyncIterator[Sending]:
    """Sends to the WHIP endpoint at `url`, and says goodbye at the end."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    ended = asyncio.Event()

    def changed() -> None:
        if connection.connectionState in ("failed", "closed"):
            ended.set()

    connection.on("connectionstatechange", changed)
    transceiver = connection.addTransceiver(Camera(height, width), direction="sendonly")
    known = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([each for each in known if each.mimeType == codec])
    await connection.setLocalDescription(await connection.createOffer())
    async with httpx.AsyncClient() as client:
        offer = connection.localDescription.sdp
        if path is not None:
            offer = await path.offer_through(offer)
        answer = await client.post(url, content=offer, headers={"content-type": "application/sdp"})
        answer.raise_for_status()
        told = answer.text if path is None else path.answer_through(answer.text)
        await connection.setRemoteDescription(RTCSessionDescription(told, "answer"))
        try:
            yield Sending(connection, ended)
        finally:
            await client.delete(str(httpx.URL(url).join(answer.headers["location"])))
            await connection.close()
            if path is not None:
                path.close()


async def send(url: str, height: int, width: int, told: asyncio.Event) -> None:
    """Until `told`. Raises ConnectionError when the server gives the camera up."""
    async with camera(url, height, width) as sending:
        waits = [asyncio.create_task(event.wait()) for event in (told, sending.ended)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for waiting in waits:
            waiting.cancel()
        if not told.is_set():
            raise ConnectionError("the server has given the camera up")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--size", default="192x320", help="height x width")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await send(given.url, height, width, told)


if __name__ == "__main__":
    asyncio.run(main())
