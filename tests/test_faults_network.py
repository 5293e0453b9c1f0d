"""Faults of the network and of the process, against a real server process: packets lost, late and malformed, a
process that is stopped for five seconds, one that is told to end while it records."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pylibsrtp
import pytest
from aiortc import RTCRtpSender
from aiortc.rtp import RtpPacket

from scope_streaming.media.timeline import TICKS_PER_SECOND
from tests.fakes.camera_sender import camera
from tests.fakes.coded_stream import read_back
from tests.fakes.lossy_path import LossyPath
from tests.fakes.machine import observed_machine
from tests.fakes.network_viewer import FRAME_RATE, Server, joined, running_server

pytestmark = pytest.mark.network

BAD_S = 7
SMALL = ("--height", "64", "--width", "320", "--frames", "25")


UPLOAD_HEAD = (
    b"POST /api/uploads HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: 1000000\r\n\r\n"
)


async def until_there(directory: Path) -> None:
    """A file is in it. Fails after 5 s."""
    async with asyncio.timeout(5):
        while not await asyncio.to_thread(lambda: list(directory.glob("*"))):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


async def settled(server: Server) -> None:
    async with server.client() as client, asyncio.timeout(20):
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)


async def test_five_percent_loss_and_200_ms_jitter_cost_the_viewer_no_picture() -> None:
    """Lost packets are asked for again. When the network is well, so is the viewer."""
    path = LossyPath()
    with running_server(*SMALL) as server:
        async with observed_machine() as machine, joined(server, path) as viewer:
            await asyncio.sleep(3)
            path.loss, path.jitter_s = 0.05, 0.2
            await asyncio.sleep(1)
            viewer.taken()
            await asyncio.sleep(BAD_S)
            bad, lost, passed = viewer.taken(), path.lost, path.passed
            path.loss = path.jitter_s = 0.0
            await asyncio.sleep(2)
            viewer.taken()
            await asyncio.sleep(4)
            well = viewer.taken()
            status = await server.status()
            async with server.client() as client:
                scraped = (await client.get("/metrics")).text
    assert lost > 10
    assert passed > 60 * BAD_S
    assert bad.received_share() > 0.9
    assert len(bad.video) > 0.85 * BAD_S * FRAME_RATE
    assert bad.stalls_s(machine, over_s=1.0) == []
    assert abs(np.median(bad.lip_sync_s())) <= 0.040
    assert well.received_share() == 1
    assert well.stalls_s(machine, over_s=0.4) == []
    assert max(map(abs, well.lip_sync_s())) <= 0.040
    assert machine.own_stalls(status["stalls"]) == 0
    assert "scope_ltx_viewer_round_trip_seconds{" in scraped


async def test_a_network_that_is_gone_for_five_seconds_costs_no_more_than_that() -> None:
    path = LossyPath()
    with running_server(*SMALL) as server:
        async with observed_machine() as machine, joined(server, path) as viewer:
            await asyncio.sleep(3)
            path.cut = True
            await asyncio.sleep(1)
            viewer.taken()
            await asyncio.sleep(4)
            assert not viewer.taken().video
            path.cut = False
            await asyncio.sleep(5)
            seen = viewer.taken()
            assert (await server.status())["viewers"] == 1
    assert len(seen.video) > 3 * FRAME_RATE
    # It waits for a keyframe, which it asks for, and then it is up to date.
    assert seen.stalls_s(machine, over_s=0.4, since_s=seen.video[-2 * FRAME_RATE][0]) == []
    assert max(map(abs, seen.lip_sync_s()[-20:])) <= 0.040


HEADS = (b"", b"\x80", b"\x80\x60", b"\x80\xc8\x00", b"\x81\xc9\xff\xff", b"\x9f\x66", b"\xbf\xff", b"\x00\x01")
STUN = b"\x00\x01\xff\xff\x21\x12\xa4\x42" + bytes(12)
DTLS = bytes.fromhex("16fefd0000000000000000") + b"\xff\xff"


def malformed_packets(count: int) -> list[bytes]:
    """RTP, RTCP, STUN and DTLS as far as the first bytes say; what follows is nothing."""
    chance = random.Random(3)
    heads = [chance.choice((*HEADS, STUN, DTLS)) for _ in range(count)]
    return [head + chance.randbytes(chance.choice((0, 3, 20, 900))) for head in heads]


async def test_packets_that_are_none_disturb_no_viewer() -> None:
    path = LossyPath()
    with running_server(*SMALL) as server:
        async with observed_machine() as machine, joined(server, path) as viewer:
            await asyncio.sleep(3)
            viewer.taken()
            for packet in malformed_packets(400):
                path.inject(packet)
                await asyncio.sleep(0.01)
            seen = viewer.taken()
            assert (await server.status())["viewers"] == 1
    assert seen.received_share() == 1
    assert seen.stalls_s(machine, over_s=0.4) == []


BROKEN = (b"", b"\x7c", b"\x7c\x85", b"\x78\x00", b"\x78\xff\xff\x01", b"\x65", b"\x67", b"\x90\x80")
"""H.264: FU-A, STAP-A and single units, cut off. VP8: descriptors that are longer than the packet."""


async def send_malformed(sender: RTCRtpSender, payload_type: int, count: int) -> int:
    """Packets that decrypt well and whose content is broken: headers that promise more than there is, and pictures
    of noise. They go where the sender's pictures go, by their payload type. Returns how many went out."""
    chance = random.Random(5)
    sent = 0
    for number in range(count):
        packet = RtpPacket(payload_type=payload_type, sequence_number=number, timestamp=number * 3000)
        packet.ssrc = sender._ssrc ^ 1
        packet.payload = chance.choice(BROKEN) + chance.randbytes(chance.choice((0, 1, 40, 1000)))
        data = bytearray(packet.serialize())
        if number % 5 == 0:
            data[0] |= chance.choice((0x20, 0x10, 0x0F))
        # Where even the sender's own library sees that the header cannot be, nothing goes out.
        with suppress(pylibsrtp.Error):
            await sender.transport._send_rtp(bytes(data))
            sent += 1
        await asyncio.sleep(0.005)
    return sent


@pytest.mark.parametrize("codec", ["video/H264", "video/VP8"])
async def test_a_sender_of_broken_pictures_does_not_stop_the_stream(codec: str) -> None:
    """Authenticated as any sender, so nothing before the depacketizer refuses it."""
    with running_server(*SMALL, module="tests.fakes.mirror_server") as server:
        await settled(server)
        async with camera(f"{server.url}whip", 64, 320, codec) as sending, joined(server) as viewer:
            await asyncio.sleep(3)
            transceiver = sending.connection.getTransceivers()[0]
            sent = await send_malformed(transceiver.sender, transceiver._codecs[0].payloadType, 400)
            assert sent > 300
            viewer.taken()
            await asyncio.sleep(4)
            seen = viewer.taken()
            assert (await server.status())["state"] == "live"
        async with camera(f"{server.url}whip", 64, 320, codec), joined(server) as viewer:
            await asyncio.sleep(5)
            again = viewer.taken()
    assert len(seen.video) > 3 * FRAME_RATE
    numbers = [number for _, _, number in again.video[-2 * FRAME_RATE :]]
    assert numbers[-1] - numbers[0] > FRAME_RATE


async def test_a_process_that_is_stopped_for_five_seconds_goes_on_where_it_was(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with running_server(*SMALL, "--recordings", str(tmp_path)) as server:
        async with joined(server) as viewer, server.client() as client:
            await asyncio.sleep(3)
            assert (await client.post("/api/recording")).status_code == 201
            await asyncio.sleep(1.5)
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(5)
            viewer.taken()
            server.process.send_signal(signal.SIGCONT)
            resumed_s = loop.time()
            await asyncio.sleep(5)
            seen = viewer.taken()
            stopped = (await client.delete("/api/recording")).json()
            status = await server.status()
    assert (status["stalls"], status["viewers"]) == (1, 1)
    assert status["stall_s"] == pytest.approx(5, abs=0.6)
    # Picture is back at once, and what was due meanwhile does not come in a burst.
    first_s = seen.video[0][0] - resumed_s
    assert first_s < 0.6
    in_a_second = sum(resumed_s < arrived_s < resumed_s + 1 for arrived_s, _, _ in seen.video)
    assert in_a_second < 2 * FRAME_RATE
    assert seen.received_share() == 1
    assert max(map(abs, seen.lip_sync_s()[-20:])) <= 0.040
    assert stopped["error"] is None
    written = read_back(tmp_path / stopped["files"][0])
    # The pause is a gap in the recording, as it was one for the viewers.
    assert max(np.diff([float(ticks) for ticks in written.pictures])) / TICKS_PER_SECOND == pytest.approx(
        5, abs=0.6
    )


@pytest.mark.parametrize("prompt", ["a red ball", "hang"])
async def test_sigterm_ends_it_within_two_seconds_with_the_recording_closed(tmp_path: Path, prompt: str) -> None:
    """While a file is on its way to it, and also while the device does not answer: "hang" is a chunk that takes a
    minute."""
    loop = asyncio.get_running_loop()
    recordings, uploads = tmp_path / "recordings", tmp_path / "uploads"
    with running_server(*SMALL, "--recordings", str(recordings), "--uploads", str(uploads)) as server:
        async with joined(server), server.client() as client:
            await asyncio.sleep(2)
            assert (await client.post("/api/recording")).status_code == 201
            await asyncio.sleep(3)
            await client.post("/api/prompt", json={"prompt": prompt})
            await asyncio.sleep(1)
            recorded = (await client.get("/api/recording")).json()
            _, sending = await asyncio.open_connection("127.0.0.1", httpx.URL(server.url).port)
            sending.write(UPLOAD_HEAD + b"\x89PNG\r\n\x1a\n" + bytes(1000))
            await until_there(uploads)
            server.process.terminate()
            told_s = loop.time()
            await asyncio.to_thread(server.process.wait, 10)
            took_s = loop.time() - told_s
            sending.close()
    assert took_s < 2.0
    assert list(uploads.iterdir()) == []
    written = read_back(recordings / recorded["files"][0])
    assert float(written.pictures[-1]) / TICKS_PER_SECOND > recorded["seconds"] - 0.2
    assert float(written.sounds[-1]) / TICKS_PER_SECOND > recorded["seconds"] - 0.2
