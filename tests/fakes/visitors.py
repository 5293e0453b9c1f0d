"""Viewers that come and go, as a process of its own: every so often one joins, and the one before leaves.

python -m tests.fakes.visitors http://127.0.0.1:8000 --every 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys

from tests.fakes.watcher import watching


async def visit(url: str, every_s: float) -> None:
    """Until cancelled. A visitor that saw no picture ends it with an AssertionError."""
    staying: set[asyncio.Task[None]] = set()
    visits = 0

    async def stay() -> None:
        async with watching(url) as watcher:
            await asyncio.sleep(1.5 * every_s)
        assert watcher.pictures, "a visitor saw no picture"

    try:
        while True:
            staying.add(asyncio.create_task(stay()))
            visits += 1
            await asyncio.sleep(every_s)
            for visitor in [visitor for visitor in staying if visitor.done()]:
                visitor.result()
                staying.remove(visitor)
            sys.stdout.write(f"{visits}\n")
            sys.stdout.flush()
    finally:
        for visitor in staying:
            visitor.cancel()
        await asyncio.gather(*staying, return_exceptions=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--every", type=float, default=5.0)
    given = parser.parse_args()
    visiting = asyncio.ensure_future(visit(given.url, given.every))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, visiting.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await visiting


if __name__ == "__main__":
    asyncio.run(main())
