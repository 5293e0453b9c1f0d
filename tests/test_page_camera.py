"""A camera in a real browser drives the stream: what the page films comes back, tinted, on the same page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Route, expect

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.app import create_app
from scope_streaming.clock import SystemClock
from tests.fakes.browser import LIVE_MS, Visit, chromium, eventually, opened, serving
from tests.fakes.mirror import IDLE, MirrorGenerator

pytestmark = pytest.mark.browser

HEIGHT, WIDTH, CAMERA_FPS = 192, 320, 20
LIGHT, DARK, EACH_S = 210, 60, 3.0
"""The camera films light and dark grey in turn, so long each."""
TINT = (1.0, 0.5, 0.25)
CHUNK_S = 25 / 24
SLOWEST_S = CHUNK_S + 1.0
"""From the camera to the picture. A quiet machine takes under a chunk and 0.25 s (`benchmarks.latency`); this one
films, encodes, decodes twice and draws on two cores."""

WATCH = """async (seconds) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const videos = ["#source-webcam video", "#video"].map((name) => document.querySelector(name));
  const seen = [];
  for (const start = performance.now(); performance.now() - start < seconds * 1000;) {
    const colours = videos.map((video) => {
      context.drawImage(video, 0, 0, 8, 8);
      return [...context.getImageData(4, 4, 1, 1).data].slice(0, 3);
    });
    seen.push([performance.now() / 1000, ...colours.flat()]);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  return seen;
}"""


UNPLUG = """(kind) => {
  const { srcObject } = document.querySelector("#source-webcam video");
  for (const track of srcObject.getTracks().filter((one) => one.kind === kind)) {
    track.stop(); // the page's own stop is silent: the browser tells only of a device that goes
    track.dispatchEvent(new Event("ended"));
  }
}"""


def film(path: Path) -> None:
    """A Y4M file, which Chromium plays in a loop as its camera."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{CAMERA_FPS}:1 Ip A1:1 C420jpeg\n".encode())
        chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
        for grey in (LIGHT, DARK):
            picture = b"FRAME\n" + bytes([grey]) * (WIDTH * HEIGHT) + chroma
            file.write(picture * round(EACH_S * CAMERA_FPS))


@pytest.fixture
def generator() -> MirrorGenerator:
    return MirrorGenerator(TINT)


@pytest.fixture
def app(generator: MirrorGenerator) -> FastAPI:
    config = LTX2Config(height=HEIGHT, width=WIDTH, num_frames=25)
    return create_app(lambda: generator, config, "a tide", clock=SystemClock(), nonce="", model="mirror")


@pytest_asyncio.fixture
async def visit(app: FastAPI, tmp_path: Path) -> AsyncIterator[Visit]:
    film(tmp_path / "camera.y4m")
    camera = f"--use-file-for-fake-video-capture={tmp_path / 'camera.y4m'}"
    async with (
        chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", camera) as browser,
        serving(app) as url,
    ):
        visit = Visit(await browser.new_page(), url)
        async with opened(visit):
            yield visit


async def test_the_picture_follows_the_camera(visit: Visit, generator: MirrorGenerator) -> None:
    await visit.playing()
    before = np.array(await visit.page.evaluate(WATCH, 0.1))
    assert np.abs(before[-1, 4:] - IDLE).max() <= 6

    await visit.page.get_by_role("tab", name="Webcam").click()
    await visit.page.get_by_role("button", name="Open camera").click()
    await expect(visit.page.locator("#camera-state")).to_have_text("Only you see this.")
    assert generator.mirrored == 0
    await visit.page.get_by_role("button", name="Send to the stream").click()
    await expect(visit.page.locator("#camera-state")).to_contain_text("driven by this camera", timeout=LIVE_MS)
    mirrored = generator.mirrored
    await eventually(lambda: generator.mirrored >= mirrored + 4)

    seen = np.array(await visit.page.evaluate(WATCH, 4 * EACH_S))
    at_s, filmed, shown = seen[:, 0], seen[:, 1:4], seen[:, 4:]
    turned_s, followed_s = turns(at_s, filmed), turns(at_s, shown)
    assert len(turned_s) >= 3
    delays_s = []
    for turn_s in turned_s[:-1]:
        delays_s.append(min(after_s for after_s in followed_s if after_s > turn_s) - turn_s)
    # After a stall the server keeps up to half a second in hand, so that there is no second one.
    stall_s = (await visit.page.evaluate("fetch('api/status').then((answer) => answer.json())"))["stall_s"]
    assert max(delays_s) < SLOWEST_S + min(0.5, stall_s), delays_s
    for light in (True, False):
        camera, picture = (np.median(colours[is_light(colours) == light], axis=0) for colours in (filmed, shown))
        assert np.abs(picture - camera * TINT).max() <= 8, (camera, picture)

    await visit.page.get_by_role("button", name="Stop sending").click()
    await expect(visit.page.locator("#camera-state")).to_have_text("Only you see this.")


async def test_a_start_that_was_stopped_leaves_the_next_one_alone(
    visit: Visit, generator: MirrorGenerator
) -> None:
    await visit.playing()
    held = asyncio.Event()

    async def after_all_else(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await visit.page.route("**/whip", after_all_else, times=1)
    await visit.page.get_by_role("tab", name="Webcam").click()
    await visit.page.get_by_role("button", name="Open camera").click()
    send = visit.page.get_by_role("button", name="Send to the stream")
    async with visit.page.expect_request("**/whip"):
        await send.click()
    await visit.page.get_by_role("button", name="Stop sending").click()
    await send.click()
    state = visit.page.locator("#camera-state")
    await expect(state).to_contain_text("driven by this camera", timeout=LIVE_MS)
    async with visit.page.expect_response(lambda response: response.status == 503):
        held.set()
    mirrored = generator.mirrored
    await eventually(lambda: generator.mirrored >= mirrored + 4)
    await expect(state).to_contain_text("driven by this camera")
    await expect(visit.page.get_by_role("alert")).to_have_count(0)


async def test_a_microphone_that_goes_is_told_and_the_picture_goes_on(
    visit: Visit, generator: MirrorGenerator
) -> None:
    await visit.playing()
    await visit.page.get_by_role("tab", name="Webcam").click()
    await visit.page.locator("#microphone").select_option(label="Default microphone")
    await visit.page.get_by_role("button", name="Open camera").click()
    await visit.page.get_by_role("button", name="Send to the stream").click()
    state = visit.page.locator("#camera-state")
    await expect(state).to_have_text("The stream is driven by this camera.", timeout=LIVE_MS)

    await visit.page.evaluate(UNPLUG, "audio")
    gone = "The microphone has gone: the picture goes on without sound. Plug it in again"
    await expect(state).to_contain_text(f"The stream is driven by this camera. {gone}")
    await expect(visit.page.get_by_role("alert")).to_contain_text(gone)
    mirrored = generator.mirrored
    await eventually(lambda: generator.mirrored >= mirrored + 4)

    await visit.page.get_by_role("button", name="Close camera").click()
    await visit.page.get_by_role("button", name="Open camera").click()
    await expect(state).to_have_text("Only you see this.")


async def test_a_camera_that_goes_is_told_and_no_longer_sent(visit: Visit) -> None:
    await visit.playing()
    await visit.page.get_by_role("tab", name="Webcam").click()
    await visit.page.get_by_role("button", name="Open camera").click()
    await visit.page.get_by_role("button", name="Send to the stream").click()
    await expect(visit.page.locator("#camera-state")).to_contain_text("driven by this camera", timeout=LIVE_MS)

    async with visit.page.expect_request(lambda request: request.method == "DELETE"):
        await visit.page.evaluate(UNPLUG, "video")
    await expect(visit.page.get_by_role("alert")).to_contain_text("The camera has gone, so nothing is sent.")
    await expect(visit.page.locator("#camera-state")).to_have_text("")
    await expect(visit.page.get_by_role("button", name="Open camera")).to_be_visible()


def is_light(colours: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.asarray(colours[:, 0] > (LIGHT + DARK) / 2)


def turns(at_s: npt.NDArray[np.float64], colours: npt.NDArray[np.float64]) -> list[float]:
    """When the picture turned from light to dark or back."""
    light = is_light(colours)
    return [float(at_s[i + 1]) for i in np.flatnonzero(light[1:] != light[:-1])]
