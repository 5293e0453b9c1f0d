"""The live host with the mirror generator, as a process of its own: prints its URL, ends on a signal.

python -m tests.fakes.mirror_server --height 384 --width 640 --frames 25
"""

from __future__ import annotations

import argparse

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.app import create_app
from scope_ltx.hosts.live.http.access import AccessPolicy
from scope_streaming.clock import SystemClock
from tests.fakes.mirror import MirrorGenerator
from tests.fakes.own_process import serve_here


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--token")
    given = parser.parse_args()
    config = LTX2Config(height=given.height, width=given.width, num_frames=given.frames, audio_mode="driving")
    access = AccessPolicy.of("127.0.0.1", given.token, ())
    clock = SystemClock()
    app = create_app(MirrorGenerator, config, "a mirror", clock=clock, nonce="", model="mirror", access=access)
    serve_here(app)


if __name__ == "__main__":
    main()
