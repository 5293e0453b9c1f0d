"""Glass to glass: from a camera's picture to the viewer's, through WHIP, an instant generator and WHEP.

    python -m benchmarks.latency --seconds 30

Three processes on this machine. FFmpeg sends numbered pictures at 30 fps and writes down when it drew each; the
live host mirrors them in chunks of 25 frames at 24 fps; this process plays the stream and reads the numbers. A
chunk can only start when all it shows was filmed, so its own length is in every delay: the target is that and
250 ms. On a machine that does other things, run it with `chrt --rr 5`, or it measures those.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import RESULTS, machine, write_json
from tests.fakes.mirror_process import ffmpeg_sending, mirror_server, status_of
from tests.fakes.watcher import Watcher, watching

FRAMES, FRAME_RATE, CAMERA_FPS = 25, 24, 30
CHUNK_S = FRAMES / FRAME_RATE
TARGET_S = 0.25
SETTLED_S = 8.0
"""After the first picture of the camera: what was made ahead before it came has been shown."""


async def measure(seconds: float, height: int, width: int) -> dict[str, Any]:
    """Delays of every picture that the viewer saw for the first time in `seconds`."""
    with mirror_server("--height", str(height), "--width", str(width), "--frames", str(FRAMES)) as url:
        sending = ("--seconds", str(seconds + 40), "--size", f"{height}x{width}", "--times")
        async with ffmpeg_sending(url, *sending) as camera, watching(url) as watcher:
            assert camera.stdout is not None
            drawn_s: dict[int, float] = {}
            writing = asyncio.create_task(_note_times(camera.stdout, drawn_s))
            await _camera_is_shown(watcher)
            await asyncio.sleep(SETTLED_S)
            first, before = len(watcher.pictures), await status_of(url)
            await asyncio.sleep(seconds)
            last, after = len(watcher.pictures), await status_of(url)
            writing.cancel()
    ordered, newest = [], watcher.pictures[first].number
    for seen in watcher.pictures[first + 1 : last]:
        # One that shows again is no later picture, and one from nowhere is a number that compression has damaged.
        if newest < seen.number < newest + CAMERA_FPS and seen.number in drawn_s:
            ordered.append(seen.at_s - drawn_s[seen.number])
            newest = seen.number
    ordered.sort()
    median, p95, worst = (float(np.quantile(ordered, share)) for share in (0.5, 0.95, 1.0))
    return {
        "size": f"{width}x{height}",
        "chunk_s": round(CHUNK_S, 4),
        "pictures_shown": last - first,
        "pictures_timed": len(ordered),
        "median_s": round(median, 4),
        "p95_s": round(p95, 4),
        "max_s": round(worst, 4),
        "median_beyond_chunk_ms": round((median - CHUNK_S) * 1000),
        "p95_beyond_chunk_ms": round((p95 - CHUNK_S) * 1000),
        "target_beyond_chunk_ms": round(TARGET_S * 1000),
        "stalls": after["stalls"] - before["stalls"],
    }


async def _note_times(lines: asyncio.StreamReader, drawn_s: dict[int, float]) -> None:
    while line := await lines.readline():
        number, at_s = line.split()
        drawn_s[int(number)] = float(at_s)


async def _camera_is_shown(watcher: Watcher) -> None:
    async with asyncio.timeout(40):
        while not (watcher.pictures and watcher.pictures[-1].number):  # noqa: ASYNC110 - the tracks set no event
            await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--size", default="384x640", help="height x width")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    result = asyncio.run(measure(given.seconds, height, width))
    for name, value in result.items():
        print(f"{name:>24}  {value}")
    print(f"{'under the target':>24}  {result['p95_s'] < CHUNK_S + TARGET_S}")
    print(write_json("latency", {"machine": machine(torch.device("cpu")), "result": result}, given.out))


if __name__ == "__main__":
    main()
