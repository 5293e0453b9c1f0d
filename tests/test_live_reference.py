"""A camera that comes and goes beside LoRAs that look at one: the stream goes on, and its notes say how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scope_ltx.config import LTX2Config
from scope_ltx.engine import DEFAULT_ENGINE
from scope_ltx.errors import UnsupportedError
from scope_ltx.inputs import Pixels
from scope_ltx.pipeline import Pipeline, load_pipeline
from scope_ltx.session import Session
from scope_streaming.media.segment import Segment
from tests.fakes.clock import FakeClock
from tests.fakes.colours import ColourGenerator
from tests.fakes.live_app import app_of, serving, until

PLAIN = LTX2Config(height=64, width=64, num_frames=9, num_steps=2, randomize_seed=False)
GUIDED = PLAIN.updated(loras=[{"path": "union-control"}])
RESTS = (
    "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors rests: it looks at a reference video, and there is none."
)
UNSEEN = "The camera is not looked at: that needs an in-context LoRA with a strength, and there is none."


@pytest.fixture(scope="module")
def pipeline(small_model_dir: Path) -> Iterator[Pipeline]:
    with closing(load_pipeline(small_model_dir, "cpu", DEFAULT_ENGINE)) as loaded:
        yield loaded


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def picture() -> Pixels:
    found = np.full((64, 64, 3), 40, np.uint8)
    found[16:40, 16:40] = 230
    return found


def same(first: Segment, second: Segment) -> bool:
    return np.array_equal(first.frames, second.frames) and np.array_equal(first.samples, second.samples)


def notes_of(session: Session) -> list[str]:
    return [note for note in session.last_notes if note.startswith((RESTS, UNSEEN))]


def test_a_lora_rests_until_the_camera_comes_and_after_it_is_lost(pipeline: Pipeline, clock: FakeClock) -> None:
    plain = Session(pipeline, PLAIN, "a red ball").next_segment()
    session = Session(pipeline, GUIDED, "a red ball", clock=clock, live_input=True)
    assert same(session.next_segment(), plain)
    assert len(notes_of(session)) == 1

    session.push_frame(picture())
    guided = session.next_segment()
    assert not np.array_equal(guided.frames, plain.frames)
    assert notes_of(session) == []

    clock.advance(7.0)
    assert same(session.next_segment(), plain)
    assert [note.split(":")[0] for note in session.last_notes if "lost" in note] == ["the live source was lost"]
    assert len(notes_of(session)) == 1

    session.push_frame(picture())
    assert np.array_equal(session.next_segment().frames, guided.frames)


def test_what_does_not_fit_is_told_before_the_camera_comes(pipeline: Pipeline) -> None:
    session = Session(pipeline, GUIDED.updated(width=96), "a red ball", live_input=True)
    with pytest.raises(UnsupportedError, match="multiples of 64"):
        session.next_segment()


def test_a_lora_of_the_second_stage_rests_as_well(pipeline: Pipeline) -> None:
    second = [{"path": "union-control", "strength": 0.0, "stage_two_strength": 1.0}]
    two = PLAIN.updated(two_stage=True, height=128, width=128)
    plain = Session(pipeline, two, "a red ball").next_segment()
    session = Session(pipeline, two.updated(loras=second), "a red ball", live_input=True)
    assert same(session.next_segment(), plain)
    assert len(notes_of(session)) == 1


def test_a_file_guides_while_no_camera_does(pipeline: Pipeline, clock: FakeClock, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "still.png")
    config = GUIDED.updated(reference_video=str(tmp_path / "still.png"))
    alone = Session(pipeline, config, "a red ball").next_segment()
    session = Session(pipeline, config, "a red ball", clock=clock, live_input=True)
    assert same(session.next_segment(), alone)
    session.push_frame(np.ascontiguousarray(picture()[:, ::-1]))
    assert not np.array_equal(session.next_segment().frames, alone.frames)
    clock.advance(7.0)
    assert np.array_equal(session.next_segment().frames, alone.frames)
    assert notes_of(session) == []


def test_a_picture_that_was_refused_is_no_camera(pipeline: Pipeline) -> None:
    session = Session(pipeline, GUIDED, "a red ball")
    with pytest.raises(ValueError, match="4, 4"):
        session.push_frame(np.zeros((4, 4), np.uint8))
    with pytest.raises(UnsupportedError, match="needs a reference video"):
        session.next_segment()


async def test_the_live_host_says_that_a_camera_may_come() -> None:
    generator = ColourGenerator()
    async with serving(app_of(lambda: generator)) as client:
        await until(client, lambda status: status["state"] == "live")
    assert generator.requests
    assert all(request.inputs.camera_may_come for request in generator.requests)


def test_a_lora_of_no_strength_is_not_said_to_rest(pipeline: Pipeline) -> None:
    off = GUIDED.updated(loras=[{"path": "union-control", "strength": 0.0}])
    session = Session(pipeline, off, "a red ball", live_input=True)
    session.next_segment()
    assert notes_of(session) == []


def test_a_camera_without_a_lora_is_not_looked_at(pipeline: Pipeline, clock: FakeClock) -> None:
    plain = Session(pipeline, PLAIN, "a red ball").next_segment()
    session = Session(pipeline, PLAIN, "a red ball", clock=clock)
    session.push_frame(picture())
    assert same(session.next_segment(), plain)
    (note,) = notes_of(session)
    assert note.startswith(UNSEEN)


def test_where_no_camera_can_come_the_lora_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(UnsupportedError, match="needs a reference video"):
        Session(pipeline, GUIDED, "a red ball").next_segment()


@pytest.mark.parametrize("live_input", [False, True])
def test_a_file_without_a_lora_is_refused(pipeline: Pipeline, tmp_path: Path, live_input: bool) -> None:
    Image.fromarray(picture()).save(tmp_path / "still.png")
    config = PLAIN.updated(reference_video=str(tmp_path / "still.png"))
    session = Session(pipeline, config, "a red ball", live_input=live_input)
    with pytest.raises(UnsupportedError, match="needs an in-context LoRA, and no LoRA is loaded"):
        session.next_segment()
