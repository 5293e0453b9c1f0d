"""What the page keeps, queues, sends and shows beside the picture, in a real browser over the real server."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio
from fastapi import FastAPI
from PIL import Image
from playwright.async_api import Browser, expect

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.app import create_app
from scope_ltx.hosts.live.http.access import AccessPolicy
from scope_streaming.clock import SystemClock
from tests.fakes.browser import LIVE_MS, UNLABELLED, Visit, chromium, eventually, opened, serving
from tests.fakes.colours import ColourGenerator

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

TOKEN = "a-token-for-the-page"
AT_LEAST_TWO_SECONDS = re.compile(r"0:(0[2-9]|[1-5]\d)")

# What a browser does that lets no page be heard before it was clicked; a headless one lets every page.
NEEDS_CLICK = """
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  if (this.muted) return play.call(this);
  this.pause();
  return Promise.reject(new DOMException("no click", "NotAllowedError"));
};
"""
SHOWN = "[...document.querySelectorAll('body [id]')].filter((one) => one.checkVisibility()).map((one) => one.id)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest.fixture
def generator() -> ColourGenerator:
    return ColourGenerator()


@pytest.fixture
def app(generator: ColourGenerator, tmp_path: Path) -> FastAPI:
    return create_app(
        lambda: generator,
        LTX2Config(num_frames=25),
        "a slow tide",
        clock=SystemClock(),
        nonce="test",
        model="small",
        uploads=tmp_path / "uploads",
        recordings=tmp_path / "recordings",
        access=AccessPolicy(token=TOKEN),
    )


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, app: FastAPI) -> AsyncIterator[Visit]:
    """A page whose address has the token, which every request then needs."""
    async with serving(app) as url:
        visit = Visit(await browser.new_page(), f"{url}#token={TOKEN}")
        async with opened(visit):
            yield visit


async def test_a_recording_is_started_stopped_listed_and_fetched(visit: Visit, tmp_path: Path) -> None:
    await visit.playing()
    record = visit.page.get_by_role("button", name="Record", exact=True)
    await expect(record).to_have_attribute("aria-pressed", "false")
    await record.click()
    await expect(record).to_have_attribute("aria-pressed", "true")
    await expect(record.locator("span")).to_have_text(AT_LEAST_TWO_SECONDS, timeout=LIVE_MS)
    await record.click()
    await expect(visit.page.get_by_role("status").filter(has_text="Recorded 0:0")).to_contain_text(".mp4")
    await expect(record).to_have_attribute("aria-pressed", "false")

    await visit.page.get_by_text("Recordings", exact=True).click()
    async with visit.page.expect_download() as coming:
        await visit.page.get_by_role("button", name="Download scope-").click()
    fetched = await (await coming.value).path()
    (written,) = (tmp_path / "recordings").iterdir()
    assert (await coming.value).suggested_filename == written.name
    assert fetched.read_bytes() == written.read_bytes()
    with av.open(str(written)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 36


async def test_a_snapshot_is_the_picture_on_show(visit: Visit) -> None:
    await visit.playing()
    async with visit.page.expect_download() as coming:
        await visit.page.get_by_role("button", name="Save a snapshot").click()
    saved = await coming.value
    with Image.open(await saved.path()) as picture:
        assert (picture.format, picture.size) == ("PNG", (320, 384))
        assert np.asarray(picture.convert("RGB")).std() > 10
    await expect(
        visit.page.get_by_role("status").filter(has_text=f"Saved {saved.suggested_filename}")
    ).to_be_visible()


async def test_the_graphs_draw_what_the_status_tells_and_can_be_heard(visit: Visit) -> None:
    await visit.playing()
    await visit.page.get_by_text("Statistics", exact=True).click()
    graphs = visit.page.locator("#graphs .graph")
    named = {"factor": "Speed", "buffer": "Buffer", "bitrate": "Received", "step": "Step"}
    named |= {"copied": "Copied per chunk", "device": "Device memory"}
    assert [await graph.get_attribute("data-key") for graph in await graphs.all()] == list(named)
    for key, label in named.items():
        graph = visit.page.locator(f"#graphs [data-key={key}]")
        await expect(graph.locator("output")).not_to_have_text("–", timeout=LIVE_MS)
        await expect(graph.get_by_role("img", name=f"{label} in the last ")).to_be_visible()
        await expect(graph.locator("polyline")).to_have_attribute("points", re.compile(r"\d+,[\d.]+ \d+,[\d.]+"))


async def test_a_locked_seed_gives_the_same_noise_until_another_is_rolled(
    visit: Visit, generator: ColourGenerator
) -> None:
    await visit.playing()
    lock = visit.page.get_by_role("button", name="Lock seed")
    await expect(lock).to_have_attribute("aria-pressed", "false")
    await lock.press("Enter")
    held = visit.page.get_by_role("button", name="Seed 42")
    await expect(held).to_have_attribute("aria-pressed", "true")
    await eventually(lambda: not generator.requests[-1].config.randomize_seed)
    await eventually(lambda: len({request.seed for request in generator.requests[-3:]}) == 1)
    assert generator.requests[-1].seed == 42

    await visit.page.get_by_role("button", name="Take another seed").click()
    await eventually(lambda: generator.requests[-1].seed != 42)
    rolled = generator.requests[-1].seed
    await expect(visit.page.get_by_role("button", name=f"Seed {rolled}")).to_be_visible()


async def test_queued_prompts_come_one_after_the_other(visit: Visit, generator: ColourGenerator) -> None:
    await visit.playing()
    await enqueue(visit, "a first storm", "a mistake")
    await visit.page.get_by_role("button", name="Remove prompt", exact=False).last.click()
    await enqueue(visit, "a second storm")
    await eventually(lambda: generator.requests[-1].prompt == "a second storm", seconds=20)
    prompts = list(dict.fromkeys(request.prompt for request in generator.requests))
    assert prompts == ["a slow tide", "a first storm", "a second storm"]
    await expect(visit.page.locator("#queue-state")).to_have_text("")


async def test_a_queue_goes_on_after_somebody_elses_prompt(visit: Visit, generator: ColourGenerator) -> None:
    await visit.playing()
    await enqueue(visit, "a first storm", "a second storm")
    await eventually(lambda: generator.requests[-1].prompt == "a first storm", seconds=20)
    await visit.page.get_by_label("Prompt", exact=True).fill("a calm")
    await visit.page.locator("#send").click()
    await eventually(lambda: generator.requests[-1].prompt == "a second storm", seconds=20)
    prompts = list(dict.fromkeys(request.prompt for request in generator.requests))
    assert prompts == ["a slow tide", "a first storm", "a calm", "a second storm"]


async def test_a_queued_prompt_that_could_not_be_sent_is_kept(visit: Visit, generator: ColourGenerator) -> None:
    await visit.playing()
    await visit.page.route("**/api/prompt", lambda route: route.abort(), times=1)
    await enqueue(visit, "a storm")
    await expect(visit.page.get_by_role("alert")).to_have_text(re.compile("cannot be reached"), timeout=LIVE_MS)
    await eventually(lambda: generator.requests[-1].prompt == "a storm", seconds=20)
    await expect(visit.page.locator("#queue-state")).to_have_text("")


async def enqueue(visit: Visit, *texts: str) -> None:
    """Each for one chunk at least."""
    hold = visit.page.get_by_label("Next one after")
    if not await hold.is_visible():
        await visit.page.get_by_text("Queue", exact=True).click()
    await hold.fill("1")
    for text in texts:
        await visit.page.get_by_label("Prompt", exact=True).fill(text)
        await visit.page.get_by_role("button", name="Add this prompt to the queue").click()


async def test_an_image_is_uploaded_used_and_removed(
    visit: Visit, generator: ColourGenerator, tmp_path: Path
) -> None:
    await visit.playing()
    await visit.page.get_by_role("tab", name="Text").focus()
    await visit.page.keyboard.press("ArrowRight")
    await expect(visit.page.get_by_role("tab", name="Image")).to_be_focused()
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(picture, "PNG")
    pick = visit.page.get_by_label("Upload a first image")
    await pick.set_input_files({"name": "red.png", "mimeType": "image/png", "buffer": picture.getvalue()})
    await expect(visit.page.locator("#source-image .file")).to_have_text("red.png", timeout=LIVE_MS)
    await expect(visit.page.get_by_role("tab", name="Image in use")).to_be_visible()
    (stored,) = (tmp_path / "uploads").iterdir()
    await eventually(lambda: generator.requests[-1].config.i2v_image == str(stored))

    await visit.page.locator("#source-image").get_by_role("button", name="Remove").click()
    await eventually(lambda: generator.requests[-1].config.i2v_image is None)

    await pick.set_input_files({"name": "red.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\nbroken"})
    toast = visit.page.get_by_role("alert").filter(has_text="the image is damaged: save it again")
    await expect(toast).to_be_visible(timeout=LIVE_MS)
    await toast.get_by_role("button", name="Dismiss").press("Enter")
    await expect(toast).to_have_count(0)


@pytest.mark.parametrize("free", [True, False], ids=["sound allowed", "sound needs a click"])
async def test_the_picture_alone_for_a_browser_source(visit: Visit, free: bool) -> None:
    """Streaming programs let a page be heard without a click; a browser shows it muted rather than not at all."""
    page = visit.page
    await page.set_viewport_size({"width": 640, "height": 360})
    if not free:
        await page.add_init_script(NEEDS_CLICK)
    await page.goto(visit.url.replace("#", "?view=picture#"))
    await page.wait_for_function("document.getElementById('video').currentTime > 0.5", timeout=LIVE_MS)
    assert await page.evaluate("document.getElementById('video').muted") is not free
    box = await page.locator("#video").bounding_box()
    assert box == {"x": 0, "y": 0, "width": 640, "height": 360}
    assert await page.evaluate(SHOWN) == ["stage", "video"]
    seen = np.asarray(Image.open(io.BytesIO(await page.screenshot(omit_background=True))).convert("RGBA"))
    assert seen[180, 5, 3] == 0, "beside the picture"
    assert seen[180, 320, 3] == 255


async def test_a_host_with_a_token_asks_for_it_once(visit: Visit) -> None:
    await visit.page.goto(visit.url.partition("#")[0])
    asked = visit.page.get_by_role("dialog", name="This host asks for a token")
    await expect(asked).to_be_visible()
    await asked.get_by_label("Token").fill("not-the-right-token")
    await visit.page.keyboard.press("Enter")
    await expect(asked.get_by_role("alert")).to_have_text("This token was not accepted.")
    await asked.get_by_label("Token").fill(TOKEN)
    await visit.page.keyboard.press("Enter")
    await expect(visit.page.locator("#badge")).to_have_text("Live", timeout=LIVE_MS)
    await expect(asked).to_be_hidden()


async def test_every_control_has_a_name_and_the_keyboard_reaches_it(visit: Visit) -> None:
    await visit.playing()
    assert await visit.page.evaluate(UNLABELLED) == []
    await visit.page.evaluate("document.activeElement.blur()")
    await visit.page.keyboard.press("Tab")
    await expect(visit.page.get_by_role("link", name="Skip to the prompt")).to_be_focused()
    await visit.page.keyboard.press("Enter")
    await expect(visit.page.get_by_label("Prompt", exact=True)).to_be_focused()
    wanted = {"sound", "record", "snapshot", "fullscreen", "prompt", "seed-lock", "send", "tab-text"}
    reached = set()
    for _ in range(120):
        await visit.page.keyboard.press("Tab")
        reached.add(await visit.page.evaluate("document.activeElement.id"))
        if wanted <= reached:
            break
    assert wanted - reached == set()
