"""The live host with the test-card generator, as a process of its own: prints its URL, ends on a signal."""

from __future__ import annotations

import sys

import uvicorn

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.api import create_app
from scope_ltx.hosts.live.serve import bind, url_of
from scope_streaming.clock import SystemClock
from tests.fakes.generator import TestCardGenerator


def main() -> None:
    app = create_app(
        TestCardGenerator, LTX2Config(), "a test card", clock=SystemClock(), nonce="", model="test card"
    )
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    sys.stdout.write(url_of(listener) + "\n")
    sys.stdout.flush()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
