"""Senders and players that are not ours, against a real server process on loopback: FFmpeg's WHIP muxer and
GStreamer's webrtcbin send, aiortc and webrtcbin play. The generator mirrors what the camera shows, so the numbers
that the sender draws must come out at the other end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import numpy as np
import pytest

from tests.fakes.generator import read_sweep
from tests.fakes.mirror_process import ffmpeg_sending, gst_running, mirror_server, noted, status_of
from tests.fakes.watcher import Seen, Watcher, watching

pytestmark = pytest.mark.network

TOKEN = "a-token-for-this-test-only"
IDLE_LUMA = 96
CAMERA_FPS = 30


async def sees_the_camera(watcher: Watcher, seconds: float) -> list[Seen]:
    """Three seconds of pictures, once the camera is on air."""
    async with asyncio.timeout(seconds):
        while not (watcher.pictures and watcher.pictures[-1].number):  # noqa: ASYNC110 - the tracks set no event
            await asyncio.sleep(0.1)
    await watcher.until_seen(len(watcher.pictures) + 96, 10)
    return watcher.pictures[-72:]


async def camera_on_air(url: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while (status := await status_of(url))["sender"]["state"] != "live":  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)
        # What is on its way to the screen was made before, and the chunk after that may have begun already.
        while (await status_of(url))["chunk"] < status["chunk"] + 4:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def counts_as_the_camera(numbers: Sequence[int], seconds: float) -> bool:
    """30 pictures a second came in and 24 go out: each shows once, and some are left out. Where a chunk begins, a
    few more may be, or come again: it starts from what is newest just then, on a machine that is busy."""
    steps = np.diff(numbers)
    even = np.mean((steps >= 0) & (steps <= 2))
    per_s = (numbers[-1] - numbers[0]) / seconds
    return bool(even >= 0.85) and 0.7 * CAMERA_FPS < per_s < 1.3 * CAMERA_FPS


@pytest.mark.parametrize("profile", ["baseline", "high"])
async def test_ffmpeg_sends_and_a_viewer_sees_and_hears_it(profile: str) -> None:
    with mirror_server() as url:
        async with ffmpeg_sending(url, "--seconds", "30", "--profile", profile), watching(url) as watcher:
            pictures = await sees_the_camera(watcher, 25)
            sound = np.concatenate(watcher.sound[-100:])
    numbers = [seen.number for seen in pictures]
    assert counts_as_the_camera(numbers, pictures[-1].at_s - pictures[0].at_s), numbers
    pitches = [read_sweep(sound[start : start + 2880]) for start in range(0, len(sound) - 2880, 2880)]
    heard = [pitch for pitch in pitches if pitch is not None]
    assert len(heard) > len(pitches) // 2
    assert np.median(np.diff(heard)) == pytest.approx(0.06, abs=0.01)


@pytest.mark.parametrize("codec", ["h264", "vp8"])
async def test_gstreamer_sends_and_another_one_sees_and_hears_it(codec: str) -> None:
    """Its tone of 700 Hz at a volume of 0.3 is -13.5 dB. Each deletes its resource when it goes."""
    with mirror_server() as url:
        async with gst_running("publish", f"{url}/whip", "--seconds", "60", "--codec", codec) as publisher:
            await camera_on_air(url, 20)
            async with gst_running("play", f"{url}/whep", "--seconds", "6") as player:
                seen, complaint = await asyncio.wait_for(player.communicate(), 20)
            assert player.returncode == 0, complaint.decode()
            told = json.loads(seen)
            assert (await status_of(url))["viewers"] == 0
            publisher.terminate()
            _, complaint = await asyncio.wait_for(publisher.communicate(), 20)
            assert publisher.returncode == 0, complaint.decode()
    assert told["size"] == [384, 640]
    numbers, at_s = told["numbers"][-72:], told["at_s"][-72:]
    assert counts_as_the_camera(numbers, at_s[-1] - at_s[0]), numbers
    assert told["rms_db"] == pytest.approx(-13.5, abs=1)


async def test_a_lost_sender_is_held_and_then_told() -> None:
    """Killed in the middle: no goodbye. The last picture stays for five seconds, then the prompt governs."""
    with mirror_server() as url:
        async with ffmpeg_sending(url, "--seconds", "60") as sender, watching(url) as watcher:
            await sees_the_camera(watcher, 25)
            sender.kill()
            await sender.wait()
            await noted(url, "is held", 5)
            await noted(url, "was lost", 15)
            await watcher.until_seen(len(watcher.pictures) + 72, 10)
            held = [seen.number for seen in watcher.pictures]
            last = watcher.pictures[-1]
            # And the place is free for the next one, though the connection is not given up yet.
            async with ffmpeg_sending(url, "--seconds", "8"):
                await noted(url, None, 15)
    newest = max(held)
    assert 90 < held.count(newest) < 240
    assert last.luma == pytest.approx(IDLE_LUMA, abs=4)


async def test_a_sender_needs_the_token() -> None:
    with mirror_server("--token", TOKEN) as url:
        async with ffmpeg_sending(url, "--seconds", "2") as refused:
            _, complaint = await refused.communicate()
            assert b"401" in complaint
        async with ffmpeg_sending(url, "--seconds", "20", "--token", TOKEN), watching(url, TOKEN) as watcher:
            pictures = await sees_the_camera(watcher, 20)
    assert pictures[-1].number > pictures[0].number
