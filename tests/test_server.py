from __future__ import annotations

import asyncio
import json
import mimetypes
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.config import LTX2Config
from scope_ltx.errors import CheckpointError, GenerationCancelled
from scope_ltx.hosts.live.api import create_app
from scope_ltx.hosts.live.problems import MAX_JSON_BYTES
from scope_ltx.hosts.live.serve import bind, url_of
from scope_ltx.request import Chunk, ChunkRequest, Generator
from scope_streaming.clock import SystemClock
from tests.fakes.generator import TestCardGenerator

CONFIG = LTX2Config(height=64, width=320, num_frames=9)
SDP = {"content-type": "application/sdp"}
ROOT = Path(__file__).parents[1]


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


async def test_the_page_answers_while_the_model_loads() -> None:
    loaded = threading.Event()

    def start() -> Generator:
        assert loaded.wait(10)
        return TestCardGenerator()

    async with serving(app_of(start)) as client:
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        page = await client.get("/")
        assert page.status_code == 200
        assert "<html" in page.text
        assert page.headers["cache-control"] == "no-cache"
        assert (await client.get("/api/prompt")).json() == {"prompt": "a red ball"}
        status = (await client.get("/api/status")).json()
        assert (status["state"], status["chunk"], status["prompt"]) == ("loading", None, None)
        assert_problem(await client.get("/readyz"), 503, "no chunk was made yet")

        refused = await client.post("/whep", content=await offer_sdp(), headers=SDP)
        assert_problem(refused, 409, "the model is loading")
        assert int(refused.headers["retry-after"]) > 0

        loaded.set()
        await until(client, lambda status: status["state"] == "live")
        assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_a_model_that_cannot_be_loaded_is_told_everywhere() -> None:
    def start() -> Generator:
        raise CheckpointError(Path("vae.safetensors"), "the file is missing", advice="Run the download.")

    async with serving(app_of(start)) as client:
        status = await until(client, lambda status: status["state"] == "error")
        assert status["last_error"] == "vae.safetensors: the file is missing. Run the download."
        assert_problem(await client.get("/readyz"), 503, "the file is missing")
        assert_problem(await client.post("/whep", content=await offer_sdp(), headers=SDP), 409, "missing")
        assert (await client.get("/healthz")).status_code == 200


async def test_status_tells_what_is_on_air() -> None:
    async with live() as client:
        status = await until(client, lambda status: status["chunk"] is not None)
        assert status["prompt"] == "a red ball"
        assert status["model"] == "fake"
        assert status["real_time_factor"] == pytest.approx(9 / 24)
        assert status["buffer_s"] > 0
        assert status["last_error"] is None
        await client.post("/api/prompt", json={"prompt": "a blue ball"})
        await until(client, lambda status: status["prompt"] == "a blue ball")


async def test_parameters_change_and_say_what_was_snapped() -> None:
    async with live() as client:
        schema = (await client.get("/api/schema")).json()
        assert schema["properties"]["num_steps"]["ltx"]["kind"] == "live"
        answer = await client.patch("/api/parameters", json={"height": 70, "num_steps": 4})
        assert answer.status_code == 200
        body = answer.json()
        assert (body["parameters"]["height"], body["parameters"]["num_steps"]) == (64, 4)
        assert [sentence.split(":")[0] for sentence in body["adjustments"]] == ["height 70 became 64"]
        assert (await client.get("/api/parameters")).json() == body["parameters"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ('{"frame_rate": NaN}', {"frame_rate"}),
        ('{"frame_rate": 1e999}', {"frame_rate"}),
        ('{"num_steps": 21, "i2v_strength": -1}', {"num_steps", "i2v_strength"}),
        ('{"height": "384"}', {"height"}),
        ('{"sigmas": [1.0, 0.5]}', {"sigmas"}),
        ('{"no_such": 1, "self": 2}', {"no_such", "self"}),
        ('{"\\ud800": 1}', {"body"}),
        ("[1, 2]", {"body"}),
        ("NaN", {"body"}),
    ],
)
async def test_bad_values_are_refused_by_field_and_change_nothing(body: str, fields: set[str]) -> None:
    async with serving(app_of()) as client:
        answer = await client.patch("/api/parameters", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        problems = answer.json()["detail"]
        assert {problem["loc"][-1] for problem in problems} == fields
        assert all(problem["msg"] for problem in problems)
        assert (await client.get("/api/parameters")).json() == CONFIG.model_dump(mode="json")


async def test_load_parameters_are_set_at_start() -> None:
    async with serving(app_of()) as client:
        refused = await client.patch("/api/parameters", json={"ffn_chunk_size": 1024, "num_steps": 4})
        assert_problem(refused, 409, "ffn_chunk_size", "set at start")
        assert (await client.get("/api/parameters")).json()["num_steps"] == 8
        same = await client.patch("/api/parameters", json={"ffn_chunk_size": 4096, "num_steps": 4})
        assert same.json()["parameters"]["num_steps"] == 4


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/api/parameters"), ("POST", "/api/prompt")])
async def test_bodies_that_are_no_json_are_refused(method: str, path: str) -> None:
    is_json = {"content-type": "application/json; charset=utf-8"}
    async with serving(app_of()) as client:
        form = await client.request(method, path, data={"prompt": "x"})
        assert_problem(form, 415, "application/json", "application/x-www-form-urlencoded")
        assert_problem(await client.request(method, path, content=b"{}"), 415, "got none")
        for body in (b"", b"{", b"\xff\xfe", b"[" * 60_000, b'{"a": ' + b"1" * 5_000 + b"}"):
            assert_problem(await client.request(method, path, content=body, headers=is_json), 400, "no JSON")
        long = b'{"prompt": "' + b"x" * MAX_JSON_BYTES + b'"}'
        assert_problem(await client.request(method, path, content=long, headers=is_json), 413, "65536 bytes")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": 7}, "must be a string"),
        ({}, "must be a string"),
        ({"prompt": "x" * 10_001}, "10001 characters"),
        ({"prompt": "a \ud800"}, "lone surrogate"),
        ({"prompt": "x", "negative": "y"}, "no such field"),
    ],
)
async def test_prompts_that_cannot_be_used_are_refused(body: dict[str, Any], message: str) -> None:
    async with serving(app_of()) as client:
        content = json.dumps(body)
        refused = await client.post("/api/prompt", content=content, headers={"content-type": "application/json"})
        assert refused.status_code == 422
        assert message in refused.json()["detail"][0]["msg"]
        accepted = await client.post("/api/prompt", json={"prompt": " a blue ball "})
        assert accepted.json() == {"prompt": "a blue ball"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([*LTX2Config.model_fields, "x"]), JSON, max_size=4))
def test_no_json_object_makes_the_server_fail(changes: dict[str, Any]) -> None:
    app = app_of()

    async def send() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://live") as client:
            headers = {"content-type": "application/json"}
            answer = await client.patch("/api/parameters", content=json.dumps(changes), headers=headers)
            assert answer.status_code in (200, 409, 422), answer.text
            assert answer.json()

    asyncio.run(send())


async def test_a_failing_generator_is_shown_and_a_change_tries_it_again_at_once() -> None:
    class Picky(TestCardGenerator):
        def generate(self, request: ChunkRequest) -> Chunk:
            if request.config.i2v_image is not None:
                raise ValueError("i2v_image: cannot read gone.png")
            return super().generate(request)

    async with live(start=Picky) as client:
        await client.patch("/api/parameters", json={"i2v_image": "gone.png"})
        status = await until(client, lambda status: status["state"] == "error")
        assert status["last_error"] == "i2v_image: cannot read gone.png"
        await client.patch("/api/parameters", json={"i2v_image": None})
        await until(client, lambda status: status["state"] == "live")
        status = await until(client, lambda status: status["stalls"] > 0)
        assert status["last_error"] is None


async def test_joining_and_leaving() -> None:
    async with live() as client:
        answer = await client.post("/whep", content=await offer_sdp(), headers=SDP)
        assert answer.status_code == 201
        assert answer.headers["content-type"].startswith("application/sdp")
        assert "a=candidate:" in answer.text
        assert answer.text.count("a=sendonly") == 2
        assert re.search(r"m=video \d+ UDP/TLS/RTP/SAVPF (\d+)[^\0]*a=rtpmap:\1 H264/90000", answer.text)
        resource = answer.headers["location"]
        assert (await client.get("/api/status")).json()["viewers"] == 1
        assert_problem(await client.patch(resource), 405, "not trickled")
        assert (await client.delete(resource)).status_code == 200
        assert (await client.get("/api/status")).json()["viewers"] == 0
        assert_problem(await client.delete(resource), 404, "no such viewer")


async def test_modules_are_javascript_whatever_the_machine_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' registry may call .js text/plain, and then no browser runs the page's modules."""
    monkeypatch.setitem(mimetypes.types_map, ".js", "text/plain")
    async with serving(app_of()) as client:
        name = re.findall(r'src="([^"]+\.js)"', (await client.get("/")).text)[0]
        module = await client.get(f"/{name.lstrip('./')}")
        assert module.status_code == 200
        assert module.headers["content-type"] == "text/javascript; charset=utf-8"
        assert (await client.get("/gone.js")).status_code == 404


async def test_other_pages_may_watch_but_not_steer() -> None:
    async with serving(app_of()) as client:
        for path in ("/whep", "/whep/x"):
            preflight = await client.options(path, headers={"origin": "http://elsewhere"})
            assert preflight.status_code == 204
            assert preflight.headers["access-control-allow-origin"] == "*"
            assert "POST" in preflight.headers["access-control-allow-methods"]
        refused = await client.post("/whep", content="v=0", headers=SDP)
        assert refused.headers["access-control-allow-origin"] == "*"
        prompt = await client.get("/api/prompt", headers={"origin": "http://elsewhere"})
        assert "access-control-allow-origin" not in prompt.headers


async def test_one_kind_or_vp8_alone_will_do() -> None:
    async with live() as client:
        sound = await client.post("/whep", content=await offer_sdp("audio"), headers=SDP)
        assert sound.status_code == 201
        assert "m=video" not in sound.text
        vp8 = await client.post("/whep", content=await offer_sdp(codecs="video/VP8"), headers=SDP)
        assert vp8.status_code == 201
        assert "VP8/90000" in vp8.text


async def test_places_are_limited_and_come_back() -> None:
    async with live(max_viewers=1) as client:
        first = await client.post("/whep", content=await offer_sdp(), headers=SDP)
        refused = await client.post("/whep", content=await offer_sdp(), headers=SDP)
        assert_problem(refused, 503, "all 1 places")
        assert int(refused.headers["retry-after"]) > 0
        await client.delete(first.headers["location"])
        assert (await client.post("/whep", content=await offer_sdp(), headers=SDP)).status_code == 201


async def test_offers_that_are_no_offers_are_refused() -> None:
    good = await offer_sdp()
    no_codec = re.sub(r"(H264|VP8)/90000", "AV1/90000", good)
    cases: list[tuple[bytes, int, str]] = [
        (b"", 400, 'start with the line "v=0"'),
        (b"hello", 400, 'start with the line "v=0"'),
        (b"\xff\xfe", 400, "not UTF-8"),
        (b"v=0\r\n", 400, "neither an m=video nor an m=audio"),
        (good.replace("a=ice-ufrag", "a=x").encode(), 400, "m=video has no a=ice-ufrag"),
        (good.replace("a=fingerprint", "a=x").encode(), 400, "m=video has no a=fingerprint line"),
        (good.replace("a=mid:1", "a=mid:7").encode(), 400, "bundles 1, which no a=mid line names"),
        (re.sub(r"m=video \d+", "m=video port", good).encode(), 400, "it cannot be understood"),
        (no_codec.encode(), 406, "H264"),
        (good.encode() + b"a=" + b"x" * 300_000, 413, "262144 bytes"),
    ]
    async with live() as client:
        for body, status, words in cases:
            assert_problem(await client.post("/whep", content=body, headers=SDP), status, words)
        assert_problem(await client.post("/whep", json={"sdp": good}), 415, "application/sdp", "json")
        assert (await client.get("/api/status")).json()["viewers"] == 0


async def test_an_offer_with_any_line_missing_never_fails_the_server() -> None:
    lines = (await offer_sdp()).splitlines(keepends=True)
    media = [i for i, line in enumerate(lines) if line.startswith("m=")]
    # The second medium repeats the first one's lines, so its own are enough to leave out.
    async with live(max_viewers=100) as client:
        for missing in range(media[1]):
            offer = "".join(line for i, line in enumerate(lines) if i != missing)
            answer = await client.post("/whep", content=offer, headers=SDP)
            assert answer.status_code in (201, 400, 406), (lines[missing], answer.text)
            if answer.status_code == 201:
                await client.delete(answer.headers["location"])
        assert (await client.get("/api/status")).json()["viewers"] == 0


async def test_openapi_describes_what_goes_in_and_out() -> None:
    async with serving(app_of()) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert {"/api/parameters", "/api/prompt", "/api/status", "/whep", "/healthz", "/readyz"} <= paths.keys()
        sent = paths["/api/parameters"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
        assert sent["properties"].keys() == LTX2Config.model_fields.keys()
        assert "application/sdp" in paths["/whep"]["post"]["requestBody"]["content"]
        assert "409" in paths["/whep"]["post"]["responses"]


class Patient(TestCardGenerator):
    """Works on each chunk until it is cancelled."""

    def __init__(self, working: threading.Event) -> None:
        super().__init__()
        self._working = working

    def generate(self, request: ChunkRequest) -> Chunk:
        self._working.set()
        assert request.cancel.wait(10)
        raise GenerationCancelled("as asked")


async def test_shutdown_cancels_the_chunk_and_leaves_no_thread() -> None:
    working = threading.Event()
    async with serving(app_of(lambda: Patient(working))):
        assert await asyncio.to_thread(working.wait, 10)
        asked_s = time.monotonic()
    assert time.monotonic() - asked_s < 2.0
    names = {thread.name for thread in threading.enumerate()}
    assert not {name for name in names if name.startswith(("generation", "media-encoder"))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_within_two_seconds(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.fakes.live_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        while httpx.get(f"{url}readyz").status_code != 200:
            time.sleep(0.05)
        asked_s = time.monotonic()
        process.send_signal(number)
        process.wait(10)
        assert time.monotonic() - asked_s < 2.0


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}/"
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: .* --port"):
            bind("127.0.0.1", port)


def test_an_empty_prompt_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        create_app(TestCardGenerator, CONFIG, " ", clock=SystemClock(), nonce="", model="fake")
