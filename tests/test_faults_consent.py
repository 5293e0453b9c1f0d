"""A sender that answers no consent checks, as FFmpeg's: kept while it sends, given up when it is gone."""

from __future__ import annotations

import asyncio

import aioice.ice
import httpx
import pytest

from tests.fakes.camera_sender import camera
from tests.fakes.live_app import app_of, listening
from tests.fakes.lossy_path import LossyPath

pytestmark = pytest.mark.network


async def sending(url: str, state: str, seconds: float) -> None:
    """Until the status tells this of the sender."""
    async with httpx.AsyncClient(base_url=url) as client, asyncio.timeout(seconds):
        while (await client.get("/api/status")).json()["sender"]["state"] != state:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


async def test_a_sender_that_answers_no_check_is_kept_while_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 1.2)
    path = LossyPath()
    async with listening(app_of()) as url, camera(f"{url}/whip", 64, 320, path=path) as sender:
        await sending(url, "live", 10)
        path.deaf = True
        # Six checks would have been made, and each have been waited for.
        await asyncio.sleep(14)
        await sending(url, "live", 5)
        assert sender.connection.connectionState == "connected"
        path.cut = True
        await sending(url, "silent", 10)
        await sending(url, "none", 30)
