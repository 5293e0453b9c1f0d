from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_streaming.media.handoff import Handoff, HandoffClosedError
from scope_streaming.media.loop import BACKOFF_S, ChunkLoop
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import Timeline
from tests.fakes.clock import FakeClock

JOIN_S = 5.0


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def finished(segment: Segment) -> Future[Segment]:
    future: Future[Segment] = Future()
    future.set_result(segment)
    return future


def fake_source(clock: FakeClock, work_s: float) -> Callable[[], Future[Segment]]:
    """Segments of 1.5 s (36 frames at 24 fps), each taking `work_s` of fake time."""
    timeline = Timeline(48_000)
    made = 0

    def make() -> Future[Segment]:
        nonlocal made
        clock.advance(work_s)
        times = timeline.advance(36, Fraction(24))
        frames, samples = np.zeros((36, 2, 2, 3), np.uint8), np.zeros((2, times.samples), np.float32)
        made += 1
        return finished(Segment(made - 1, frames, samples, times))

    return make


@given(st.integers(1, 3), st.lists(st.sampled_from(["reserve", "put", "release", "poll"]), max_size=60))
def test_it_never_holds_more_than_its_capacity_and_keeps_the_order(capacity: int, verbs: list[str]) -> None:
    handoff: Handoff[int] = Handoff(capacity)
    reserved = sent = 0
    inside: list[int] = []
    for verb in verbs:
        if verb == "reserve" and len(inside) + reserved < capacity:
            assert handoff.reserve()
            reserved += 1
        elif verb == "put" and reserved:
            handoff.put(sent)
            inside.append(sent)
            sent, reserved = sent + 1, reserved - 1
        elif verb == "release" and reserved:
            handoff.release()
            reserved -= 1
        elif verb == "poll":
            assert handoff.poll() == (inside.pop(0) if inside else None)
        assert len(handoff) == len(inside) <= capacity


def test_a_full_handoff_holds_the_producer_before_it_starts() -> None:
    handoff: Handoff[int] = Handoff()
    handoff.reserve()
    handoff.put(1)
    reserved = threading.Event()

    def produce() -> None:
        if handoff.reserve():
            reserved.set()

    thread = in_thread(produce)
    assert not reserved.is_set()
    assert handoff.take() == 1
    thread.join(JOIN_S)
    assert reserved.is_set()


def test_close_wakes_the_producer_and_the_consumer() -> None:
    full: Handoff[int] = Handoff()
    full.reserve()
    full.put(1)
    answers: list[object] = []
    producer = in_thread(lambda: answers.append(full.reserve()))
    empty: Handoff[int] = Handoff()

    def consume() -> None:
        with pytest.raises(HandoffClosedError):
            empty.take()
        answers.append("woken")

    consumer = in_thread(consume)
    full.close()
    empty.close()
    producer.join(JOIN_S)
    consumer.join(JOIN_S)
    assert sorted(map(str, answers)) == ["False", "woken"]
    assert len(full) == 0


def test_the_producers_exception_comes_after_what_it_had_made() -> None:
    handoff: Handoff[int] = Handoff()
    handoff.reserve()
    handoff.put(7)
    handoff.fail(RuntimeError("no device"))
    assert handoff.poll() == 7
    with pytest.raises(RuntimeError, match="no device"):
        handoff.take()
    assert not handoff.reserve()


def test_misuse_is_told() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Handoff(0)
    with pytest.raises(RuntimeError, match="call reserve before put"):
        Handoff[int]().put(1)


def test_a_listener_hears_every_change_until_it_is_taken_away() -> None:
    handoff: Handoff[int] = Handoff()
    heard: list[int] = []
    handoff.on_change(lambda: heard.append(1))
    handoff.reserve()
    handoff.put(1)
    handoff.poll()
    assert len(heard) == 2
    handoff.on_change(None)
    handoff.close()
    assert len(heard) == 2


def drained(loop: ChunkLoop, handoff: Handoff[Segment], steps: int) -> int:
    """Runs steps on this thread and takes what they make at once."""
    taken = 0
    for _ in range(steps):
        assert loop.step()
        taken += handoff.poll() is not None
    return taken


def test_without_slack_the_loop_never_waits() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    loop = ChunkLoop(fake_source(clock, 0.1), handoff, clock, lambda: 0.0)
    assert drained(loop, handoff, 100) == 100
    assert clock.waits == []
    assert loop.report.media_s == 150.0


@pytest.mark.parametrize("overshoot_s", [0.0, 0.002])
def test_with_slack_the_lead_is_bounded_for_hours(overshoot_s: float) -> None:
    clock, handoff = FakeClock(overshoot_s), Handoff[Segment]()
    loop = ChunkLoop(fake_source(clock, 0.1), handoff, clock, lambda: 0.25)
    start_s = clock.now()
    for _ in range(5_000):
        before_s = loop.report.media_s
        assert drained(loop, handoff, 1) == 1
        started_s = clock.now() - 0.1 - start_s
        assert before_s <= started_s * 1.25 + 1e-6
    assert loop.report.media_s == pytest.approx((clock.now() - start_s) * 1.25, rel=0.01)


def test_a_stall_buys_no_lead() -> None:
    """After 30 s in which nothing was made, the loop is as far ahead as before, not 30 s further."""
    clock, handoff = FakeClock(), Handoff[Segment]()
    loop = ChunkLoop(fake_source(clock, 0.1), handoff, clock, lambda: 0.5)
    drained(loop, handoff, 20)
    clock.advance(1000.0)
    before_s = clock.now()
    drained(loop, handoff, 20)
    # 20 segments are 30 s of media; at 1.5 times real time they take 20 s less what the first may lead.
    assert clock.now() - before_s > 8.0


def test_a_failing_source_backs_off_tells_and_recovers() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    good = fake_source(clock, 0.1)
    failures = 7

    def source() -> Future[Segment]:
        nonlocal failures
        if failures:
            failures -= 1
            raise ValueError("i2v_image: no such file")
        return good()

    loop = ChunkLoop(source, handoff, clock, lambda: 0.0)
    assert drained(loop, handoff, 7) == 0
    assert clock.waits == [*BACKOFF_S, BACKOFF_S[-1]]
    assert (loop.report.failures, loop.report.last_error) == (7, "i2v_image: no such file")
    assert drained(loop, handoff, 1) == 1
    assert clock.waits == [*BACKOFF_S, BACKOFF_S[-1], BACKOFF_S[-1]]
    assert (loop.report.failures, loop.report.last_error) == (0, None)


class Slow:
    """Segments of 1.5 s whose making takes `work_s` and whose finishing is left to the test."""

    def __init__(self, clock: FakeClock, work_s: float) -> None:
        self._make = fake_source(clock, work_s)
        self.at_end: Callable[[Future[Segment]], object] = lambda _: None
        self.begun: list[tuple[Future[Segment], Segment]] = []

    def __call__(self) -> Future[Segment]:
        segment: Future[Segment] = Future()
        segment.add_done_callback(self.at_end)
        self.begun.append((segment, self._make().result()))
        return segment

    def finish(self, number: int) -> None:
        future, segment = self.begun[number]
        future.set_result(segment)


def overlapping(
    clock: FakeClock, handoff: Handoff[Segment], describe: Callable[[BaseException], str] = str
) -> tuple[Slow, ChunkLoop]:
    """Near real time: segment 0 is done and taken, 1 and 2 are begun."""
    source = Slow(clock, 1.4)
    loop = ChunkLoop(source, handoff, clock, lambda: 0.0, describe=describe)
    assert loop.step()
    source.finish(0)
    assert handoff.poll() is not None
    # Both steps end although nothing is finished: the second would wait for ever if it did not overlap.
    assert loop.step()
    assert loop.step()
    return source, loop


def test_near_real_time_a_segment_is_begun_while_the_last_one_is_finished() -> None:
    handoff = Handoff[Segment]()
    source, loop = overlapping(FakeClock(), handoff)
    assert loop.report.segments == 1
    source.finish(1)
    source.finish(2)
    assert (loop.report.segments, len(handoff)) == (3, 2)


@pytest.mark.parametrize(("work_s", "slack"), [(0.1, 0.0), (1.4, 0.5)])
def test_with_time_to_spare_a_segment_waits_for_the_last_one(work_s: float, slack: float) -> None:
    clock, handoff = FakeClock(), Handoff[Segment](3)
    source = Slow(clock, work_s)
    loop = ChunkLoop(source, handoff, clock, lambda: slack)
    assert loop.step()
    source.finish(0)
    assert loop.step()
    thread = in_thread(loop.step)
    thread.join(0.05)
    assert (thread.is_alive(), len(source.begun)) == (True, 2)
    source.finish(1)
    thread.join(JOIN_S)
    assert len(source.begun) == 3


def test_a_segment_that_fails_late_is_told_and_its_place_given_back() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    source = Slow(clock, 0.1)
    loop = ChunkLoop(source, handoff, clock, lambda: 0.0)
    assert loop.step()
    source.begun[0][0].set_exception(ValueError("the decoder broke"))
    assert (loop.report.failures, loop.report.last_error) == (1, "the decoder broke")
    assert loop.step()
    assert clock.waits == [BACKOFF_S[0]]
    source.finish(1)
    assert (loop.report.failures, handoff.poll() is not None) == (0, True)


def nothing_begins_while_a_failure_is_held_up(loop: ChunkLoop, source: Slow, hold: threading.Event) -> None:
    """Segment 1 fails while the loop makes its next step, and `hold` is set in the end."""
    begun = len(source.begun)
    thread = in_thread(loop.step)
    failing = in_thread(lambda: source.begun[1][0].set_exception(ValueError("the decoder broke")))
    thread.join(0.05)
    assert (thread.is_alive(), len(source.begun)) == (True, begun)
    hold.set()
    failing.join(JOIN_S)
    thread.join(JOIN_S)


def test_a_segment_that_fails_while_it_is_waited_for_is_backed_off_from() -> None:
    clock, handoff = FakeClock(), Handoff[Segment](3)
    source, hold = Slow(clock, 0.1), threading.Event()
    loop = ChunkLoop(source, handoff, clock, lambda: 0.0)
    assert loop.step()
    source.finish(0)
    # A future wakes who waits for it before it calls its callbacks. Held up between the two, nothing may begin.
    source.at_end = lambda _: hold.wait(JOIN_S)
    assert loop.step()
    assert len(source.begun) == 2
    waits = len(clock.waits)
    nothing_begins_while_a_failure_is_held_up(loop, source, hold)
    assert len(source.begun) == 3
    assert BACKOFF_S[0] in clock.waits[waits:]


def test_with_nothing_to_make_it_rests_until_something_changes() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    make, over = fake_source(clock, 0.1), True

    def source() -> Future[Segment]:
        if over:
            raise OSError("the song is over")
        return make()

    loop = ChunkLoop(source, handoff, clock, lambda: 0.0, idle=(OSError,))
    for _ in range(3):
        assert loop.step()
    assert clock.waits == [BACKOFF_S[-1]] * 3
    assert (loop.report.failures, loop.report.last_error, loop.report.idle) == (0, None, "the song is over")
    over = False
    assert loop.step()
    assert (loop.report.segments, loop.report.idle) == (1, None)


@pytest.mark.parametrize("fails", [False, True])
def test_the_segment_that_is_being_finished_comes_before_a_rest(fails: bool) -> None:
    """The song ends while its last chunk is decoded. If that fails, it is made again, and there is no rest."""
    clock, handoff = FakeClock(), Handoff[Segment]()
    source = Slow(clock, 1.4)

    def until_the_end() -> Future[Segment]:
        if len(source.begun) == 2:
            raise OSError("the song is over")
        return source()

    loop = ChunkLoop(until_the_end, handoff, clock, lambda: 0.0, idle=(OSError,))
    assert loop.step()
    source.finish(0)
    assert handoff.poll() is not None
    assert loop.step()
    thread = in_thread(loop.step)
    thread.join(0.05)
    assert (thread.is_alive(), loop.report.idle) == (True, None)
    if fails:
        source.begun[1][0].set_exception(ValueError("the decoder broke"))
    else:
        source.finish(1)
    thread.join(JOIN_S)
    assert not thread.is_alive()
    if fails:
        assert (loop.report.idle, loop.report.last_error, clock.waits) == (None, "the decoder broke", [])
    else:
        assert handoff.poll() is source.begun[1][1]
        assert (loop.report.idle, clock.waits) == ("the song is over", [BACKOFF_S[-1]])


def test_the_place_of_a_segment_that_failed_is_given_back_when_its_failure_is_known() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    hold = threading.Event()

    def describe(error: BaseException) -> str:
        hold.wait(JOIN_S)
        return str(error)

    source, loop = overlapping(clock, handoff, describe)
    assert len(source.begun) == 3
    nothing_begins_while_a_failure_is_held_up(loop, source, hold)
    assert (len(source.begun), clock.waits) == (4, [BACKOFF_S[0]])


def test_nothing_is_waited_for_when_the_next_segment_has_succeeded_meanwhile() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    source, loop = overlapping(clock, handoff)
    source.begun[1][0].set_exception(ValueError("the decoder broke"))
    source.finish(2)
    assert handoff.poll() is not None
    assert loop.step()
    assert clock.waits == []


class GaveUp(Exception):
    """A chunk abandoned on request."""


def raising(error: BaseException) -> Callable[[], Future[Segment]]:
    def source() -> Future[Segment]:
        raise error

    return source


def test_an_abandoned_chunk_is_no_failure() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    loop = ChunkLoop(raising(GaveUp()), handoff, clock, lambda: 0.0, abandoned=(GaveUp,))
    assert loop.step()
    assert loop.report.failures == 0
    assert clock.waits == []


@pytest.mark.parametrize("error", [OSError("the model is gone"), SystemExit("the model is gone")])
def test_a_fatal_error_ends_the_thread_and_reaches_the_consumer(error: BaseException) -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    loop = ChunkLoop(raising(error), handoff, clock, lambda: 0.0, fatal=(OSError,))
    loop.start()
    with pytest.raises(type(error), match="the model is gone"):
        handoff.take(JOIN_S)
    assert loop.stop(JOIN_S)
    assert loop.report.last_error == "the model is gone"


def test_stop_ends_a_thread_that_waits_for_a_place() -> None:
    clock, handoff = FakeClock(), Handoff[Segment]()
    loop = ChunkLoop(fake_source(clock, 0.1), handoff, clock, lambda: 0.0, name="generation")
    loop.start()
    assert handoff.take(JOIN_S) is not None
    assert any(thread.name == "generation" for thread in threading.enumerate())
    assert loop.stop(JOIN_S)
    assert not any(thread.name == "generation" for thread in threading.enumerate())
    assert not loop.step()


def test_stop_ends_a_thread_that_waits_for_the_pace() -> None:
    class StuckClock(FakeClock):
        def wait(self, stop: threading.Event, seconds: float) -> bool:
            waiting.set()
            return stop.wait(JOIN_S)

    waiting = threading.Event()
    clock, handoff = StuckClock(), Handoff[Segment](2)
    loop = ChunkLoop(fake_source(clock, 0.0), handoff, clock, lambda: 0.5)
    loop.start()
    assert waiting.wait(JOIN_S)
    assert loop.stop(JOIN_S)
