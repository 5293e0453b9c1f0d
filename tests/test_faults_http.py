"""Faults of those who talk to the server: offers by the hundred, half-open connections, SDP that is none."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.hosts.live.http import bodies
from tests.fakes.live_app import SDP, app_of, assert_problem, listening, live, offer_sdp, serving, until


async def tasks_are(count: int) -> None:
    """aiortc's own tasks end a moment after their connection. Fails after 5 s."""
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > count:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def test_a_hundred_offers_at_once_get_places_or_a_wait() -> None:
    offer = await offer_sdp()
    tasks = len(asyncio.all_tasks())
    async with live() as client:
        steady = len(asyncio.all_tasks())
        answers = await asyncio.gather(*(client.post("/whep", content=offer, headers=SDP) for _ in range(100)))
        taken = [answer for answer in answers if answer.status_code == 201]
        refused = [answer for answer in answers if answer.status_code != 201]
        assert len(taken) == 8
        for answer in refused:
            assert_problem(answer, 503, "all 8 places for viewers are taken")
            assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/api/status")).json()["viewers"] == 8
        for answer in taken:
            assert (await client.delete(answer.headers["location"])).status_code == 200
        await tasks_are(steady)
        again = await client.post("/whep", content=offer, headers=SDP)
        assert again.status_code == 201
    await tasks_are(tasks)


@pytest.fixture
def half_open() -> Iterator[Callable[[str, bytes], socket.socket]]:
    """Connections that say something and then nothing."""
    sockets: list[socket.socket] = []

    def connect(url: str, said: bytes) -> socket.socket:
        host, port = url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=5)
        connection.sendall(said)
        connection.setblocking(False)
        sockets.append(connection)
        return connection

    yield connect
    for connection in sockets:
        connection.close()


async def closed(connection: socket.socket) -> bytes:
    """What a connection was told until the server closed it. Fails after 5 s."""
    loop, told = asyncio.get_running_loop(), b""
    async with asyncio.timeout(5):
        while piece := await loop.sock_recv(connection, 4096):
            told += piece
    return told


async def test_connections_that_say_nothing_are_closed(half_open: Callable[[str, bytes], socket.socket]) -> None:
    async with listening(app_of(), headers_s=0.3) as url, httpx.AsyncClient(base_url=url) as client:
        openings = (b"", b"GET /heal", b"POST /whep HTTP/1.1\r\nHost: x\r\n")
        waiting = [half_open(url, said) for said in openings * 10]
        assert (await client.get("/healthz")).status_code == 200
        assert [await closed(connection) for connection in waiting] == [b""] * len(waiting)
        # One request was answered, the second does not end.
        request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        twice = half_open(url, request)
        assert (await asyncio.get_running_loop().sock_recv(twice, 4096)).startswith(b"HTTP/1.1 200")
        twice.send(request[:30])
        await closed(twice)
        assert (await client.get("/healthz")).status_code == 200


async def test_too_many_connections_are_refused_and_the_rest_goes_on(
    half_open: Callable[[str, bytes], socket.socket],
) -> None:
    async with listening(app_of(), headers_s=0.5, max_connections=20) as url:
        waiting = [half_open(url, b"GET / HTTP/1.1\r\n") for _ in range(40)]
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/healthz")).status_code == 503
            await asyncio.gather(*map(closed, waiting))
            assert (await client.get("/healthz")).status_code == 200


async def test_a_body_that_never_comes_is_given_up(
    half_open: Callable[[str, bytes], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.3)
    head = b"POST /api/prompt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    async with listening(app_of()) as url:
        told = await closed(half_open(url, head + b"Content-Length: 99\r\n\r\n{"))
    assert told.startswith(b"HTTP/1.1 408")
    assert b"the body was not there after 0.3 s" in told


def test_every_route_that_reads_a_body_tells_that_it_may_give_up() -> None:
    routes = app_of(uploads=Path("never-made")).openapi()["paths"].values()
    reading = [route for methods in routes for route in methods.values() if "requestBody" in route]
    assert len(reading) == 6
    assert [route["summary"] for route in reading if "408" not in route["responses"]] == []


OFFER = asyncio.run(offer_sdp())


@st.composite
def broken_offers(draw: st.DrawFn) -> str:
    """A good offer with some lines gone, doubled, cut, moved or with other characters in them."""
    lines = OFFER.split("\r\n")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        change = draw(st.sampled_from(["drop", "double", "cut", "swap", "number", "text"]))
        if change == "drop":
            del lines[at]
        elif change == "double":
            lines.insert(at, line)
        elif change == "cut":
            lines[at] = line[: draw(st.integers(0, len(line)))]
        elif change == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], line
        elif change == "number":
            number = str(draw(st.integers(-(2**70), 2**70)))
            lines[at] = "".join(number if c.isdigit() and i % 3 == 0 else c for i, c in enumerate(line))
        else:
            lines[at] = line[: len(line) // 2] + draw(st.text(max_size=12))
    return "\r\n".join(lines)


@pytest.mark.parametrize(("endpoint", "statuses"), [("/whep", {201, 400, 406}), ("/whip", {201, 400, 406, 422})])
@settings(max_examples=30)
@given(offer=broken_offers())
def test_no_offer_makes_the_server_fail(endpoint: str, statuses: set[int], offer: str) -> None:
    app = app_of(max_viewers=3)

    async def send() -> None:
        async with live_of(app) as client:
            sdp = offer if endpoint == "/whep" else offer.replace("a=recvonly", "a=sendonly")
            answer = await client.post(endpoint, content=sdp.encode("utf-8", "replace"), headers=SDP)
            assert answer.status_code in statuses, answer.text
            if answer.status_code == 201:
                assert (await client.delete(answer.headers["location"])).status_code == 200

    asyncio.run(send())


@asynccontextmanager
async def live_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as client:
        await until(client, lambda status: status["state"] == "live")
        yield client


def test_no_thread_outlives_the_tests() -> None:
    ours = ("generation", "media-encoder", "recording")
    left = [thread for thread in threading.enumerate() if thread.name.startswith(ours)]
    for thread in left:
        # The last test's host has told its threads to end; on a busy machine one may still be about to.
        thread.join(5.0)
    assert not [thread.name for thread in left if thread.is_alive()]
