"""The live host with the test-card generator, as a process of its own: prints its URL, ends on a signal.

python -m tests.fakes.live_server --height 192 --width 320 --frames 25 --recordings DIRECTORY
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.app import create_app
from scope_ltx.hosts.live.operations.garbage import keep_all_there_is
from scope_ltx.request import Chunk, ChunkRequest
from scope_streaming.clock import SystemClock
from tests.fakes.generator import TestCardGenerator
from tests.fakes.own_process import serve_here


class Hanging(TestCardGenerator):
    """A chunk of the prompt "hang" takes a minute and does not listen, as a device that does not answer."""

    def generate(self, request: ChunkRequest) -> Chunk:
        if request.prompt == "hang":
            time.sleep(60)
        return super().generate(request)


def start() -> Hanging:
    keep_all_there_is()
    return Hanging()


def main() -> None:
    parser = argparse.ArgumentParser()
    default = LTX2Config()
    parser.add_argument("--height", type=int, default=default.height)
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--frames", type=int, default=default.num_frames)
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--uploads", type=Path)
    parser.add_argument("--base-path", default="")
    given = parser.parse_args()
    app = create_app(
        start,
        LTX2Config(height=given.height, width=given.width, num_frames=given.frames),
        "a test card",
        clock=SystemClock(),
        nonce="",
        model="test card",
        recordings=given.recordings,
        uploads=given.uploads,
        base_path=given.base_path,
    )
    serve_here(app)


if __name__ == "__main__":
    main()
