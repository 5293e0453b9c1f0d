"""The live host as an application in this process, and what its tests ask of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver
from fastapi import FastAPI

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.app import create_app
from scope_ltx.hosts.live.http.server import http_server
from scope_ltx.hosts.live.serve import bind
from scope_ltx.request import Generator
from scope_streaming.clock import SystemClock
from tests.fakes.generator import TestCardGenerator

CONFIG = LTX2Config(height=64, width=320, num_frames=9)
SDP = {"content-type": "application/sdp"}
ROOT = Path(__file__).parents[2]


def app_of(start: Callable[[], Generator] = TestCardGenerator, **more: Any) -> FastAPI:
    return create_app(start, CONFIG, "a red ball", clock=SystemClock(), nonce="", model="fake", **more)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://live") as client,
    ):
        yield client


async def until(client: httpx.AsyncClient, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status that is as wanted. Fails after 10 s, which only a broken thread takes."""
    async with asyncio.timeout(10):
        while not wanted(status := (await client.get("/api/status")).json()):  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.01)
    found: dict[str, Any] = status
    return found


@asynccontextmanager
async def live(**more: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app_of(**more)) as client:
        await until(client, lambda status: status["state"] == "live")
        yield client


@asynccontextmanager
async def listening(app: FastAPI, **limits: Any) -> AsyncIterator[str]:
    """The application behind the product's own HTTP server, in this process."""
    listener = bind("127.0.0.1", 0)
    server = http_server(app, **limits)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def offer_sdp(*kinds: str, codecs: str | None = None) -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind in kinds or ("video", "audio"):
        transceiver = connection.addTransceiver(kind, direction="recvonly")
        if codecs and kind == "video":
            known = RTCRtpReceiver.getCapabilities("video")
            assert known is not None
            transceiver.setCodecPreferences([codec for codec in known.codecs if codec.mimeType == codecs])
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp
    await connection.close()
    return sdp


def assert_problem(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], bool(body["title"])) == (status, True)
    for word in words:
        assert word in body["detail"]
