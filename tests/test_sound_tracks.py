"""Driving tracks chunk after chunk, from a file and live."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.sampling.geometry import audio_tokens_covering
from scope_ltx.sound_in.lengths import model_samples_for
from scope_ltx.sound_in.live import LiveTrack
from scope_ltx.sound_in.resample import to_model_rate
from scope_ltx.sound_in.track import DrivingTrack, Stretch, Track, TrackEnded
from scope_ltx.sound_in.window import SoundWindow
from scope_streaming.media.timeline import Timeline, segment_samples
from tests.fakes.sounds import (
    ArrayReader,
    Samples,
    at_places,
    chirp,
    hiss,
    read_all,
    resampled,
    write_sound,
)

RATE = 48_000
DEFAULT = 258_000
"""Samples of a chunk of 129 frames at 24 fps."""


def take(track: Track, samples: int) -> Stretch:
    stretch = track.peek(samples, audio_tokens_covering(samples))
    track.commit(stretch)
    return stretch


def track_of(samples: Samples, at_end: Any, loop_head: int = 0) -> DrivingTrack:
    return DrivingTrack(Path("track.wav"), at_end, lambda _path, _rate: ArrayReader(samples), loop_head)


# Driving tracks


RATES = st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(25, 3)])
CHUNKS = st.lists(st.tuples(st.sampled_from([9, 17, 33]), RATES), min_size=1, max_size=8)
ENDLESS = st.sampled_from(["loop", "silence"])


@given(chunks=CHUNKS, length=st.integers(1, 300_000), at_end=ENDLESS, head=st.booleans())
@settings(max_examples=40)
def test_chunks_joined_are_the_track(
    chunks: list[tuple[int, Fraction]], length: int, at_end: str, head: bool
) -> None:
    samples = hiss(length)
    track = track_of(samples, at_end, 60_000 if head else 0)
    timeline = Timeline(RATE)
    outputs = []
    for frames, frame_rate in chunks:
        times = timeline.advance(frames, frame_rate)
        stretch = take(track, segment_samples(frames, frame_rate, RATE))
        assert stretch.start * 15 == times.start
        assert stretch.stop * 15 == times.end
        outputs.append(stretch.output)
        assert stretch.ended == (at_end == "silence" and stretch.stop >= length)
        expected = stretch.stop - stretch.start if at_end == "loop" else min(stretch.stop, length) - stretch.start
        assert stretch.sounding == max(0, expected)
    joined = np.concatenate(outputs, axis=1)
    places = np.arange(joined.shape[1])
    expected_sound = samples[:, places % length] if at_end == "loop" else at_places(samples)(places)
    np.testing.assert_array_equal(joined, expected_sound)


@given(
    start=st.integers(0, 40_000),
    samples=st.integers(2_000, 12_000),
    overlap=st.sampled_from([0, 1, 2_000, 34_000]),
    at_end=ENDLESS,
)
@settings(max_examples=25)
def test_the_model_hears_the_same_time_to_the_sample(start: int, samples: int, overlap: int, at_end: str) -> None:
    sound = hiss(30_000)
    track = track_of(sound, at_end, 10_000)
    track.seek(start)
    tokens = audio_tokens_covering(samples + overlap)
    stretch = track.peek(samples, tokens, overlap)
    model = stretch.model
    assert (stretch.start, stretch.stop) == (start, start + samples)
    assert model.shape == (2, model_samples_for(tokens))
    around = at_places(sound)

    def endless(places: np.ndarray[Any, Any]) -> Any:
        looped = np.where(places < 0, -1, places % sound.shape[1])
        return around(looped if at_end == "loop" else places)

    count = 400
    first = model.shape[1] - count
    np.testing.assert_allclose(
        model[:, :count], resampled(endless, RATE, 16_000, start - overlap, count), atol=2e-6
    )
    np.testing.assert_allclose(
        model[:, first:], resampled(endless, RATE, 16_000, start - overlap + 3 * first, count), atol=2e-6
    )


def test_a_default_chunk_hears_86913_samples_and_what_comes_next() -> None:
    sound = hiss(2 * DEFAULT)
    stretch = track_of(sound, "silence").peek(DEFAULT, 136)
    np.testing.assert_array_equal(stretch.model, to_model_rate(sound)[:, :86_913])
    assert stretch.output.shape == (2, DEFAULT)
    assert stretch.output.dtype == stretch.model.dtype == np.float32


def test_a_chunk_can_be_tried_again_and_a_stale_one_is_refused() -> None:
    track = track_of(hiss(500_000), "silence")
    first = track.peek(100_000, 53)
    again = track.peek(100_000, 53)
    np.testing.assert_array_equal(first.output, again.output)
    assert track.position == 0
    track.commit(first)
    with pytest.raises(ValueError, match="the track is at sample 100000, the stretch starts at 0"):
        track.commit(again)
    track.seek(0)
    np.testing.assert_array_equal(track.peek(100_000, 53).output, first.output)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        track.seek(-1)
    for samples, overlap in ((0, 0), (100, -1)):
        with pytest.raises(ValueError, match=f"got {samples} and {overlap}"):
            track.peek(samples, 53, overlap)


@given(length=st.integers(1, 60_000), chunk=st.integers(1_000, 30_000))
@settings(max_examples=30)
def test_stop_ends_after_the_chunk_that_holds_the_last_sample(length: int, chunk: int) -> None:
    track = track_of(hiss(length), "stop")
    heard = 0
    while True:
        stretch = take(track, chunk)
        heard += stretch.sounding
        assert not stretch.output[:, stretch.sounding :].any()
        assert stretch.ended == (heard == length)
        if stretch.ended:
            break
    with pytest.raises(TrackEnded, match=r"track\.wav has ended after"):
        track.peek(chunk, audio_tokens_covering(chunk))


def test_what_follows_the_end_must_be_known() -> None:
    with pytest.raises(ValueError, match="loop, silence or stop, got 'fade'"):
        track_of(hiss(10), "fade")


def test_hours_of_sound_take_seconds_of_memory_and_one_pass() -> None:
    class Endless(ArrayReader):
        opened = 0

        def read(self, count: int) -> Samples:
            return np.zeros((2, count), np.float32)

    window = SoundWindow(lambda: Endless(hiss(1)))
    for start in range(0, 3 * 3600 * RATE, 60 * DEFAULT):
        assert window.read(start, DEFAULT).shape == (2, DEFAULT)
        assert DEFAULT * 8 <= window.held_nbytes <= (DEFAULT + 2 * 48_000) * 8
    assert Endless.opened == 1


def test_going_round_a_long_loop_decodes_the_file_once_a_round() -> None:
    class Counted(ArrayReader):
        opened = 0

    sound = hiss(100_000)
    track = DrivingTrack(Path("x"), "loop", lambda _path, _rate: Counted(sound), loop_head=30_000)
    for _ in range(100):
        take(track, 10_000)
    assert track.position == 1_000_000
    assert Counted.opened <= 11


def test_a_window_reads_any_place_again() -> None:
    sound = hiss(300_000)
    window = SoundWindow(lambda: ArrayReader(sound), head=1_000)
    for start, count in [
        (0, 10),
        (200_000, 50_000),
        (199_000, 10),
        (5, 2_000),
        (299_990, 100),
        (400_000, 5),
        (0, 0),
    ]:
        np.testing.assert_array_equal(window.read(start, count), sound[:, start : start + count])
    assert window.length == 300_000
    with pytest.raises(ValueError, match="must not be negative"):
        window.read(-1, 5)


@pytest.mark.parametrize(("name", "codec"), [("d.mp3", "libmp3lame"), ("d.m4a", "aac"), ("d.wav", "pcm_s16le")])
@pytest.mark.parametrize("at_end", ["loop", "stop"])
def test_chunks_of_a_real_file_joined_are_the_file(tmp_path: Path, name: str, codec: str, at_end: Any) -> None:
    path = write_sound(tmp_path / name, chirp(4, 44_100), 44_100, codec)
    whole = read_all(path)
    track = DrivingTrack(path, at_end)
    outputs = [take(track, segment_samples(25, Fraction(24000, 1001), RATE)).output for _ in range(4)]
    track.close()
    joined = np.concatenate(outputs, axis=1)
    assert joined.shape[1] > whole.shape[1]
    expected = np.concatenate([whole, whole if at_end == "loop" else np.zeros_like(whole)], axis=1)
    np.testing.assert_array_equal(joined, expected[:, : joined.shape[1]])


def test_damage_further_on_is_told_when_it_is_reached(tmp_path: Path) -> None:
    sound = hiss(4 * RATE)
    whole = write_sound(tmp_path / "long.flac", sound, RATE, "flac").read_bytes()
    path = tmp_path / "cut.flac"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    track = DrivingTrack(path, "silence")
    assert take(track, RATE).sounding == RATE
    assert track.damage is None
    stretches = [take(track, RATE) for _ in range(4)]
    assert "cut.flac: it cannot be decoded any further after" in str(track.damage)
    # Nothing of what could be decoded is lost.
    heard = np.concatenate([stretch.output for stretch in stretches], axis=1)
    sounding = sum(stretch.sounding for stretch in stretches)
    assert sounding > RATE
    np.testing.assert_allclose(heard[:, :sounding], sound[:, RATE : RATE + sounding], atol=1e-4)
    assert not heard[:, sounding:].any()
    track.close()


@pytest.mark.parametrize(("before", "after"), [("loop", "stop"), ("loop", "silence"), ("stop", "loop")])
def test_what_follows_the_end_can_change_while_it_plays(before: str, after: str) -> None:
    sound = hiss(100_000)
    track = track_of(sound, before, 40_000)
    rounds = 3 if before == "loop" else 1
    heard = [take(track, 30_000).output for _ in range(10 if before == "loop" else 2)]
    track.end_with(cast(Any, after))
    heard += [take(track, 30_000).output for _ in range(2)]
    place = sum(part.shape[1] for part in heard)
    np.testing.assert_array_equal(np.concatenate(heard, axis=1), np.tile(sound, (1, rounds + 1))[:, :place])


def test_the_same_end_again_opens_nothing() -> None:
    """It is said before every chunk, also of a song that is shorter than what a loop keeps of its beginning."""
    opened: list[Path] = []

    def open_reader(path: Path, rate: int) -> ArrayReader:
        opened.append(path)
        return ArrayReader(hiss(10_000))

    track = DrivingTrack(Path("track.wav"), "loop", open_reader)
    for _ in range(3):
        track.end_with("loop")
    assert len(opened) == 1


def test_a_track_that_has_ended_begins_anew_as_a_loop() -> None:
    sound = hiss(40_000)
    track = track_of(sound, "silence")
    for _ in range(3):
        take(track, 30_000)
    track.end_with("loop")
    np.testing.assert_array_equal(take(track, 60_000).output, np.tile(sound, (1, 2))[:, :60_000])
    with pytest.raises(ValueError, match="loop, silence or stop, got 'fade'"):
        track.end_with(cast(Any, "fade"))


# Live input


@given(
    blocks=st.lists(st.integers(1, 9_000), min_size=1, max_size=40),
    chunk=st.integers(1_000, 20_000),
    stamped=st.booleans(),
)
@settings(max_examples=40)
def test_what_is_pushed_is_played_whole_and_in_order(blocks: list[int], chunk: int, stamped: bool) -> None:
    sound = hiss(sum(blocks))
    track = LiveTrack(capacity_s=10)
    played, silence, place = [], 0, 0
    for count in blocks:
        track.push(sound[:, place : place + count], 77_000 + place if stamped else None)
        place += count
        if place % 3:
            stretch = take(track, chunk)
            played.append(stretch.output[:, : stretch.sounding])
            assert not stretch.output[:, stretch.sounding :].any()
            silence += chunk - stretch.sounding
    joined = np.concatenate([np.zeros((2, 0), np.float32), *played], axis=1)
    np.testing.assert_array_equal(joined, sound[:, : joined.shape[1]])
    counts = track.counts
    assert counts.waiting == sound.shape[1] - joined.shape[1]
    assert (counts.silent, counts.late, counts.skipped) == (silence, 0, 0)


def test_a_live_chunk_hears_what_a_file_would_give() -> None:
    sound = hiss(100_000)
    live, file = LiveTrack(), track_of(sound, "silence")
    live.push(sound)
    for _ in range(2):
        ours, theirs = take(live, 30_000), take(file, 30_000)
        np.testing.assert_array_equal(ours.output, theirs.output)
        np.testing.assert_array_equal(ours.model, theirs.model)


def test_an_overlap_of_live_sound_is_what_was_played() -> None:
    sound = hiss(30_000)
    track = LiveTrack()
    track.push(sound[:, :10_000])
    first = take(track, 15_000)
    assert first.sounding == 10_000
    track.push(sound[:, 10_000:])
    second = track.peek(20_000, audio_tokens_covering(28_000), overlap=8_000)
    played = np.concatenate([first.output, second.output], axis=1)
    heard = resampled(at_places(played), RATE, 16_000, 15_000 - 8_000, 8_000)
    np.testing.assert_allclose(second.model[:, :8_000], heard, atol=2e-6)
    np.testing.assert_array_equal(second.output, sound[:, 10_000:30_000])


def test_where_nothing_was_sent_there_is_silence_and_order_does_not_matter() -> None:
    sound = hiss(3_000)
    track = LiveTrack()
    track.push(sound[:, :1_000], 5_000)
    track.push(sound[:, 2_000:], 8_000)
    track.push(sound[:, 1_000:2_000], 6_500)
    expected = np.zeros((2, 4_000), np.float32)
    expected[:, :1_000], expected[:, 1_500:2_500] = sound[:, :1_000], sound[:, 1_000:2_000]
    expected[:, 3_000:] = sound[:, 2_000:]
    np.testing.assert_array_equal(take(track, 4_000).output, expected)
    track.push(sound[:, :500], 8_500)
    assert track.counts.late == 500
    track.push(sound[:, :500], 8_800)
    assert track.counts.late == 700
    np.testing.assert_array_equal(take(track, 300).output, sound[:, 200:500])


def test_a_full_buffer_leaves_the_oldest_out() -> None:
    sound = hiss(12_000)
    track = LiveTrack(capacity_s=0.1)
    for place in range(0, 12_000, 1_000):
        track.push(sound[:, place : place + 1_000])
    assert track.counts.skipped == 12_000 - 4_800
    np.testing.assert_array_equal(take(track, 4_800).output, sound[:, -4_800:])
    track.push(sound)
    np.testing.assert_array_equal(take(track, 4_800).output, sound[:, -4_800:])
    with pytest.raises(ValueError, match=r"does not fit a live input that holds 0\.10 s"):
        track.peek(4_801, 10)


def test_a_buffer_that_overflows_between_peek_and_commit_goes_on_with_what_it_has() -> None:
    sound = hiss(12_000)
    track = LiveTrack(capacity_s=0.1)
    track.push(sound[:, :4_000])
    stretch = track.peek(2_000, 2)
    track.push(sound[:, 4_000:])
    track.commit(stretch)
    np.testing.assert_array_equal(take(track, 4_800).output, sound[:, -4_800:])
    with pytest.raises(ValueError, match="the stretch starts at 0"):
        track.commit(stretch)


def test_a_sender_that_starts_again_goes_on_after_what_was_there() -> None:
    sound = hiss(2_000)
    track = LiveTrack(capacity_s=1)
    track.push(sound[:, :1_000], 10**9)
    track.push(sound[:, 1_000:], 0)
    np.testing.assert_array_equal(take(track, 2_000).output, sound)


def test_ready_when_all_that_a_chunk_hears_is_there() -> None:
    track = LiveTrack()
    track.push(hiss(DEFAULT + 2_000))
    assert not track.ready(DEFAULT, 136)
    track.push(hiss(1_000))
    assert track.ready(DEFAULT, 136)
    track.close()
    assert track.counts.waiting == 0


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((3, 10), np.float32), "got float32 \\(3, 10\\)"),
        (np.zeros((2, 10), np.int16), "got int16"),
        (np.full((2, 10), np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_what_is_no_sound_is_not_pushed(samples: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LiveTrack().push(samples)


def test_two_threads_push_and_take_without_losing_a_sample() -> None:
    sound = hiss(200_000)
    track = LiveTrack(capacity_s=10)

    def push() -> None:
        for place in range(0, 200_000, 960):
            track.push(sound[:, place : place + 960])

    sender = threading.Thread(target=push, name="sender")
    sender.start()
    played: list[Samples] = []
    while sender.is_alive() or track.counts.waiting:
        stretch = take(track, 5_000)
        played.append(stretch.output[:, : stretch.sounding])
    sender.join()
    np.testing.assert_array_equal(np.concatenate(played, axis=1), sound)
