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

PLAIN = LTX2Config(height=64, width=64, num_frames=9, num_steps=2, randomize_seed=False)
GUIDED = PLAIN.updated(loras=[{"path": "union-control"}])
RESTS = (
    "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors rests: it looks at a reference video, and there is none."
)
UNSEEN = "The camera is not looked at: that needs an in-context LoRA, and none is loaded."


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
