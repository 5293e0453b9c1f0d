"""WHEP over HTTP: offers, places and who may ask."""

from __future__ import annotations

import re
import threading

from scope_ltx.hosts.live.stream.loading import ModelLoadError
from tests.fakes.generator import Ending, TestCardGenerator
from tests.fakes.live_app import SDP, app_of, assert_problem, live, offer_sdp, serving, until


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


async def test_the_endpoint_describes_itself() -> None:
    async with live() as client:
        for method in ("OPTIONS", "HEAD"):
            answer = await client.request(method, "/whep")
            assert answer.status_code == (204 if method == "OPTIONS" else 200)
            assert answer.headers["accept-post"] == "application/sdp"
            assert "POST" in answer.headers["allow"]
        assert (await client.options("/whep/x")).headers["allow"] == "DELETE, OPTIONS"
        for method, path in (("GET", "/whep"), ("PUT", "/whep"), ("GET", "/whep/x"), ("POST", "/whep/x")):
            assert_problem(await client.request(method, path), 405)


async def test_without_a_stream_a_viewer_is_told_to_wait() -> None:
    loaded = threading.Event()

    def start() -> TestCardGenerator:
        loaded.wait(10)
        return TestCardGenerator()

    async with serving(app_of(start)) as client:
        head = await client.head("/whep")
        refused = await client.post("/whep", content=await offer_sdp(), headers=SDP)
        loaded.set()
        assert head.status_code == 409
        assert int(head.headers["retry-after"]) > 0
        assert_problem(refused, 409, "no picture yet")
        assert int(refused.headers["retry-after"]) > 0
        await until(client, lambda status: status["state"] == "live")
        assert (await client.head("/whep")).status_code == 200


async def test_when_the_stream_is_over_a_viewer_is_told_so() -> None:
    async with serving(app_of(lambda: Ending(8, ModelLoadError("the device has gone")))) as client:
        await until(client, lambda status: status["state"] == "live")
        ended = await until(client, lambda status: status["state"] == "error")
        refused = await client.post("/whep", content=await offer_sdp(), headers=SDP)
        ready = await client.get("/readyz")
    assert ended["last_error"] == "the device has gone"
    assert_problem(refused, 409, "the device has gone. Start the server again")
    assert "retry-after" not in {*refused.headers, *ready.headers}
    assert_problem(ready, 503, "the device has gone")


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
