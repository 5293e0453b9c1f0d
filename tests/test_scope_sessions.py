"""Prompts, pauses, resets, sessions that end and chunks that fail, inside the fake Scope host."""

from __future__ import annotations

import gc
import logging
import math
import threading
import weakref
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.errors import OutOfMemory
from scope_ltx.sound_in.track import TrackEnded
from tests.fakes.scope_host import Wire
from tests.fakes.scope_play import CAT, DOG, SMALL, assert_in_sync, heard_share, numbers, playing
from tests.fakes.scope_time import (
    VirtualTime,
    longest_gap_s,
    number_of,
    sample_of,
)

# prompts


def test_the_last_of_twelve_quick_edits_governs_the_next_chunk() -> None:
    time = VirtualTime(1.5)
    time.host.load(**SMALL, num_frames=49)
    session = playing(time)
    time.run(1)
    dropped = 0
    for index in range(12):
        dropped += not session.worker.update(prompts=[{"text": f"edit {index}", "weight": 1.0}])
        time.run(0.05)
    begun = len(time.generator.requests)
    time.run(6)
    assert dropped == 0
    prompts = [request.prompt for request in time.generator.requests[begun:]]
    assert len(prompts) >= 2
    assert set(prompts) == {"edit 11"}, "no edit in between takes a chunk"


def test_an_edit_is_on_screen_after_at_most_two_chunks() -> None:
    """What is being made and what is ready play out first; nothing more waits."""
    time = VirtualTime()
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.run(5)
    session.worker.update(prompts=DOG)
    asked_s = time.clock.now()
    time.run(4)
    first = next(index for index, request in enumerate(time.generator.requests) if request.prompt == "a dog")
    shown_s = next(moment for moment, _, picture in session.wire.shown if number_of(picture) >= 25 * first)
    assert shown_s - asked_s <= 2 * 25 / 24 + 0.55


def test_without_a_prompt_nothing_is_made_and_the_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    time = VirtualTime()
    time.host.load(**SMALL, num_frames=25)
    session = time.session()
    time.run(1)
    assert not session.wire.shown
    assert time.host.pipeline.status.state == "no prompt"
    assert caplog.text.count("there is no prompt yet") == 1
    session.worker.update(prompts="a plain string")
    time.run(1)
    assert time.generator.requests[0].prompt == "a plain string"
    assert session.wire.shown
    session.worker.update(prompts=[])
    time.run(3)
    assert time.generator.requests[-1].prompt == "a plain string", "an empty list leaves what there was"


def test_a_transition_goes_over_chunk_by_chunk_and_its_target_stays() -> None:
    """The host takes `transition` away after a picture, and goes on to send the old `prompts`."""
    time = VirtualTime()
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.run(2)
    begun = len(time.generator.requests)
    session.worker.update(transition={"target_prompts": DOG, "num_steps": 4})
    time.run(10)
    shares = [
        sum(one.weight for one in request.mix if one.text == "a dog")
        if request.mix
        else float(request.prompt == "a dog")
        for request in time.generator.requests[begun:]
    ]
    rising = [share for share in shares if share > 0]
    assert rising[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert set(rising[3:]) == {1.0}
    assert session.worker.parameters["prompts"] == CAT
    session.worker.update(prompts=[{"text": "a cow", "weight": 3}])
    time.run(3)
    assert time.generator.requests[-1].prompt == "a cow"


# pause, reset, sessions that end


@pytest.mark.parametrize("pause_s", [0.6, 3.0])
@pytest.mark.parametrize("speed", [2.0, math.inf])
def test_pause_and_resume(speed: float, pause_s: float) -> None:
    """The host goes on to show what it had, in silence; the sound of that is left out later."""
    time = VirtualTime(speed)
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.run(3)
    session.worker.update(paused=True)
    time.run(pause_s)
    assert time.clock.now() - session.wire.shown[-1][0] >= pause_s - 0.6, "it still plays"
    requests = len(time.generator.requests)
    session.worker.update(paused=False)
    time.run(5)
    assert len(time.generator.requests) > requests
    assert numbers(session.wire) == list(range(len(session.wire.shown)))
    assert_in_sync(session.wire, after_s=time.clock.now() - 4)


def test_a_long_pause_makes_nothing_beyond_the_next_chunk() -> None:
    time = VirtualTime()
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.run(1)
    session.worker.update(paused=True)
    time.run(0.1)
    requests = len(time.generator.requests)
    time.run(60)
    assert len(time.generator.requests) == requests


@pytest.mark.parametrize("speed", [1.2, math.inf])
def test_reset_cache_starts_anew(speed: float) -> None:
    time = VirtualTime(speed)
    time.host.load(**SMALL, num_frames=129)
    session = playing(time)
    time.run(3)
    before, asked_s = time.generator.requests[-1], time.clock.now()
    session.worker.update(reset_cache=True)
    time.run(0.02)
    assert before.cancel.is_set() or speed == math.inf, "what was being made is given up"
    time.run(8)
    after = [request for request in time.generator.requests if request.seed != before.seed]
    assert after[-1].prompt == "a cat"
    first = next(moment for moment, _, _ in session.wire.shown if moment > asked_s + 0.09)
    assert first - asked_s <= max(5.4 / speed, 0.84) + 0.1, "as soon as it is made, and what was sounding is over"
    assert_in_sync(session.wire, after_s=first + 0.5, share=0.8)


@pytest.mark.parametrize("old_lives", [True, False])
def test_a_new_session_during_a_chunk(old_lives: bool) -> None:
    """The host starts a second thread on the instance while the old one may still call."""
    time = VirtualTime(1.0)
    time.host.load(**SMALL, num_frames=49)
    old = playing(time)
    time.run(1)
    making = time.generator.requests[-1]
    assert not making.cancel.is_set()
    if not old_lives:
        old.close()
    new = time.session(prompts=DOG)
    began_s = time.clock.now()
    time.run(0.03)
    assert making.cancel.is_set()
    assert time.generator.abandoned == 1
    time.run(10)
    first = next(i for i, request in enumerate(time.generator.requests) if request.prompt == "a dog")
    assert first == 2, "the very next chunk is the new session's"
    assert min(numbers(new.wire)) == 49 * first, "no picture of the old session"
    assert min(sample_of(sound) for _, sound in new.wire.heard if sound is not None) == 98_000 * first
    assert new.wire.shown[0][1] == 0.0, "the media clock begins anew"
    assert not [moment for moment, _, _ in old.wire.shown if moment > began_s + 0.9]
    assert_in_sync(new.wire, share=0.9)


def test_a_session_leaves_nothing_to_the_next() -> None:
    """Sizes and prompts that were changed in one session are not those of the next."""
    time = VirtualTime()
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    session.worker.update(num_frames=9, base_seed=7, randomize_seed=False)
    time.run(3)
    assert time.generator.requests[-1].config.num_frames == 9
    session.close()
    playing(time, prompts=DOG)
    request = time.generator.requests[-1]
    assert (request.prompt, request.config.num_frames, request.config.base_seed) == ("a dog", 25, 42)


def test_unload_during_a_chunk() -> None:
    time = VirtualTime(1.0)
    instance = weakref.ref(time.host.load(**SMALL, num_frames=129))
    session = playing(time)
    time.run(0.5)
    making = time.generator.requests[-1]
    session.close()
    gc.disable()
    try:
        time.host.unload()
        assert instance() is None, "something holds the instance"
    finally:
        gc.enable()
    assert making.cancel.is_set()
    assert not [worker for worker in time.workers if worker.is_alive()]
    assert time.generator.closed == 1


UPDATES: dict[str, dict[str, object]] = {
    "pause": {"paused": True},
    "resume": {"paused": False},
    "reset": {"reset_cache": True},
    "prompt": {"prompts": DOG},
    "frames": {"num_frames": 9},
    "rate": {"frame_rate": 30.0},
}
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["pause", "resume", "reset", "prompt", "frames", "rate", "slow", "fast", "restart", "fail"]
        ),
        st.sampled_from([0.0, 0.02, 0.3, 0.7, 2.5]),
    ),
    max_size=8,
)


@given(actions=ACTIONS)
@settings(max_examples=15)
def test_whatever_people_do(actions: list[tuple[str, float]]) -> None:
    """The fake host fails the test for anything that the real one could not bear; afterwards all is well."""
    time = VirtualTime(2.0)
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    for action, wait_s in actions:
        if action == "restart":
            session.close()
            session = time.session(prompts=CAT)
        elif action in ("slow", "fast"):
            time.generator.speed = 0.6 if action == "slow" else 3.0
        elif action == "fail":
            time.generator.failures.append(RuntimeError("a broken chunk"))
        else:
            session.worker.update(**UPDATES[action])
        time.run(wait_s)
    time.generator.speed = 3.0
    time.generator.failures.clear()
    session.worker.update(paused=False)
    time.run(9)
    quiet_s = time.clock.now()
    time.run(2)
    late = Wire([one for one in session.wire.shown if one[0] >= quiet_s], session.wire.heard)
    assert len(late.shown) >= 47
    assert longest_gap_s(late) <= 0.07
    assert heard_share(late, quiet_s) >= 0.99
    stamps = [stamp for _, stamp, _ in session.wire.shown]
    assert all(after > before for before, after in pairwise(stamps))
    session.close()
    time.host.unload()
    assert not [worker for worker in time.workers if worker.is_alive()]


# errors


def test_a_failing_chunk_is_told_once_backed_off_and_got_over(caplog: pytest.LogCaptureFixture) -> None:
    time = VirtualTime(4.0)
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.generator.failures = [RuntimeError("the LoRA is damaged")] * 4
    begun = len(time.generator.requests)
    time.run(6)
    status = time.host.pipeline.status
    assert status.state == "error"
    assert status.last_error is not None
    assert "the LoRA is damaged" in status.last_error
    assert status.failures == len(time.generator.requests) - begun
    assert 3 <= status.failures <= 4, "0.5, 1, 2, 4 s between tries"
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert "the LoRA is damaged" in caplog.text
    session.worker.update(prompts=DOG)
    asked_s = time.clock.now()
    time.generator.failures.clear()
    time.run(1)
    assert next(moment for moment, _, _ in session.wire.shown if moment > asked_s) - asked_s < 0.4, "tried at once"
    assert time.host.pipeline.status.last_error is None
    assert_in_sync(session.wire, after_s=time.clock.now() - 0.5)


def test_a_song_that_has_ended_is_no_error_and_another_one_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    time = VirtualTime(4.0)
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.generator.failures = [TrackEnded("song.wav has ended after 2.00 s")] * 3
    time.run(12)
    status = time.host.pipeline.status
    assert (status.state, status.last_error, status.failures) == ("ended", None, 0)
    assert status.notes == ("song.wav has ended after 2.00 s",)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "nothing more is made until audio_input or audio_at_end is another" in caplog.text
    session.worker.update(prompts=DOG)
    time.generator.failures.clear()
    asked_s = time.clock.now()
    time.run(1)
    assert next(moment for moment, _, _ in session.wire.shown if moment > asked_s) - asked_s < 0.4
    assert time.host.pipeline.status.state == "playing"


def test_out_of_memory_never_reaches_the_host(caplog: pytest.LogCaptureFixture) -> None:
    """The pipeline shrinks and tries again; what it raises when that did not help is an error like any other."""
    time = VirtualTime(4.0)
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.generator.failures = [OutOfMemory("the device ran out of memory twice at 32x32x25")]
    time.run(8)
    assert "ran out of memory twice" in caplog.text
    assert time.host.pipeline.status.state == "playing"
    assert numbers(session.wire) == list(range(len(session.wire.shown)))


def test_what_kills_the_generation_thread_is_shown_and_a_reset_begins_anew() -> None:
    """Not even a library that ends the thread takes the host with it."""
    time = VirtualTime(4.0)
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.generator.failures = [SystemExit("a library has had enough")]
    time.run(4)
    assert time.host.pipeline.status.state == "error"
    session.worker.update(reset_cache=True)
    time.run(3)
    assert time.host.pipeline.status.state == "playing"
    assert_in_sync(session.wire, after_s=time.clock.now() - 1)


# what the host reads of an instance


def test_adapters_with_their_scales_as_they_are() -> None:
    time = VirtualTime()
    time.host.load(**SMALL, num_frames=25, loras=[{"path": "/a.safetensors", "scale": 0.5}, {"path": "/b"}])
    adapters = [{"path": "/a.safetensors", "scale": 0.5}, {"path": "/b", "scale": 1.0}]
    assert time.host.pipeline.loaded_lora_adapters == adapters
    session = playing(time)
    session.worker.update(lora_scales=[{"path": "/b", "scale": -2}])
    time.run(2)
    assert time.host.pipeline.loaded_lora_adapters[1]["scale"] == -2.0
    assert [lora.strength for lora in time.generator.requests[-1].config.loras] == [0.5, -2.0]


def test_text_mode_asks_for_no_input() -> None:
    time = VirtualTime()
    pipeline = time.host.load(**SMALL)
    assert pipeline.prepare(prompts="a cat") is None
    assert pipeline.prepare(video=True).input_size == 8
    assert pipeline.config.frame_rate == 24.0


def test_a_time_that_is_over_leaves_no_threads() -> None:
    """Of these tests themselves: the rest of the suite runs beside what they leave."""
    before = set(threading.enumerate())
    time = VirtualTime(2.0)
    time.host.load(**SMALL, num_frames=25)
    playing(time)
    assert set(threading.enumerate()) > before
    del time
    assert set(threading.enumerate()) <= before
