"""The mirror server in a process of its own, and the senders and players that tests set against it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import av
import httpx
import pytest

ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's own, for which its packages bring GStreamer."""
GST_PACKAGES = (
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly "
    "gstreamer1.0-libav gstreamer1.0-nice python3-gst-1.0 gir1.2-gst-plugins-bad-1.0"
)
GST_PROBE = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstWebRTC', '1.0'); "
    "from gi.repository import Gst, GstWebRTC; Gst.init(None); names = ['webrtcbin', 'nicesrc', 'x264enc', "
    "'avdec_h264', 'opusenc', 'vp8enc', 'level']; missing = [n for n in names if not Gst.ElementFactory.find(n)]; "
    "raise SystemExit(' '.join(missing) or 0)"
)


@contextmanager
def mirror_server(*options: str) -> Iterator[str]:
    """Its URL, without a slash at the end."""
    command = [sys.executable, "-m", "tests.fakes.mirror_server", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip().rstrip("/")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stdout.close()


@asynccontextmanager
async def ffmpeg_sending(url: str, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """FFmpeg's WHIP muxer sends numbered pictures and the test tone. Skips as `gst_running`."""
    if "whip" not in av.formats_available:
        missing(f"PyAV {av.__version__} was built without FFmpeg's WHIP muxer: install av>=16 from its wheels")
    command = [sys.executable, "-m", "tests.fakes.whip_sender", f"{url}/whip", *options]
    async with running(command) as process:
        yield process


@asynccontextmanager
async def gst_running(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`tests/fakes/gst_peer.py`. Skips the test when GStreamer is missing; fails it where it must not be."""
    probe = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON, "-c", GST_PROBE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    _, said = await probe.communicate()
    if probe.returncode:
        missing(f"GStreamer is not complete here ({said.decode().strip()[-200:]}): apt install {GST_PACKAGES}")
    async with running([SYSTEM_PYTHON, str(ROOT / "tests/fakes/gst_peer.py"), *arguments]) as process:
        yield process


def missing(reason: str) -> NoReturn:
    """Leaves the test out; fails it where every peer has to be there."""
    if os.environ.get("SCOPE_LTX_ALL_PEERS"):
        pytest.fail(reason)
    pytest.skip(reason)


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def status_of(url: str, token: str = "") -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        found: dict[str, Any] = (await client.get("/api/status")).json()
        return found


async def noted(url: str, words: str | None, seconds: float) -> None:
    """Until a note has these words; None: until there are no notes."""
    async with asyncio.timeout(seconds):
        while True:
            notes = (await status_of(url))["notes"]
            if (words is None and not notes) or any(words is not None and words in note for note in notes):
                return
            await asyncio.sleep(0.1)
