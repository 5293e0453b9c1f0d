"""Several viewers in one process that keep nothing of what they see: prints "joined", leaves when stdin closes.

python -m tests.fakes.watchers http://127.0.0.1:8000 4
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.contrib.media import MediaBlackhole

from tests.fakes.joining import joining


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[None]:
    connection, hole, connected = (
        RTCPeerConnection(RTCConfiguration(iceServers=[])),
        MediaBlackhole(),
        asyncio.Event(),
    )
    connection.on("track", hole.addTrack)
    connection.on(
        "connectionstatechange", lambda: connected.set() if connection.connectionState == "connected" else None
    )
    async with joining(url, connection):
        await hole.start()
        try:
            async with asyncio.timeout(20):
                await connected.wait()
            yield
        finally:
            await hole.stop()


async def watch(url: str, count: int) -> None:
    async with AsyncExitStack() as viewers:
        for _ in range(count):
            await viewers.enter_async_context(watched(url))
        sys.stdout.write("joined\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1], int(sys.argv[2])))
