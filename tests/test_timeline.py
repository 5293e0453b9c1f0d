from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import (
    TICKS_PER_SECOND,
    SegmentTimes,
    Timeline,
    exact_frame_rate,
    segment_samples,
)

RATES = [Fraction(24), Fraction(25), Fraction(30), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60)]


@pytest.mark.parametrize(
    ("given_rate", "exact"),
    [
        (24.0, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(1199, 50)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (12.5, Fraction(25, 2)),
        (0.5, Fraction(1, 2)),
        (24.5, Fraction(49, 2)),
    ],
)
def test_exact_frame_rate(given_rate: float, exact: Fraction) -> None:
    assert exact_frame_rate(given_rate) == exact


@pytest.mark.parametrize("rate", [0.0, -24.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="positive and finite, got"):
        exact_frame_rate(rate)


@given(st.floats(0.001, 120))
def test_any_decimal_rate_is_met_within_a_millionth(rate: float) -> None:
    assert float(exact_frame_rate(rate)) == pytest.approx(rate, rel=1e-3, abs=1e-6)


def test_the_default_chunk() -> None:
    times = Timeline(48_000).advance(129, Fraction(24))
    assert times.samples == 258_000
    assert times.seconds == 5.375
    assert times.frame_ticks[:3] == (0, 30_000, 60_000)


@given(
    pieces=st.lists(st.tuples(st.integers(1, 257), st.sampled_from(RATES)), min_size=1, max_size=50),
    sample_rate=st.sampled_from([24_000, 48_000]),
)
def test_segments_touch_and_sound_never_leaves_the_picture(
    pieces: list[tuple[int, Fraction]], sample_rate: int
) -> None:
    timeline = Timeline(sample_rate)
    end = samples = 0
    exact_s = Fraction(0)
    for frames, rate in pieces:
        times = timeline.advance(frames, rate)
        assert times.start == end
        assert times.frame_ticks[0] == times.start
        assert all(a < b for a, b in zip(times.frame_ticks, times.frame_ticks[1:], strict=False))
        assert times.frame_ticks[-1] < times.end
        end, samples, exact_s = times.end, samples + times.samples, exact_s + frames / rate
        assert end * sample_rate == samples * TICKS_PER_SECOND
        # Half a sample per segment is the most that rounding can add up to.
        assert abs(Fraction(end, TICKS_PER_SECOND) - exact_s) <= Fraction(len(pieces), 2 * sample_rate)


def test_an_hour_at_24_fps_has_no_rounding_at_all() -> None:
    timeline = Timeline(48_000)
    for _ in range(670):
        last = timeline.advance(129, Fraction(24))
    assert last.end == 670 * 129 * 30_000


def test_peek_takes_nothing_and_commit_checks() -> None:
    timeline = Timeline(48_000)
    first = timeline.peek(9, Fraction(24))
    assert timeline.peek(9, Fraction(24)) == first
    timeline.commit(first)
    with pytest.raises(ValueError, match="the cursor is at 270000, the times start at 0"):
        timeline.commit(first)


def test_what_cannot_be_placed_is_refused() -> None:
    with pytest.raises(ValueError, match="must divide 720000, got 44100"):
        Timeline(44_100)
    with pytest.raises(ValueError, match="at least one frame, got 0"):
        Timeline(48_000).advance(0, Fraction(24))
    with pytest.raises(ValueError, match="shorter than one sample"):
        Timeline(48_000).advance(1, Fraction(200_000))


def test_segment_samples_rounds_to_nearest() -> None:
    assert segment_samples(1, Fraction(24000, 1001), 48_000) == 2002
    assert segment_samples(9, Fraction(7), 48_000) == 61_714


@pytest.mark.parametrize(
    ("frames", "samples", "message"),
    [
        (np.zeros((9, 32, 32), np.uint8), np.zeros((2, 18_000), np.float32), "frames must be uint8"),
        (np.zeros((9, 32, 32, 3), np.float32), np.zeros((2, 18_000), np.float32), "frames must be uint8"),
        (np.zeros((9, 32, 32, 3), np.uint8), np.zeros(18_000, np.float32), "samples must be float32"),
        (np.zeros((9, 32, 32, 3), np.uint8), np.zeros((2, 18_000)), "samples must be float32"),
        (np.zeros((8, 32, 32, 3), np.uint8), np.zeros((2, 18_000), np.float32), "the media have 8 and 18000"),
        (np.zeros((9, 32, 32, 3), np.uint8), np.zeros((2, 17_999), np.float32), "the media have 9 and 17999"),
    ],
)
def test_a_segment_refuses_media_that_do_not_fit_its_times(
    frames: np.ndarray, samples: np.ndarray, message: str
) -> None:
    times: SegmentTimes = Timeline(48_000).advance(9, Fraction(24))
    with pytest.raises(ValueError, match=message):
        Segment(0, frames, samples, times)
