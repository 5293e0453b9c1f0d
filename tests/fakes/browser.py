"""A headless Chromium that talks to this machine only, and what a test does with a page in it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)

LIVE_MS = 20_000
POLL_S = 0.05
SECONDS = "document.getElementById('video').currentTime"

SAMPLE_PICTURE = """() => {
  const video = document.getElementById("video");
  const canvas = Object.assign(document.createElement("canvas"), { width: 16, height: 16 });
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 16, 16);
  return [...context.getImageData(0, 0, 16, 16).data].filter((_, i) => i % 4 !== 3);
}"""

LISTEN = """async () => {
  const context = new AudioContext({ sampleRate: 48000 });
  await context.resume();
  const source = context.createMediaStreamSource(document.getElementById("video").srcObject);
  const splitter = context.createChannelSplitter(2);
  source.connect(splitter);
  const ears = [0, 1].map((ear) => {
    const analyser = Object.assign(context.createAnalyser(), { fftSize: 8192 });
    splitter.connect(analyser, ear);
    return analyser;
  });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return ears.map((analyser) => {
    const wave = new Float32Array(analyser.fftSize);
    analyser.getFloatTimeDomainData(wave);
    const spectrum = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(spectrum);
    const loudest = spectrum.indexOf(Math.max(...spectrum));
    return {
      rms: Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length),
      hertz: loudest * context.sampleRate / analyser.fftSize,
    };
  });
}"""

DRAG = """async (range, to) => {
  for (let value = 1; value <= to; value += 1) {
    range.value = value;
    range.dispatchEvent(new Event("input"));
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}"""

UNLABELLED = """() => [...document.querySelectorAll("input, select, textarea, button")]
  .filter((node) => !node.labels?.length && !node.getAttribute("aria-label")
    && !document.getElementById(node.getAttribute("aria-labelledby")) && !node.textContent.trim())
  .map((node) => node.outerHTML)"""


@dataclass
class Visit:
    """An open page, and everything that went wrong on it or went out from it."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    async def playing(self) -> None:
        await self.page.goto(self.url)
        await self.page.wait_for_function(f"{SECONDS} > 0.5", timeout=LIVE_MS)
        await expect(self.page.locator("#badge")).to_have_text("Live", timeout=LIVE_MS)

    def figure(self, key: str) -> Locator:
        return self.page.locator(f"#status [data-key={key}] dd")

    def control(self, name: str) -> Locator:
        return self.page.locator(f"#field-{name}")

    def section(self, title: str) -> Locator:
        """The heading that folds and unfolds."""
        return self.page.locator("summary").filter(has=self.page.get_by_role("heading", name=title))

    async def unfold(self, title: str) -> None:
        await self.section(title).click()

    def message(self, name: str) -> Locator:
        return self.page.locator(f"#field-{name}-message")


@asynccontextmanager
async def chromium(*flags: str) -> AsyncIterator[Browser]:
    """With these flags besides. Fails the test, with what to install, when no Chromium is on the PATH."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.fail(f"none of {', '.join(NAMES)} is on the PATH: install Debian's `chromium` package")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The URL of `app` on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def opened(visit: Visit) -> AsyncIterator[None]:
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    yield
    await visit.page.close()
    assert visit.errors == []


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Waits for what happens in another process; nothing there could set an event here."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)


async def keeps_playing(visit: Visit, seconds: float) -> None:
    start = await visit.page.evaluate(SECONDS)
    await visit.page.wait_for_function(f"{SECONDS} > {start + seconds}", timeout=LIVE_MS)


async def sees_and_hears(visit: Visit, left_hz: float, right_hz: float) -> None:
    """Asserts a bright picture that moves, and in each ear the note that belongs there."""
    before = await visit.page.evaluate(SAMPLE_PICTURE)
    await asyncio.sleep(0.4)
    after = await visit.page.evaluate(SAMPLE_PICTURE)
    assert sum(before) / len(before) > 40
    assert sum(abs(a - b) for a, b in zip(before, after, strict=True)) / len(before) > 2

    left, right = await visit.page.evaluate(LISTEN)
    assert min(left["rms"], right["rms"]) > 0.02
    assert left["hertz"] == pytest.approx(left_hz, abs=10)
    assert right["hertz"] == pytest.approx(right_hz, abs=10)
