from __future__ import annotations

import math
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scope_ltx.config import LTX2Config
from scope_ltx.errors import GenerationCancelled
from scope_ltx.prompt_mix import MAX_PROMPT_CHARACTERS
from scope_ltx.request import Chunk, ChunkRequest, WeightedPrompt
from scope_ltx.session import Session, chunk_seed
from scope_streaming.media.broadcast import LEAD_S, RESYNC_S, TAKE_AHEAD_S
from tests.fakes.generator import SAMPLE_RATE, TestCardGenerator, Unfinished, read_counter
from tests.fakes.sounds import hiss, write_sound

CONFIG = LTX2Config(height=64, width=320, num_frames=9)


def session(config: LTX2Config = CONFIG, nonce: str = "") -> tuple[Session, TestCardGenerator]:
    generator = TestCardGenerator()
    return Session(generator, config, "a red ball", nonce), generator


def test_seeds_are_fixed_values() -> None:
    """A stream can be made again years later, so these numbers may never change."""
    assert chunk_seed(42, 3, randomize=False, nonce="x") == 42
    assert [chunk_seed(42, i, randomize=True, nonce="") for i in range(2)] == [
        1141844223531324617,
        8642670833944688962,
    ]


@given(st.integers(0, 2**63 - 1), st.integers(0, 10_000), st.text(max_size=16))
def test_seeds_fit_a_generator_and_depend_on_everything(base: int, index: int, nonce: str) -> None:
    seed = chunk_seed(base, index, True, nonce)
    assert 0 <= seed < 2**63
    assert seed == chunk_seed(base, index, True, nonce)
    assert seed != chunk_seed(base, index + 1, True, nonce)
    assert seed != chunk_seed(base, index, True, nonce + "x")
    assert seed != chunk_seed(base ^ 1, index, True, nonce)


def test_segments_follow_each_other_without_gap() -> None:
    stream, _ = session()
    first, second = stream.next_segment(), stream.next_segment()
    assert (first.index, second.index) == (0, 1)
    assert second.times.start == first.times.end
    assert [read_counter(frame) for frame in (*first.frames, *second.frames)] == list(range(18))


def test_a_change_applies_to_the_next_chunk() -> None:
    stream, generator = session()
    stream.next_segment()
    stream.update(num_frames=17, frame_rate=30.0)
    stream.set_prompt("  a blue ball\n")
    segment = stream.next_segment()
    assert len(segment.frames) == 17
    assert segment.times.samples == 17 * 1600
    assert [request.prompt for request in generator.requests] == ["a red ball", "a blue ball"]
    assert (stream.prompt_of(0), stream.prompt_of(1), stream.prompt_of(2)) == ("a red ball", "a blue ball", None)


def test_a_prompt_is_known_until_its_segment_has_been_shown() -> None:
    """The shortest segments there can be: the broadcast has most of them on their way."""
    config = CONFIG.updated(trim_tail=8, frame_rate=120.0)
    segment_s = session(config)[0].next_segment().times.seconds
    ahead = math.ceil((TAKE_AHEAD_S + LEAD_S + RESYNC_S) / segment_s)
    stream, _ = session(config)
    on_air_taken_last_and_handed_off = 4
    for _ in range(ahead + on_air_taken_last_and_handed_off):
        stream.next_segment()
    assert segment_s == pytest.approx(1 / 120)
    assert stream.prompt_of(0) == "a red ball"


def test_updates_are_all_or_nothing() -> None:
    stream, _ = session()
    before = stream.config
    with pytest.raises(ValidationError) as caught:
        stream.update(num_steps=4, frame_rate=float("nan"), self=1)
    assert {str(error["loc"][0]) for error in caught.value.errors()} == {"frame_rate", "self"}
    assert stream.config == before


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty: describe what"),
        (" \n", "the prompt is empty"),
        ("x" * (MAX_PROMPT_CHARACTERS + 1), "has 10001 characters, at most 10000"),
        ("a \ud800 b", "no valid text at character 2: a lone surrogate"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(prompt: str, message: str) -> None:
    stream, _ = session()
    with pytest.raises(ValueError, match=message):
        stream.set_prompt(prompt)
    assert stream.prompt == "a red ball"
    with pytest.raises(ValueError, match=message):
        Session(TestCardGenerator(), CONFIG, prompt)


def test_seeds_reach_the_generator() -> None:
    stream, generator = session(nonce="tonight")
    stream.next_segment()
    stream.update(randomize_seed=False, base_seed=7)
    stream.next_segment()
    assert [request.seed for request in generator.requests] == [chunk_seed(42, 0, True, "tonight"), 7]


def test_notes_are_what_was_snapped_and_what_the_generator_says() -> None:
    class Talking(TestCardGenerator):
        def generate(self, request: ChunkRequest) -> Chunk:
            return replace(super().generate(request), notes=(*request.config.adjustments, "schedule: linear"))

    stream = Session(Talking(), CONFIG, "a red ball")
    assert (stream.last_notes, stream.last_stats) == ((), None)
    stream.update(height=70)
    stream.next_segment()
    snapped, schedule = stream.last_notes
    assert snapped.startswith("height 70 became 64")
    assert schedule == "schedule: linear"
    assert stream.last_stats is not None
    assert stream.last_stats.total_s == 1.0


@pytest.mark.parametrize("change", ["short", "long", "rate"])
def test_sound_of_another_length_than_the_picture_is_refused(change: str) -> None:
    class Wrong(TestCardGenerator):
        def generate(self, request: ChunkRequest) -> Chunk:
            chunk = super().generate(request)
            if change == "rate":
                return replace(chunk, sample_rate=24_000)
            samples = chunk.samples[:, :-1] if change == "short" else np.pad(chunk.samples, ((0, 0), (0, 1)))
            return replace(chunk, samples=samples)

    with pytest.raises(ValueError, match=r"9 frames at 24 fps need \d+ at \d+ Hz"):
        Session(Wrong(), CONFIG, "a red ball").next_segment()


def test_a_failed_chunk_leaves_no_gap() -> None:
    class OnceBroken(TestCardGenerator):
        broken = True

        def generate(self, request: ChunkRequest) -> Chunk:
            if self.broken:
                raise OSError("out of memory")
            return super().generate(request)

    generator = OnceBroken()
    stream = Session(generator, CONFIG, "a red ball")
    with pytest.raises(OSError, match="out of memory"):
        stream.next_segment()
    generator.broken = False
    segment = stream.next_segment()
    assert (segment.index, segment.times.start) == (0, 0)


def test_chunks_that_fail_use_up_nothing_of_a_transition() -> None:
    class Broken(TestCardGenerator):
        broken = True

        def submit(self, request: ChunkRequest) -> Future[Chunk]:
            if self.broken:
                raise OSError("no such file")
            return super().submit(request)

    generator = Broken()
    stream = Session(generator, CONFIG, "a red ball")
    stream.set_prompts([WeightedPrompt("a blue ball", 1.0)], 4)
    for _ in range(5):
        with pytest.raises(OSError, match="no such file"):
            stream.next_segment()
    generator.broken = False
    for _ in range(4):
        stream.next_segment()
    assert [request.prompt for request in generator.requests] == [
        "75% a red ball + 25% a blue ball",
        "50% a red ball + 50% a blue ball",
        "25% a red ball + 75% a blue ball",
        "a blue ball",
    ]


def test_a_chunk_that_fails_late_uses_up_nothing_of_a_transition_either() -> None:
    generator = Unfinished()
    stream = Session(generator, CONFIG, "a red ball")
    stream.set_prompts([WeightedPrompt("a blue ball", 1.0)], 2)
    failed = stream.begin_segment()
    generator.chunks[0].set_exception(OSError("the decoder broke"))
    with pytest.raises(OSError, match="the decoder broke"):
        failed.result()
    stream.begin_segment()
    stream.begin_segment()
    halfway = "50% a red ball + 50% a blue ball"
    assert [request.prompt for request in generator.requests] == [halfway, halfway, "a blue ball"]


@pytest.mark.parametrize("begun", [0, 1])
def test_a_song_goes_on_where_a_chunk_that_failed_late_would_have(tmp_path: Path, begun: int) -> None:
    """But not where others were begun meanwhile."""
    sound = hiss(200_000)
    path = write_sound(tmp_path / "song.wav", sound, SAMPLE_RATE, "pcm_f32le")
    generator = Unfinished()
    stream = Session(generator, CONFIG.updated(audio_input=str(path)), "a red ball")
    failed, *_ = [stream.begin_segment() for _ in range(1 + begun)]
    generator.chunks[0].set_exception(OSError("the decoder broke"))
    with pytest.raises(OSError, match="the decoder broke"):
        failed.result()
    stream.begin_segment()
    played = generator.requests[-1].inputs.driving
    assert played is not None
    start = 2 * begun * played.output.shape[1]
    assert np.array_equal(played.output, sound[:, start : start + played.output.shape[1]])
    stream.close_sources()


def test_a_chunk_may_begin_before_the_last_one_is_finished() -> None:
    generator = Unfinished()
    stream = Session(generator, CONFIG, "a red ball", "tonight")
    first, second = stream.begin_segment(), stream.begin_segment()
    for chunk, request in zip(generator.chunks, generator.requests, strict=True):
        chunk.set_result(TestCardGenerator().generate(request))
    assert [first.result().index, second.result().index] == [0, 1]
    assert second.result().times.start == first.result().times.end
    seeds = [request.seed for request in generator.requests]
    assert seeds == [chunk_seed(42, i, True, "tonight") for i in range(2)]


def test_a_chunk_that_fails_late_leaves_no_gap_and_no_seed_is_used_twice() -> None:
    generator = Unfinished()
    stream = Session(generator, CONFIG, "a red ball", "tonight")
    lost, kept = stream.begin_segment(), stream.begin_segment()
    generator.chunks[0].set_exception(OSError("out of memory"))
    with pytest.raises(OSError, match="out of memory"):
        lost.result()
    stream.begin_segment()
    assert len({request.seed for request in generator.requests}) == 3
    generator.chunks[1].set_result(TestCardGenerator().generate(generator.requests[1]))
    assert (kept.result().index, kept.result().times.start) == (0, 0)


class Patient(TestCardGenerator):
    """Works until it is cancelled, like a long chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.working = threading.Event()

    def generate(self, request: ChunkRequest) -> Chunk:
        self.working.set()
        if not request.cancel.wait(5):
            raise AssertionError("nobody cancelled")
        raise GenerationCancelled("as asked")


@pytest.mark.parametrize("verb", ["cancel", "close"])
def test_cancel_and_close_reach_the_chunk_that_is_being_made(verb: str) -> None:
    generator = Patient()
    stream = Session(generator, CONFIG, "a red ball")
    ends: list[str] = []

    def make() -> None:
        with pytest.raises(GenerationCancelled, match="as asked"):
            stream.next_segment()
        ends.append("cancelled")

    thread = threading.Thread(target=make)
    thread.start()
    assert generator.working.wait(5)
    getattr(stream, verb)()
    thread.join(5)
    assert ends == ["cancelled"]


def test_a_closed_session_makes_nothing_and_a_cancelled_one_goes_on() -> None:
    stream, _ = session()
    stream.cancel()
    assert stream.next_segment().index == 0
    stream.close()
    with pytest.raises(GenerationCancelled, match="the session is closed"):
        stream.next_segment()


def test_the_session_does_not_need_torch() -> None:
    code = "import scope_ltx.session, scope_ltx.hosts.live.serve, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
