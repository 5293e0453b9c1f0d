"""WHIP over HTTP: offers, places, candidates, and what is made of what a sender announces."""

from __future__ import annotations

import asyncio
import re

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from av.video.reformatter import Colorspace

from scope_ltx.hosts.live.http.problems import ProblemError
from scope_ltx.hosts.live.webrtc.h264_offer import answer_to_sender, h264_parameters, offer_to_aiortc
from scope_ltx.hosts.live.webrtc.ingest import Ingest
from scope_ltx.hosts.live.webrtc.received import SoundJoin, rgb_covering, stereo_samples
from scope_ltx.hosts.live.webrtc.trickle import read_fragment
from tests.fakes.live_app import SDP, app_of, assert_problem, live, serving

FRAGMENT = {"content-type": "application/trickle-ice-sdpfrag"}
CANDIDATE = "a=candidate:1 1 UDP 2130706431 127.0.0.1 9999 typ host"
OBS = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
PROFILES = {
    "OBS, constrained baseline": OBS,
    "FFmpeg, baseline": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001e",
    "main": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d0028",
    "high": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640034",
    "constrained high": "packetization-mode=1;profile-level-id=640c1f",
    "GStreamer, with parameter sets": "packetization-mode=1;profile-level-id=f4001f;sprop-parameter-sets=Z/QA,aM4",
    "one NAL unit a packet": "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f",
    "a level that does not exist": "packetization-mode=1;profile-level-id=4d00ff",
    "nothing said": "",
}


async def sending_offer(*kinds: str) -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind in kinds or ("video", "audio"):
        connection.addTransceiver(kind, direction="sendonly")
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp
    await connection.close()
    return sdp


def h264_only(offer: str, parameters: str) -> str:
    """The offer with one H.264 of these parameters and no other picture codec."""
    sound, picture = re.split(r"(?=m=audio)", offer)[::-1]
    head, picture = re.split(r"(?=m=video)", picture)
    kept = re.sub(r"(?m)^a=(rtpmap|fmtp|rtcp-fb):.*\r\n", "", picture)
    kept = re.sub(r"m=video (\d+) (\S+) .*", r"m=video \1 \2 106", kept).replace("a=ssrc-group", "a=x-group")
    fmtp = f"a=fmtp:106 {parameters}\r\n" if parameters else ""
    return head + kept + f"a=rtpmap:106 H264/90000\r\n{fmtp}" + sound


async def test_sending_and_leaving() -> None:
    async with live() as client:
        answer = await client.post("/whip", content=await sending_offer(), headers=SDP)
        assert answer.status_code == 201
        assert answer.headers["content-type"].startswith("application/sdp")
        assert answer.headers["accept-patch"] == FRAGMENT["content-type"]
        assert re.fullmatch(r'"\S+"', answer.headers["etag"])
        assert "a=candidate:" in answer.text
        assert answer.text.count("a=recvonly") == 2
        resource = answer.headers["location"]
        assert (await client.delete(resource)).status_code == 200
        assert_problem(await client.delete(resource), 404, "no such sender")


async def test_the_server_takes_the_part_of_the_dtls_server_where_it_may_choose() -> None:
    """GStreamer's certificate is RSA, which aiortc as a client has no cipher for."""
    offer = await sending_offer()
    assert "a=setup:actpass" in offer
    async with live() as client:
        for offered, answered in (("actpass", "passive"), ("active", "passive"), ("passive", "active")):
            sdp = offer.replace("a=setup:actpass", f"a=setup:{offered}")
            answer = await client.post("/whip", content=sdp, headers=SDP)
            assert set(re.findall(r"a=setup:(\w+)", answer.text)) == {answered}
            await client.delete(answer.headers["location"])


async def test_the_status_tells_who_sends() -> None:
    async with live() as client:
        nobody = (await client.get("/api/status")).json()["sender"]
        assert nobody == {
            "state": "none",
            "picture": False,
            "sound": False,
            "height": None,
            "width": None,
            "frames": 0,
        }
        await client.post("/whip", content=await sending_offer("video"), headers=SDP)
        sender = (await client.get("/api/status")).json()["sender"]
        assert (sender["state"], sender["picture"], sender["sound"]) == ("connecting", True, False)


async def test_the_endpoint_describes_itself() -> None:
    async with serving(app_of()) as client:
        options = await client.options("/whip")
        assert options.status_code == 204
        assert options.headers["accept-post"] == "application/sdp"
        assert (await client.options("/whip/x")).headers["accept-patch"] == FRAGMENT["content-type"]
        for method, path in (("GET", "/whip"), ("PUT", "/whip"), ("GET", "/whip/x"), ("POST", "/whip/x")):
            refused = await client.request(method, path)
            assert_problem(refused, 405)
            assert "OPTIONS" in refused.headers["allow"]


async def test_a_camera_can_come_while_the_model_loads() -> None:
    loaded = asyncio.Event()
    async with serving(app_of()) as client:
        answer = await client.post("/whip", content=await sending_offer("video"), headers=SDP)
        loaded.set()
        assert answer.status_code == 201
        assert "m=audio" not in answer.text


async def test_one_sender_at_a_time() -> None:
    async with live() as client:
        first = await client.post("/whip", content=await sending_offer(), headers=SDP)
        refused = await client.post("/whip", content=await sending_offer(), headers=SDP)
        assert_problem(refused, 503, "another sender is live")
        assert int(refused.headers["retry-after"]) > 0
        await client.delete(first.headers["location"])
        assert (await client.post("/whip", content=await sending_offer(), headers=SDP)).status_code == 201


async def test_of_two_newcomers_one_replaces_a_silent_sender() -> None:
    """Both find it silent, and wait for its connection to close."""

    class Nowhere:
        def push_frame(self, *_: object) -> None: ...
        def push_audio(self, *_: object) -> None: ...

    ingest = Ingest(Nowhere(), lambda: (64, 64), silent_s=2.0)
    first, *newcomers = [await sending_offer("video") for _ in range(3)]
    await ingest.publish(first)
    await asyncio.sleep(2.1)
    answers = await asyncio.gather(*map(ingest.publish, newcomers), return_exceptions=True)
    (refused,) = [one for one in answers if isinstance(one, ProblemError)]
    assert refused.status == 503
    ((key, _, _),) = [one for one in answers if isinstance(one, tuple)]
    assert await ingest.leave(key)
    assert ingest.report.state == "none"
    await ingest.close()


async def test_offers_that_cannot_be_taken_are_refused() -> None:
    good = await sending_offer()
    picture = re.split(r"(?=m=video)", good.split("m=audio")[0])[1]
    cases: list[tuple[bytes, int, str]] = [
        (b"", 400, 'start with the line "v=0"'),
        (b"\xff\xfe", 400, "not UTF-8"),
        (good.replace("a=sendonly", "a=recvonly").encode(), 400, "a=sendonly"),
        (good.replace("a=fingerprint", "a=x").encode(), 400, "no a=fingerprint line"),
        (re.sub(r"(H264|VP8)/90000", "AV1/90000", good).encode(), 406, "H264 or VP8"),
        (good.replace("opus/48000/2", "speex/16000").encode(), 406, "opus"),
        ((good + picture.replace("a=mid:0", "a=mid:2")).encode(), 422, "2 m=video lines"),
        (good.encode() + b"a=" + b"x" * 300_000, 413, "262144 bytes"),
    ]
    async with live() as client:
        for body, status, words in cases:
            assert_problem(await client.post("/whip", content=body, headers=SDP), status, words)
        assert_problem(await client.post("/whip", json={"sdp": good}), 415, "application/sdp", "json")
        # None of them kept the place.
        assert (await client.post("/whip", content=good, headers=SDP)).status_code == 201


@pytest.mark.parametrize("parameters", PROFILES.values(), ids=PROFILES)
async def test_every_h264_is_taken_and_answered_in_its_own_terms(parameters: str) -> None:
    offer = h264_only(await sending_offer(), parameters)
    async with live() as client:
        answer = await client.post("/whip", content=offer, headers=SDP)
        assert answer.status_code == 201, answer.text
    expected = ";".join(part for part in parameters.split(";") if "sprop" not in part)
    assert h264_parameters(answer.text) == {"106": expected}


async def test_an_offer_of_many_h264_keeps_them_apart() -> None:
    """As browsers offer it. Other codecs' lines stay as they are."""
    offer = await sending_offer()
    known = offer_to_aiortc(offer)
    assert set(h264_parameters(known).values()) == {OBS}
    assert h264_parameters(answer_to_sender(known, offer)) == h264_parameters(offer)
    others = [line for line in offer.splitlines() if "profile-level-id" not in line]
    assert [line for line in known.splitlines() if "profile-level-id" not in line] == others


async def test_candidates_can_be_trickled() -> None:
    offer = await sending_offer()
    username = re.findall(r"a=ice-ufrag:(\S+)", offer)[0]
    fragment = f"a=ice-ufrag:{username}\r\na=ice-pwd:x\r\nm=video 9 RTP/AVP 0\r\na=mid:0\r\n{CANDIDATE}\r\n"
    async with live() as client:
        answer = await client.post("/whip", content=offer, headers=SDP)
        resource, etag = answer.headers["location"], answer.headers["etag"]
        for body in (fragment, fragment + "a=end-of-candidates\r\n"):
            added = await client.patch(resource, content=body, headers={**FRAGMENT, "if-match": etag})
            assert (added.status_code, added.content) == (204, b"")
        cases: list[tuple[str, dict[str, str], int, str]] = [
            (fragment.replace(username, "other"), {"if-match": "*"}, 422, "ICE restart"),
            (f"a=ice-ufrag:{username}\r\n", {}, 422, "neither candidates"),
            (fragment, {"if-match": '"old"'}, 412, etag),
            (fragment.replace("9999", "port"), {}, 400, "no SDP fragment"),
            (fragment + f"{CANDIDATE}\r\n" * 64, {}, 413, "64 candidates"),
        ]
        for body, headers, status, words in cases:
            refused = await client.patch(resource, content=body, headers={**FRAGMENT, **headers})
            assert_problem(refused, status, words)
        assert_problem(await client.patch(resource, content=fragment, headers=SDP), 415, "sdpfrag")
        assert_problem(await client.patch("/whip/x", content=fragment, headers=FRAGMENT), 404, "no such sender")


async def test_an_offer_with_any_line_missing_never_fails_the_server() -> None:
    lines = (await sending_offer()).splitlines(keepends=True)
    media = [i for i, line in enumerate(lines) if line.startswith("m=")]
    async with live() as client:
        for missing in range(media[1]):
            offer = "".join(line for i, line in enumerate(lines) if i != missing)
            answer = await client.post("/whip", content=offer, headers=SDP)
            assert answer.status_code in (201, 400, 406, 422), (lines[missing], answer.text)
            if answer.status_code == 201:
                await client.delete(answer.headers["location"])


@pytest.mark.parametrize(
    "body", [b"\xff", b"a=candidate:1\r\n", b"a=candidate:1 x UDP 1 127.0.0.1 9 typ host\r\n"], ids=repr
)
def test_a_fragment_that_is_none_is_told(body: bytes) -> None:
    with pytest.raises(ProblemError, match="no SDP fragment"):
        read_fragment(body)


def test_lost_sound_leaves_silence_and_a_pause_leaves_none() -> None:
    join = SoundJoin()
    blocks = [(500, 960), (1460, 960), (3380, 960), (2420, 960), (4340, 960), (500_000, 960), (0, 960), (960, 960)]
    assert [join.silence_before(*block) for block in blocks] == [0, 0, 960, None, 0, 0, 0, 0]


def test_pictures_are_scaled_down_to_what_they_have_to_cover() -> None:
    """Never up, never out of shape; and red stays red, whatever matrix the sender's frame has."""
    pixels = np.full((720, 1280, 3), (200, 30, 40), np.uint8)
    for matrix in (Colorspace.ITU601, Colorspace.ITU709):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=matrix
        )
        frame.colorspace = matrix
        for (height, width), shape in {
            (384, 640): (384, 683, 3),
            (320, 640): (360, 640, 3),
            (704, 1280): (720, 1280, 3),
            (1088, 1920): (720, 1280, 3),
        }.items():
            seen = rgb_covering(frame, height, width)
            assert seen.shape == shape
            assert np.abs(seen.astype(int) - (200, 30, 40)).max() <= 4


def test_sound_is_as_loud_as_it_was_sent() -> None:
    interleaved = np.array([[16384, -16384, 0, 32767]], np.int16)
    frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout="stereo")
    np.testing.assert_allclose(stereo_samples(frame), [[0.5, 0], [-0.5, 1]], atol=1e-4)
