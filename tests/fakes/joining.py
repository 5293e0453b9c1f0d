"""How a viewer that is no browser joins: by WHEP, waiting for the stream as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
from aiortc import RTCPeerConnection, RTCSessionDescription

from tests.fakes.lossy_path import LossyPath


@asynccontextmanager
async def joining(
    url: str, connection: RTCPeerConnection, *, token: str = "", path: LossyPath | None = None
) -> AsyncIterator[None]:
    """Inside, the connection has the server's answer; afterwards it has left and is closed, and so is `path`."""
    headers = {"content-type": "application/sdp"} | ({"authorization": f"Bearer {token}"} if token else {})
    try:
        for kind in ("video", "audio"):
            connection.addTransceiver(kind, direction="recvonly")
        await connection.setLocalDescription(await connection.createOffer())
        offer = connection.localDescription.sdp
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            answer = await _answered(client, offer if path is None else await path.offer_through(offer))
            told = answer.text if path is None else path.answer_through(answer.text)
            await connection.setRemoteDescription(RTCSessionDescription(told, "answer"))
            try:
                yield
            finally:
                # A server that was told to end is not there any more.
                with suppress(httpx.TransportError):
                    await client.delete(answer.headers["location"])
    finally:
        await connection.close()
        if path is not None:
            path.close()


async def _answered(client: httpx.AsyncClient, offer: str) -> httpx.Response:
    """Fails after 30 s without a stream."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.post("/whep", content=offer)
            if answer.status_code != 409:
                break
            await asyncio.sleep(float(answer.headers["retry-after"]))
    assert answer.status_code == 201, answer.text
    return answer
