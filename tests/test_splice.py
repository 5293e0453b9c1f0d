"""What of a chunk is shown, what the next one goes on from, and the 10 ms in which both sound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from scope_ltx.config import LTX2Config
from scope_ltx.splice import CROSSFADE_SAMPLES, Cut, crossfaded
from scope_streaming.media.timeline import segment_samples

EXTEND = LTX2Config(
    height=64, width=64, num_frames=33, continuity="extend", overlap_latents=2, trim_tail=4, frame_rate=25
)
FRAMES = np.broadcast_to(np.arange(33, dtype=np.uint8)[:, None, None, None], (33, 64, 64, 3))
WHOLE = segment_samples(33, Fraction(25), 48_000)
SAMPLES = np.tile(np.arange(WHOLE, dtype=np.float32) / WHOLE, (2, 1))
PER_FRAME = 1920
NONE = np.zeros((2, 0), np.float32)


def test_a_first_chunk_drops_its_smeared_tail_and_keeps_what_was_shown_last() -> None:
    cut = Cut.of(EXTEND, continues=False, driven=False)
    picture, sound = cut.shown(FRAMES, SAMPLES, None)
    assert picture[:, 0, 0, 0].tolist() == list(range(29))
    assert np.array_equal(sound, SAMPLES[:, : 29 * PER_FRAME])
    kept = cut.kept(FRAMES, SAMPLES, NONE)
    assert kept is not None
    assert kept.tail.frames[:, 0, 0, 0].tolist() == list(range(20, 29))
    assert kept.tail.samples is not None
    assert np.array_equal(kept.tail.samples, SAMPLES[:, 20 * PER_FRAME : 29 * PER_FRAME])
    assert np.array_equal(kept.surplus, SAMPLES[:, 29 * PER_FRAME :][:, :CROSSFADE_SAMPLES])


def test_the_next_chunk_leaves_out_what_it_repeats_and_fades_in() -> None:
    before = Cut.of(EXTEND, continues=False, driven=False).kept(FRAMES, SAMPLES, NONE)
    assert before is not None
    cut = Cut.of(EXTEND, continues=True, driven=False)
    louder = np.ones_like(SAMPLES)
    picture, sound = cut.shown(FRAMES, louder, before)
    assert picture[:, 0, 0, 0].tolist() == list(range(9, 29))
    assert sound.shape == (2, 20 * PER_FRAME)
    assert np.array_equal(sound[:, 0], before.surplus[:, 0])
    assert np.array_equal(sound[:, CROSSFADE_SAMPLES - 1 :], louder[:, : 20 * PER_FRAME - CROSSFADE_SAMPLES + 1])
    assert (np.diff(sound[0, :CROSSFADE_SAMPLES]) >= 0).all()


def test_with_nothing_trimmed_the_next_chunk_fades_in_over_the_surplus() -> None:
    untrimmed = EXTEND.updated(trim_tail=0)
    surplus = np.full((2, CROSSFADE_SAMPLES + 100), 0.5, np.float32)
    kept = Cut.of(untrimmed, continues=False, driven=False).kept(FRAMES, SAMPLES, surplus)
    assert kept is not None
    assert np.array_equal(kept.surplus, surplus[:, :CROSSFADE_SAMPLES])


def test_sound_that_is_the_same_on_both_sides_is_not_changed_by_the_fade() -> None:
    same = np.full((2, 1000), 0.25, np.float32)
    assert crossfaded(same[:, :CROSSFADE_SAMPLES], same) == pytest.approx(same)
    assert crossfaded(same[:, :0], same) is same


def test_a_driving_track_comes_cut_and_is_shown_as_it_is() -> None:
    cut = Cut.of(EXTEND, continues=True, driven=True)
    track = np.ones((2, cut.samples), np.float32)
    assert cut.shown(FRAMES, track, None)[1] is track
    kept = cut.kept(FRAMES, track, NONE)
    assert kept is not None
    assert kept.tail.samples is None
    assert kept.surplus.shape == (2, 0)


def test_a_cut_keeps_nothing() -> None:
    config = EXTEND.model_copy(update={"continuity": "cut"})
    assert Cut.of(config, continues=False, driven=False).kept(FRAMES, SAMPLES, NONE) is None


@pytest.mark.parametrize("change", [{"height": 96}, {"width": 96}, {"frame_rate": 24.0}, {"overlap_latents": 1}])
def test_what_was_kept_does_not_fit_another_size_rate_or_overlap(change: dict[str, object]) -> None:
    kept = Cut.of(EXTEND, continues=False, driven=False).kept(FRAMES, SAMPLES, NONE)
    assert kept is not None
    assert kept.fits(EXTEND)
    assert not kept.fits(EXTEND.model_copy(update=change))
