"""The page in a real browser: what a person sees, hears and changes.

Most tests run against the real server over an instant generator. What that server does not do on command (a
lost connection, a long Retry-After, another codec) comes from a scripted one at the same addresses.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
import pytest_asyncio
from fastapi import Request, Response
from playwright.async_api import Browser, Route, ViewportSize, expect
from starlette.middleware.base import RequestResponseEndpoint

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.app import create_app
from scope_ltx.hosts.live.page_files import PAGE
from scope_ltx.manifest import load_manifest
from scope_streaming.clock import SystemClock
from tests.fakes.browser import (
    DRAG,
    LIVE_MS,
    UNLABELLED,
    Visit,
    chromium,
    eventually,
    keeps_playing,
    opened,
    sees_and_hears,
    serving,
)
from tests.fakes.colours import LEFT_HZ, RIGHT_HZ, ColourGenerator
from tests.fakes.live_api import LiveApi, create_fake_app

# One browser for the file, a fresh profile for every test.
pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

WIDE = ViewportSize(width=1280, height=800)


@dataclass
class RealVisit(Visit):
    """A page of the real server over an instant generator, which loads when `load` is set.

    `served` has the method of every request that arrived: a page that is leaving reports none of its own.
    """

    generator: ColourGenerator = field(default_factory=ColourGenerator)
    load: threading.Event = field(default_factory=threading.Event)
    served: list[str] = field(default_factory=list)


@dataclass
class ScriptedVisit(Visit):
    """A page whose server does what the test says."""

    live: LiveApi = field(default_factory=LiveApi)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="module")
async def real(browser: Browser) -> AsyncIterator[RealVisit]:
    generator, load = ColourGenerator(), threading.Event()

    def start() -> ColourGenerator:
        load.wait()
        return generator

    # Chunks of 1.04 s: a prompt goes on air within a few seconds.
    config = LTX2Config(num_frames=25)
    app = create_app(start, config, "a slow tide", clock=SystemClock(), nonce="test", model="small")
    served: list[str] = []

    @app.middleware("http")
    async def record(request: Request, answer: RequestResponseEndpoint) -> Response:
        served.append(request.method)
        return await answer(request)

    async with serving(app) as url:
        page = await browser.new_page(viewport=WIDE)
        visit = RealVisit(page, url, generator=generator, load=load, served=served)
        async with opened(visit):
            yield visit
        load.set()


@pytest_asyncio.fixture(loop_scope="module")
async def scripted(browser: Browser) -> AsyncIterator[ScriptedVisit]:
    live = LiveApi()
    async with serving(create_fake_app(live, PAGE)) as url:
        visit = ScriptedVisit(await browser.new_page(viewport=WIDE), url, live=live)
        async with opened(visit):
            yield visit
        await live.close()


async def test_loading_is_said_then_picture_and_sound_of_the_real_server_play(real: RealVisit) -> None:
    await real.page.goto(real.url)
    await expect(real.page.locator("#veil-title")).to_have_text("Loading the model")
    real.load.set()
    await expect(real.page.locator("#badge")).to_have_text("Live", timeout=LIVE_MS)
    await expect(real.page.locator("#veil")).to_be_hidden()
    await keeps_playing(real, 1.0)
    await sees_and_hears(real, LEFT_HZ, RIGHT_HZ)
    await expect(real.figure("size")).to_have_text("320 × 384")
    await expect(real.figure("codec")).to_contain_text("H.264")
    await expect(real.figure("factor")).to_contain_text("× real time")
    await expect(real.figure("viewers")).to_have_text("1")


async def test_a_prompt_by_keyboard_reaches_the_next_chunk_and_the_page_says_when(real: RealVisit) -> None:
    real.load.set()
    await real.playing()
    state = real.page.locator("#prompt-state")
    await expect(state).to_have_text("Now playing: a slow tide")

    await real.page.get_by_label("Prompt", exact=True).fill(" a lighthouse in a storm\n")
    await real.page.keyboard.press("Control+Enter")
    await expect(state).to_have_text("Queued for the next chunk: a lighthouse in a storm")
    await eventually(lambda: real.generator.requests[-1].prompt == "a lighthouse in a storm")
    await expect(state).to_have_text("Now playing: a lighthouse in a storm", timeout=LIVE_MS)


async def test_a_changed_value_is_patched_and_its_adjustment_stands_at_the_field(real: RealVisit) -> None:
    real.load.set()
    await real.playing()
    async with real.page.expect_request(lambda request: request.method == "PATCH") as sent:
        await real.control("height").fill("385")
        await real.page.keyboard.press("Enter")
    assert (await sent.value).post_data_json == {"height": 385}
    await expect(real.message("height")).to_have_text("height 385 became 384: it must be a multiple of 32")
    await expect(real.control("height")).to_have_value("384")

    await real.control("width").fill("448")
    await real.page.keyboard.press("Enter")
    await eventually(lambda: real.generator.requests[-1].config.width == 448)
    await expect(real.figure("size")).to_have_text("448 × 384", timeout=LIVE_MS)


async def test_a_refused_value_shows_the_real_servers_sentence_at_the_field(real: RealVisit) -> None:
    await real.page.goto(real.url)
    await real.control("num_steps").fill("99")
    await real.page.keyboard.press("Tab")
    await expect(real.message("num_steps")).to_have_text("Input should be less than or equal to 60")
    await expect(real.control("num_steps")).to_have_attribute("aria-invalid", "true")
    await real.control("sigmas").fill("0.5, 1, 0")
    await real.page.keyboard.press("Tab")
    await expect(real.message("sigmas")).to_contain_text("strictly descend and end in 0, got 0.5, 1, 0")


async def test_leaving_ends_the_session_at_the_server(real: RealVisit) -> None:
    real.load.set()
    await real.playing()
    async with httpx.AsyncClient(base_url=real.url) as client:
        assert (await client.get("api/status")).json()["viewers"] == 1
        await real.page.goto("about:blank")
        for _ in range(40):
            viewers = (await client.get("api/status")).json()["viewers"]
            if viewers == 0:
                break
            await asyncio.sleep(0.1)
        # Well before the server's own notice of a silent viewer, which takes ICE half a minute.
        assert viewers == 0
    await eventually(lambda: real.served.count("DELETE") == 1)


async def test_vp8_plays_as_well(scripted: ScriptedVisit) -> None:
    scripted.live.codec = "video/VP8"
    await scripted.playing()
    await sees_and_hears(scripted, LEFT_HZ, RIGHT_HZ)
    await expect(scripted.figure("codec")).to_contain_text("VP8")


async def test_sound_is_one_click_away(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    assert await scripted.page.evaluate("document.getElementById('video').muted") is True
    await scripted.page.get_by_role("button", name="Sound on").click()
    await expect(scripted.page.get_by_role("button", name="Mute")).to_be_visible()
    assert await scripted.page.evaluate("document.getElementById('video').muted") is False


async def test_an_empty_prompt_stays_here_and_says_why(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.page.get_by_label("Prompt", exact=True).fill("  ")
    await scripted.page.get_by_role("button", name="Send").click()
    await expect(scripted.page.locator("#prompt-error")).to_have_text("Write what the stream should show first.")
    assert scripted.live.prompts == []


async def test_controls_are_the_schema_in_its_order(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    shown = await scripted.page.locator(".field").evaluate_all("nodes => nodes.map((node) => node.dataset.name)")
    assert shown == [*LTX2Config.parameters("live"), *LTX2Config.parameters("load")]
    for name in LTX2Config.parameters("load"):
        await expect(scripted.control(name)).to_be_disabled()
        await expect(scripted.page.locator(f"#field-{name}-help")).to_contain_text(
            "Restart the server to change it"
        )
    await expect(scripted.control("schedule")).to_have_value("0")
    await expect(scripted.control("randomize_seed")).to_be_checked()
    assert await scripted.page.evaluate(UNLABELLED) == []


async def test_every_widget_sends_its_own_type(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.control("schedule").select_option(label="Linear quadratic")
    await scripted.control("randomize_seed").uncheck()
    await scripted.control("sigmas").fill("1, 0.5 0")
    await scripted.control("i2v_image").fill("/tmp/first.png")
    await scripted.control("reference_video").fill("/tmp/walk.mp4")
    await scripted.control("two_stage").check()
    await scripted.unfold("Guidance")
    await scripted.control("negative_prompt").fill("blurry\njittery")
    await scripted.control("stg_blocks").fill("28, 29")
    await scripted.control("i2v_strength").fill("0.25")
    await scripted.page.keyboard.press("Tab")
    await eventually(lambda: scripted.live.config.i2v_strength == 0.25)
    sent = {name: value for patch in scripted.live.patches for name, value in patch.items()}
    assert sent == {
        "schedule": "linear_quadratic",
        "randomize_seed": False,
        "sigmas": [1, 0.5, 0],
        "i2v_image": "/tmp/first.png",
        "reference_video": "/tmp/walk.mp4",
        "two_stage": True,
        "negative_prompt": "blurry\njittery",
        "stg_blocks": [28, 29],
        "i2v_strength": 0.25,
    }
    await scripted.control("sigmas").fill("")
    await scripted.page.keyboard.press("Tab")
    await eventually(lambda: scripted.live.patches[-1] == {"sigmas": None})


async def test_images_are_rows_whose_problems_name_the_row(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    add = scripted.page.get_by_role("button", name="Add image")
    await add.click()
    await scripted.page.keyboard.type("a.png")  # by keyboard alone: path, frame, strength
    await scripted.page.keyboard.press("Tab")
    await eventually(lambda: len(scripted.live.config.images) == 1)
    await scripted.page.keyboard.press("ControlOrMeta+a")
    await scripted.page.keyboard.type("12")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("images")).to_have_text(
        "Image 1, Frame: a pinned frame must be 0 or a multiple of 8, got 12: use 8 or 16"
    )
    frame = scripted.page.get_by_label("Frame", exact=True)
    await expect(frame).to_have_attribute("aria-invalid", "true")
    await frame.fill("16")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("images")).to_have_text("")
    await add.click()
    await scripted.page.get_by_label("Image 2: path").fill("b.png")
    await scripted.page.keyboard.press("Tab")
    await eventually(lambda: len(scripted.live.config.images) == 2)
    assert scripted.live.patches[-1] == {
        "images": [
            {"path": "a.png", "frame_idx": 16, "strength": 1},
            {"path": "b.png", "frame_idx": 0, "strength": 1},
        ]
    }
    assert await scripted.page.evaluate(UNLABELLED) == []
    await scripted.page.get_by_role("button", name="Remove Image 1").click()
    await eventually(lambda: [pin.path for pin in scripted.live.config.images] == ["b.png"])
    await expect(scripted.page.get_by_label("Image 1: path")).to_have_value("b.png")


async def test_an_answer_leaves_alone_the_row_that_is_being_typed(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    add = scripted.page.get_by_role("button", name="Add image")
    await add.click()
    await scripted.page.keyboard.type("a.png")
    await add.click()
    await scripted.page.keyboard.type("half a na")
    await eventually(lambda: len(scripted.live.config.images) == 1)
    await asyncio.sleep(0.5)  # the answer has arrived
    await scripted.page.keyboard.type("me.png")
    await scripted.page.keyboard.press("Tab")
    # Both hold frame 0, which the server refuses; what was typed stays there to be corrected.
    await expect(scripted.message("images")).to_contain_text("got 2 for frame 0 (a.png, half a name.png)")
    await expect(scripted.page.get_by_label("Image 2: path")).to_have_value("half a name.png")


async def test_a_lora_is_chosen_by_name_with_what_is_known_of_it(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.page.get_by_role("button", name="Add LoRA").click()
    offered = await scripted.page.locator("#field-loras datalist option").evaluate_all(
        "all => all.map((o) => o.value)"
    )
    assert offered == [lora.id for lora in load_manifest().loras]
    await scripted.page.keyboard.type("ingredients")
    await scripted.page.keyboard.press("Tab")
    row = scripted.page.locator("#field-loras li")
    await expect(row).to_contain_text("Ingredients (reference sheet) Strength 1 to 1.4, best 1.4.")
    await expect(row).to_contain_text("Not on the server yet.")
    await expect(row.get_by_label("Strength")).to_have_attribute("placeholder", "1.4")
    await row.get_by_text("How to use it").click()
    await expect(row).to_contain_text("Prompt: Reference sheet: what the panels show.")
    await eventually(
        lambda: (
            scripted.live.patches
            == [{"loras": [{"path": "ingredients", "strength": None, "stage_two_strength": None}]}]
        )
    )
    await row.get_by_label("Strength").fill("0.5")
    await scripted.page.keyboard.press("Tab")
    await eventually(lambda: scripted.live.config.loras[0].strength == 0.5)
    await scripted.page.get_by_role("button", name="Reset LoRAs").click()
    await eventually(lambda: scripted.live.config.loras == ())
    await expect(row).to_have_count(0)


async def test_advanced_sections_are_folded_and_say_what_was_changed(scripted: ScriptedVisit) -> None:
    scripted.live.config = LTX2Config(cfg_scale=3.0, stg_scale=1.0)
    await scripted.playing()
    await expect(scripted.control("num_steps")).to_be_visible()
    await expect(scripted.control("cfg_scale")).to_be_hidden()
    await expect(scripted.section("Guidance")).to_have_text("Guidance2 changed")
    await scripted.section("Guidance").focus()
    await scripted.page.keyboard.press("Enter")
    await scripted.control("stg_blocks").fill("")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("stg_blocks")).to_have_text("name at least one block while stg_scale is above 0")


async def test_a_value_that_does_not_fit_another_parameter_is_refused_where_it_was_changed(
    scripted: ScriptedVisit,
) -> None:
    scripted.live.config = LTX2Config(num_steps=30, schedule="dev")
    await scripted.playing()
    await scripted.control("schedule").select_option(label="Linear")
    await scripted.control("width").fill("640")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("schedule")).to_have_text(
        "Steps: at most 20 steps, only the dev schedule takes more"
    )
    await eventually(lambda: scripted.live.config.width == 640)
    assert scripted.live.config.schedule == "dev"
    await scripted.control("num_steps").fill("12")
    await scripted.page.keyboard.press("Tab")
    await eventually(lambda: scripted.live.config.schedule == "linear")
    await expect(scripted.message("schedule")).to_have_text("")


async def test_prompts_blend_and_fade(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.page.get_by_text("Blend and fade").click()
    await scripted.page.get_by_role("button", name="Add prompt").click()
    await scripted.page.keyboard.type("an ocean at night")
    await scripted.page.get_by_label("Weight", exact=True).fill("0.5")
    await scripted.page.get_by_label("Fade over").fill("4")
    await expect(scripted.page.locator("#blend-state")).to_have_text("2 prompts, over 4 chunks")
    await scripted.page.get_by_role("button", name="Send").click()
    await eventually(lambda: scripted.live.prompts)
    assert scripted.live.sent == {
        "prompts": [{"text": "a slow tide of colour", "weight": 1}, {"text": "an ocean at night", "weight": 0.5}],
        "transition_chunks": 4,
    }
    state = scripted.page.locator("#prompt-state")
    await expect(state).to_have_text("Queued for the next chunk: a slow tide of colour + an ocean at night")
    scripted.live.playing = "on the way"
    await expect(state).to_have_text("Now playing: on the way")


async def test_a_prompt_that_somebody_replaces_is_no_longer_called_queued(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    state = scripted.page.locator("#prompt-state")
    await scripted.page.get_by_label("Prompt", exact=True).fill("a storm")
    await scripted.page.locator("#send").click()
    await expect(state).to_have_text("Queued for the next chunk: a storm")
    scripted.live.prompt = "somebody else's calm"
    await expect(state).to_have_text("Now playing: a slow tide of colour")


async def test_a_status_from_before_a_prompt_was_sent_does_not_call_it_replaced(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    asked, sent = asyncio.Event(), asyncio.Event()

    async def answer_late(route: Route) -> None:
        before = await route.fetch()
        asked.set()
        await sent.wait()
        await route.fulfill(response=before)

    await scripted.page.route("**/api/status", answer_late, times=1)
    await asked.wait()
    await scripted.page.get_by_label("Prompt", exact=True).fill("a storm")
    await scripted.page.locator("#send").click()
    state = scripted.page.locator("#prompt-state")
    await expect(state).to_have_text("Queued for the next chunk: a storm")
    async with scripted.page.expect_response("**/api/status"):
        sent.set()
    async with scripted.page.expect_request("**/api/status"):
        pass  # what came late has been read when the next one is asked for
    await expect(state).to_have_text("Queued for the next chunk: a storm")


async def test_reset_sends_the_schemas_default(scripted: ScriptedVisit) -> None:
    scripted.live.config = LTX2Config(num_frames=97)
    await scripted.page.goto(scripted.url)
    await expect(scripted.control("num_frames")).to_have_value("97")
    await scripted.page.get_by_role("button", name="Reset").click()
    await eventually(lambda: scripted.live.patches == [{"num_frames": 129}])
    await expect(scripted.page.get_by_role("button", name="Reset")).to_be_hidden()


async def test_a_dragged_slider_is_gathered_into_few_requests(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.page.locator("[data-name=num_steps] input[type=range]").evaluate(DRAG, 16)
    await eventually(lambda: scripted.live.config.num_steps == 16)
    assert len(scripted.live.patches) <= 2


async def test_a_bad_value_shows_the_servers_sentence_and_spares_its_companions(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.control("num_steps").fill("99")
    await scripted.control("width").fill("640")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("num_steps")).to_have_text("Input should be less than or equal to 60")
    await expect(scripted.control("num_steps")).to_have_attribute("aria-invalid", "true")
    await expect(scripted.control("num_steps")).to_have_value("99")
    await eventually(lambda: scripted.live.config.width == 640)

    await scripted.control("num_steps").fill("12")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("num_steps")).to_have_text("")
    assert scripted.live.config.num_steps == 12


async def test_a_value_that_the_server_did_not_hear_is_sent_again(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.page.route("**/api/parameters", lambda route: route.abort(), times=1)
    await scripted.control("num_steps").fill("12")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("num_steps")).to_have_text("Not sent yet.")
    await expect(scripted.page.get_by_role("alert")).to_have_text(re.compile("cannot be reached"))
    await eventually(lambda: scripted.live.config.num_steps == 12)
    await expect(scripted.message("num_steps")).to_have_text("")


async def test_a_value_that_the_server_failed_at_says_so_at_its_field(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.page.route("**/api/parameters", lambda route: route.fulfill(status=500), times=1)
    await scripted.control("num_steps").fill("12")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("num_steps")).to_have_text("Not taken: The server answered 500.")
    await expect(scripted.control("num_steps")).to_have_attribute("aria-invalid", "true")
    await scripted.control("num_steps").fill("13")
    await scripted.page.keyboard.press("Tab")
    await expect(scripted.message("num_steps")).to_have_text("")
    assert scripted.live.config.num_steps == 13


async def test_retry_after_is_kept_and_cut_short_when_the_model_is_there(scripted: ScriptedVisit) -> None:
    scripted.live.state = "loading"
    await scripted.page.goto(scripted.url)
    await expect(scripted.page.locator("#veil-title")).to_have_text("Loading the model")
    offers = scripted.live.offers
    await eventually(lambda: scripted.live.offers > offers)  # it asks again when Retry-After is over
    scripted.live.retry_after_s, offers = 60, scripted.live.offers
    await eventually(lambda: scripted.live.offers > offers)
    scripted.live.state = "live"  # and sooner than in 60 s when the status says that the model is there
    await expect(scripted.page.locator("#badge")).to_have_text("Live", timeout=LIVE_MS)
    await expect(scripted.page.locator("#veil")).to_be_hidden()


async def test_a_lost_connection_comes_back(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    await scripted.live.close()
    await eventually(lambda: scripted.live.offers == 2)
    await expect(scripted.page.locator("#veil")).to_be_hidden(timeout=LIVE_MS)
    await keeps_playing(scripted, 0.5)


async def test_a_stopped_stream_gives_the_servers_reason(scripted: ScriptedVisit) -> None:
    await scripted.playing()
    scripted.live.extra = {"last_error": "vae.safetensors: the file is truncated. Download it again."}
    scripted.live.state = "error"
    await expect(scripted.page.locator("#veil-title")).to_have_text("The stream has stopped")
    await expect(scripted.page.locator("#veil-text")).to_contain_text("truncated. Download it again.")


async def test_narrow_screens_fit_and_nothing_comes_from_elsewhere(scripted: ScriptedVisit) -> None:
    await scripted.page.set_viewport_size({"width": 360, "height": 740})
    await scripted.playing()
    await scripted.page.get_by_role("button", name="Add image").click()
    await scripted.page.get_by_role("button", name="Add LoRA").click()
    await scripted.page.keyboard.type("ingredients")
    await scripted.page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert await scripted.page.evaluate("document.documentElement.scrollWidth") == 360
    assert [url for url in scripted.requests if not url.startswith((scripted.url, "data:"))] == []
