"""What a viewer more costs the sender, and how well the encoder keeps its bitrate.

    python -m benchmarks.encoder --size 704x1280 --viewers 4

The live host runs in this process with a generator that costs nothing, its viewers in another. Windows with one
viewer and with several alternate; the difference in this process's CPU seconds, by the further viewers, is what
each of them costs. CPU seconds, not wall time: what else the machine does matters little, as long as the viewers
keep up. If they do not, they ask for fewer bits, which `lowest_target_with_all` shows; `chrt --rr 5` helps then.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch
import uvicorn

from benchmarks.report import RESULTS, machine, write_json
from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.app import create_app
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_streaming.clock import SystemClock
from scope_streaming.media.encoder import VideoEncoder
from scope_streaming.media.playout import TimedFrame
from scope_streaming.media.timeline import TICKS_PER_SECOND, exact_frame_rate, segment_samples
from tests.fakes.whole_chunks import WholeChunks

SAMPLE_RATE = 48_000
FRAMES = 49
MAX_SHARE, MAX_DEVIATION = 0.05, 0.10
ROOT = Path(__file__).parents[1]


class DriftingTexture(WholeChunks):
    """One chunk, made once: smooth shapes that drift, under the grain that a camera has. Something to spend bits
    on, as much as a natural picture."""

    def __init__(self) -> None:
        self._chunk: Chunk | None = None

    def generate(self, request: ChunkRequest) -> Chunk:
        if self._chunk is None:
            config = request.config
            length = segment_samples(FRAMES, exact_frame_rate(config.frame_rate), SAMPLE_RATE)
            noise = np.random.default_rng(0)
            sound = noise.normal(0, 0.05, (2, length)).astype(np.float32)
            frames = _drifting(config.height, config.width, noise)
            self._chunk = Chunk(frames, sound, SAMPLE_RATE, ChunkStats(0.0, 0.001, 0.0, config.num_steps))
        return self._chunk


def _drifting(height: int, width: int, noise: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    frames = np.empty((FRAMES, height, width, 3), np.uint8)
    for i in range(FRAMES):
        phase = 2 * np.pi * i / FRAMES
        planes = [
            128 + 60 * np.sin(x / (23 + 9 * c) + phase * (c + 1)) * np.cos(y / (31 - 6 * c) - phase)
            for c in range(3)
        ]
        grain = noise.normal(0, 2.0, (height, width, 1))
        frames[i] = np.clip(np.stack(planes, -1) + grain, 0, 255)
    return frames


@asynccontextmanager
async def _host(config: LTX2Config) -> AsyncIterator[str]:
    app = create_app(DriftingTexture, config, "a texture", clock=SystemClock(), nonce="", model="texture")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn sets no event
        await asyncio.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def _viewers(url: str, count: int) -> AsyncIterator[None]:
    """So many, in one process that reads and drops what comes. Returns once all are joined."""
    command = [sys.executable, "-m", "tests.fakes.watchers", url, str(count)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).strip() == b"joined"
        await asyncio.sleep(2)
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def _window(url: str, seconds: float) -> dict[str, float]:
    """CPU seconds per second of this process: all of it, and its main thread, which sends. Bits per second of
    picture to all viewers together, and what the encoder aims at in the end."""
    own, main = psutil.Process(), threading.main_thread().native_id

    def cpu() -> tuple[float, float]:
        sending = next(thread for thread in own.threads() if thread.id == main)
        return time.process_time(), sending.user_time + sending.system_time

    async with httpx.AsyncClient(base_url=url) as client:
        sent, before, begun_s = await _sent_nbytes(client), cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        after, passed_s = cpu(), time.monotonic() - begun_s
        sent = await _sent_nbytes(client) - sent
        target = (await client.get("/api/status")).json()["bitrate"]
    return {
        "process": (after[0] - before[0]) / passed_s,
        "sending": (after[1] - before[1]) / passed_s,
        "sent": sent * 8 / passed_s,
        "target": target,
    }


async def _sent_nbytes(client: httpx.AsyncClient) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    counts = (line.split()[-1] for line in lines if re.match(r"scope_ltx_viewer_sent_bytes_total.*video", line))
    return sum(map(float, counts))


async def cpu_per_viewer(config: LTX2Config, viewers: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Cores that each viewer after the first takes, as the median of `rounds` pairs of windows."""
    windows: dict[int, list[dict[str, float]]] = {1: [], viewers: []}
    async with _host(config) as url:
        for _ in range(rounds):
            for count, seen in windows.items():
                async with _viewers(url, count):
                    seen.append(await _window(url, seconds))
                print(count, "viewers:", {name: round(value, 4) for name, value in seen[-1].items()})
    one, many = windows[1], windows[viewers]

    def middle(of: Iterable[float]) -> float:
        return round(statistics.median(of), 4)

    def each(name: str) -> float:
        return middle((b[name] - a[name]) / (viewers - 1) for a, b in zip(one, many, strict=True))

    return {
        "viewers": [1, viewers],
        "windows_s": seconds,
        "rounds": rounds,
        "cores_with_one": middle(window["process"] for window in one),
        "cores_with_all": middle(window["process"] for window in many),
        "cores_per_further_viewer": each("process"),
        "sending_cores_per_further_viewer": each("sending"),
        "sent_bits_per_further_viewer": round(each("sent")),
        "lowest_target_with_all": min(window["target"] for window in many),
    }


def bitrate(config: LTX2Config, seconds: int) -> dict[str, Any]:
    """Bits that the encoder makes of the texture, against its target, after a first second."""
    generator, encoder = DriftingTexture(), VideoEncoder("H264")
    frames = generator.generate(ChunkRequest(config, "", 0)).frames
    rate = config.frame_rate
    sent, begun_s = 0, 0.0
    for i in range(round((seconds + 1) * rate)):
        if i == round(rate):
            sent, begun_s = 0, time.process_time()
        timed = TimedFrame(round(i * TICKS_PER_SECOND / rate), frames[i % FRAMES], rate)
        sent += sum(packet.data.size for packet in encoder.encode(timed, 0, keyframe=False))
    measured = sent * 8 / seconds
    assert encoder.library is not None
    return {
        "library": encoder.library.name,
        "target_bits_per_s": encoder.bitrate,
        "measured_bits_per_s": round(measured),
        "deviation": round(measured / encoder.bitrate - 1, 4),
        "encoding_cores": round((time.process_time() - begun_s) / seconds, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="704x1280", help="height x width")
    parser.add_argument("--viewers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    config = LTX2Config(height=height, width=width, num_frames=FRAMES)
    result = {"size": f"{width}x{height}", "frame_rate": config.frame_rate, **bitrate(config, 20)}
    result |= asyncio.run(cpu_per_viewer(config, given.viewers, given.seconds, given.rounds))
    for name, value in result.items():
        print(f"{name:>33}  {value}")
    costs = max(result["cores_per_further_viewer"], result["sending_cores_per_further_viewer"])
    print(f"{'a viewer under 5 % of a core':>33}  {costs < MAX_SHARE}")
    print(f"{'bitrate within 10 %':>33}  {abs(result['deviation']) < MAX_DEVIATION}")
    print(write_json("encoder", {"machine": machine(torch.device("cpu")), "result": result}, given.out))


if __name__ == "__main__":
    main()
