from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_streaming.media.pacing import PlayoutClock, may_start
from scope_streaming.media.timeline import TICKS_PER_SECOND


@given(media_s=st.floats(0, 1e6), elapsed_s=st.floats(0, 1e6))
def test_no_slack_never_waits(media_s: float, elapsed_s: float) -> None:
    assert may_start(media_s, elapsed_s, 0.0) == 0.0


@given(media_s=st.floats(0, 1e5), elapsed_s=st.floats(0, 1e5), slack=st.floats(0.001, 10))
def test_after_the_wait_the_lead_is_at_most_the_slack(media_s: float, elapsed_s: float, slack: float) -> None:
    wait_s = may_start(media_s, elapsed_s, slack)
    assert wait_s >= 0
    assert media_s <= (elapsed_s + wait_s) * (1 + slack) + 1e-6
    if wait_s:
        assert media_s == pytest.approx((elapsed_s + wait_s) * (1 + slack))


@pytest.mark.parametrize("slack", [-0.1, float("nan")])
def test_a_slack_that_makes_no_sense_is_refused(slack: float) -> None:
    with pytest.raises(ValueError, match="slack must be 0 or more"):
        may_start(1.0, 1.0, slack)


def test_deadlines_are_absolute() -> None:
    clock = PlayoutClock()
    clock.start(100.0)
    assert clock.deadline_s(TICKS_PER_SECOND * 3600) == 3700.0
    assert clock.ticks_at(100.5) == TICKS_PER_SECOND // 2
    assert clock.ticks_at(99.0) == -TICKS_PER_SECOND


def test_late_media_stall_once_and_move_all_that_follow() -> None:
    clock = PlayoutClock()
    assert clock.place(0, 0) == (0, None)
    start, stall = clock.place(1000, 1700)
    assert start == 1700
    assert stall is not None
    assert (stall.at_ticks, stall.ticks) == (1000, 700)
    assert clock.place(2000, 2500) == (2700, None)
    assert (clock.stalls, clock.stall_s) == (1, 700 / TICKS_PER_SECOND)


def test_the_first_media_are_no_stall_however_late() -> None:
    clock = PlayoutClock()
    assert clock.place(0, 123_456) == (123_456, None)
    assert clock.stalls == 0


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 30_000)), max_size=40))
def test_presentation_is_media_plus_all_stalls(steps: list[tuple[int, int]]) -> None:
    clock = PlayoutClock()
    clock.place(0, 0)
    media = presented_end = stalled = 0
    for length, late in steps:
        start, stall = clock.place(media, presented_end + late)
        stalled += stall.ticks if stall else 0
        assert start == media + stalled
        assert start >= presented_end
        media, presented_end = media + length, start + length
    assert round(clock.stall_s * TICKS_PER_SECOND) == stalled


def test_a_clock_says_when_it_is_used_too_early_or_started_twice() -> None:
    clock = PlayoutClock()
    with pytest.raises(RuntimeError, match="has not started"):
        clock.deadline_s(0)
    with pytest.raises(RuntimeError, match="nothing was placed"):
        clock.stall(0, 1)
    clock.start(0.0)
    with pytest.raises(RuntimeError, match="started already"):
        clock.start(0.0)
