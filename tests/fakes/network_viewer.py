"""A real viewer on loopback that measures what it sees, and the server process that it watches.

How sound is measured against picture: every frame carries its number and the sound a pitch that tells its
position. Each RTP packet's timestamp is turned into the sender's wall clock through the RTCP sender reports,
as a browser does to keep lips in sync, and both contents are compared at the same moment of that clock.
The packets are read from the records that aiortc's receiver logs; nothing is patched.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt
import psutil
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpSrPacket, RtpPacket

from tests.fakes.generator import read_counter, read_sweep
from tests.fakes.joining import joining
from tests.fakes.lossy_path import LossyPath
from tests.fakes.machine import STALL_S, Machine

ROOT = Path(__file__).parents[2]
FRAME_RATE = 24
CLOCK_RATE = {"video": 90_000, "audio": 48_000}
KEPT_REPORTS = 40
"""A report comes every second or so."""


@dataclass
class SenderClock:
    """First RTP timestamp and every sender report (NTP seconds, RTP timestamp) per kind."""

    origin: dict[str, int] = field(default_factory=dict)
    reports: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: {"audio": [], "video": []})

    def sender_s(self, kind: str, pts: int) -> float:
        """The sender's wall clock at a frame's pts, by the report nearest to it."""
        stamp = self.origin[kind] + pts

        def ahead(report: tuple[float, int]) -> int:
            return (stamp - report[1] + 2**31) % 2**32 - 2**31

        nearest = min(self.reports[kind], key=lambda report: abs(ahead(report)))
        return nearest[0] + ahead(nearest) / CLOCK_RATE[kind]


class RtpTap(logging.Handler):
    """Reads the sender's clock from aiortc's own debug records."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.clock = SenderClock()

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record.args, tuple) or len(record.args) != 2:
            return
        kind, packet = str(record.args[0]), record.args[1]
        if isinstance(packet, RtpPacket):
            self.clock.origin.setdefault(kind, packet.timestamp)
        elif isinstance(packet, RtcpSrPacket) and packet.sender_info.ntp_timestamp:
            info = packet.sender_info
            self.clock.reports[kind].append((info.ntp_timestamp / 2**32, info.rtp_timestamp))


@dataclass
class Seen:
    """What one viewer saw: arrival, pts and number of each frame; pts and samples of each audio block."""

    clock: SenderClock
    video: list[tuple[float, int, int]] = field(default_factory=list)
    audio: list[tuple[int, npt.NDArray[np.float32]]] = field(default_factory=list)

    def stalls_s(self, machine: Machine, over_s: float = STALL_S, since_s: float = 0.0) -> list[float]:
        """The gaps of more than `over_s` that are not the machine's own, between frames that arrived at `since_s`
        of the event loop's clock or later."""
        arrived_s = [arrived_s for arrived_s, _, _ in self.video if arrived_s >= since_s]
        return machine.stalls_of_others(((late, late - early) for early, late in pairwise(arrived_s)), over_s)

    def received_share(self) -> float:
        numbers = [number for _, _, number in self.video]
        return len(set(numbers)) / (numbers[-1] - numbers[0] + 1)

    def lip_sync_s(self) -> list[float]:
        """Sound ahead of picture in seconds, ten times a second."""
        shown = np.array([self.clock.sender_s("video", pts) for _, pts, _ in self.video])
        offsets = []
        for first in range(0, len(self.audio) - 3, 5):
            window = np.concatenate([samples for _, samples in self.audio[first : first + 3]])
            position = read_sweep(window)
            middle_s = self.clock.sender_s("audio", self.audio[first][0]) + len(window) / 2 / 48_000
            if position is None or not shown[0] <= middle_s <= shown[-1]:
                continue
            nearest = int(np.argmin(np.abs(shown - middle_s)))
            picture_s = self.video[nearest][2] / FRAME_RATE + middle_s - shown[nearest]
            offsets.append((position - picture_s + 0.5) % 1 - 0.5)
        return offsets


class Viewer(Seen):
    """Watches tracks and writes down what it sees."""

    async def watch(self, track: MediaStreamTrack) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            arrived_s = loop.time()
            if isinstance(frame, av.VideoFrame):
                luma = frame.to_ndarray(format="gray")[: frame.height]
                self.video.append((arrived_s, frame.pts or 0, read_counter(luma[..., None])))
            else:
                samples = frame.to_ndarray().reshape(-1, 2)[:, 0].astype(np.float32) / 2**15
                self.audio.append((frame.pts, samples))

    def taken(self) -> Seen:
        """What it saw since it was asked last. Plain data, for another process."""
        seen = Seen(SenderClock(dict(self.clock.origin), {}), self.video[:], self.audio[:])
        for kind, reports in self.clock.reports.items():
            seen.clock.reports[kind] = reports[-KEPT_REPORTS:]
            del reports[:-KEPT_REPORTS]
        self.video.clear()
        self.audio.clear()
        return seen


@contextmanager
def tapped() -> Iterator[RtpTap]:
    """Not a fixture: pytest captures, and so formats, what a logger says that stopped propagating before."""
    handler = RtpTap()
    logger = logging.getLogger("aiortc.rtcrtpreceiver")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """A full collection of what a test run has imported takes longer than the gaps that a viewer looks for."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass
class Server:
    url: str
    process: psutil.Process

    def client(self) -> httpx.AsyncClient:
        # A TLS context, which plain HTTP has no use for, holds up the viewer in this loop for 20 to 50 ms.
        return httpx.AsyncClient(base_url=self.url, verify=False)

    async def status(self) -> dict[str, Any]:
        async with self.client() as client:
            body: dict[str, Any] = (await client.get("/api/status")).json()
            return body


@contextmanager
def running_server(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    module: str = "tests.fakes.live_server",
) -> Iterator[Server]:
    """The live host with the test-card generator, or as `module` has it, in a process of its own; SIGTERM at the
    end."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield Server(process.stdout.readline().strip(), psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(5)
        process.stdout.close()


@asynccontextmanager
async def joined(server: Server, path: LossyPath | None = None) -> AsyncIterator[Viewer]:
    """With a tap: one at a time in a process, as aiortc's records do not tell whose they are."""
    with tapped() as tap, frozen_garbage():
        async with joined_untapped(server, Viewer(tap.clock), path) as viewer:
            yield viewer


@asynccontextmanager
async def joined_untapped(server: Server, viewer: Viewer, path: LossyPath | None = None) -> AsyncIterator[Viewer]:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    tasks = []
    connection.on("track", lambda track: tasks.append(asyncio.create_task(viewer.watch(track))))
    try:
        async with joining(server.url, connection, path=path):
            yield viewer
    finally:
        await asyncio.gather(*tasks)
