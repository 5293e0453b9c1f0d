"""Reference frames from files, directories, stills and hosts: the right frame at the right time, and no other."""

from __future__ import annotations

import gc
import os
import threading
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scope_ltx.media_in.errors import MediaInputError
from scope_ltx.media_in.fit import fit
from scope_ltx.media_in.frame_times import FrameTimes, on_show
from scope_ltx.media_in.image_folder import ImageFolderReference
from scope_ltx.media_in.live import LiveReference
from scope_ltx.media_in.open_reference import open_reference
from scope_ltx.media_in.reference import AtEnd, ReferenceSource, StillReference
from scope_ltx.media_in.video_file import VideoFileReference
from tests.fakes.clock import FakeClock
from tests.fakes.pictures import GREY_STEP, TICK, corners, grey, numbers, quadrants, write_clip

SIZE = (64, 96)
RATE = Fraction(24)


def at(start: int | float | Fraction, count: int, rate: Fraction = RATE) -> FrameTimes:
    return FrameTimes(Fraction(start), count, rate)


def seen(source: ReferenceSource, times: FrameTimes) -> list[int]:
    return numbers(source.frames(times, *SIZE, "crop"))


def chunks(source: ReferenceSource, count: int, frames: int, rate: Fraction = RATE) -> list[int]:
    """Numbers over consecutive chunks."""
    return [n for i in range(count) for n in seen(source, at(i * frames / rate, frames, rate))]


# The rule

gaps_s = st.lists(st.fractions(Fraction(1, 200), 2, max_denominator=1000), max_size=40)
rates = st.sampled_from([Fraction(24), Fraction(25), Fraction(30_000, 1001), Fraction(60), Fraction(7, 2)])


@given(gaps_s, rates, st.fractions(0, 20, max_denominator=1000), st.integers(1, 60))
def test_a_frame_is_taken_while_it_is_on_show(
    gaps: list[Fraction], rate: Fraction, start: Fraction, count: int
) -> None:
    stamps = [Fraction(0), *accumulate(gaps)]
    times = FrameTimes(start, count, rate)
    chosen = [on_show(stamps, lookup) for lookup in times.lookups_s()]
    assert chosen == sorted(chosen)
    for i, index in enumerate(chosen):
        due = start + i / rate
        assert stamps[index] <= due + 1 / (8 * rate)
        if index + 1 < len(stamps):
            assert stamps[index + 1] > due


@given(st.lists(st.floats(-0.99, 0.99), min_size=40, max_size=40), rates)
def test_equal_rates_take_every_frame_once_when_stamps_are_rounded(jitter: list[float], rate: Fraction) -> None:
    eighth_s = 1 / (8 * rate)
    stamps = [i / rate + Fraction(late) * eighth_s for i, late in enumerate(jitter)]
    assert [on_show(stamps, lookup) for lookup in FrameTimes(Fraction(0), 40, rate).lookups_s()] == [*range(40)]


@pytest.mark.parametrize(("start", "count", "rate"), [(0, 0, 24), (0, 9, 0)])
def test_impossible_times_are_refused(start: int, count: int, rate: int) -> None:
    with pytest.raises(ValueError, match="at least one frame at a positive rate, got"):
        FrameTimes(Fraction(start), count, Fraction(rate))


# Files


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts"])
def test_chunk_after_chunk_goes_on_where_the_last_ended_and_loops(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", [grey(i) for i in range(40)])
    source = VideoFileReference(path, "loop")
    assert chunks(source, 4, 33) == [i % 40 for i in range(132)]
    source.close()


def test_at_the_end_the_last_frame_can_be_held(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [grey(i) for i in range(20)])
    source = VideoFileReference(path, "hold")
    assert chunks(source, 2, 17) == [min(i, 19) for i in range(34)]
    assert seen(source, at(3600, 2)) == [19, 19]
    assert seen(source, at(0, 3)) == [0, 1, 2]
    source.close()


@pytest.mark.parametrize(("rate", "expected"), [(48, 2), (12, Fraction(1, 2)), (30, Fraction(30, 24))])
def test_another_rate_repeats_or_drops_frames_and_stays_in_time(
    tmp_path: Path, rate: int, expected: Fraction
) -> None:
    path = write_clip(tmp_path / "clip.mp4", [grey(i) for i in range(48)])
    source = VideoFileReference(path, "hold")
    count = int(48 * expected)
    assert seen(source, at(0, count, Fraction(rate))) == [int((i + 1 / 8) / expected) for i in range(count)]
    source.close()


@settings(max_examples=25)
@given(
    st.lists(st.integers(600, 90_000), min_size=1, max_size=24),
    st.lists(st.tuples(st.fractions(0, 40, max_denominator=240), st.integers(1, 9)), min_size=1, max_size=6),
    st.sampled_from(["loop", "hold"]),
    st.integers(1, 12),
)
def test_any_order_of_reads_gives_what_the_rule_says_for_a_variable_rate(
    tmp_path_factory: pytest.TempPathFactory,
    gaps: list[int],
    reads: list[tuple[Fraction, int]],
    at_end: AtEnd,
    gop: int,
) -> None:
    stamps = [tick * TICK for tick in accumulate(gaps, initial=0)]
    path = tmp_path_factory.mktemp("variable") / "clip.mp4"
    write_clip(path, [grey(i) for i in range(len(stamps))], stamps, gop=gop)
    source = VideoFileReference(path, at_end)
    with av.open(str(path)) as container:
        duration = container.streams.video[0].duration
        base = container.streams.video[0].time_base
    assert duration is not None
    assert base is not None
    # The file's own clock: PyAV's MP4 writer keeps 1/90000 s or finer.
    end_s = duration * base
    for start, count in reads:
        times = FrameTimes(start, count, RATE)
        lookups = [time % end_s if at_end == "loop" else time for time in times.lookups_s()]
        assert seen(source, times) == [bisect_right(stamps, time) - 1 for time in lookups]
    source.close()


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mov"])
def test_reading_back_and_forth_in_a_file_without_a_frame_index(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", [grey(i % 60) for i in range(120)], gop=50)
    source = VideoFileReference(path, "hold")
    for first in (100, 3, 77, 49, 50, 51, 0, 119):
        assert seen(source, at(Fraction(first, 24), 3)) == [min(first + i, 119) % 60 for i in range(3)]
    source.close()


def test_a_jump_forward_does_not_decode_what_lies_between(tmp_path: Path) -> None:
    pictures = [quadrants(64, 96) // (i % 30 + 1) for i in range(120)]
    path = write_clip(tmp_path / "clip.mp4", pictures, gop=1)
    damage(path)
    source = VideoFileReference(path, "hold")
    assert source.frames(at(0, 2), *SIZE, "crop")[0].any()
    assert source.frames(at(Fraction(110, 24), 2), *SIZE, "crop")[0].any()
    with pytest.raises(MediaInputError, match="cannot be decoded"):
        source.frames(at(0, 119), *SIZE, "crop")
    source.close()


def test_times_count_from_the_first_frame_of_the_file(tmp_path: Path) -> None:
    stamps = [Fraction(5) + Fraction(i, 24) for i in range(10)]
    path = write_clip(tmp_path / "late.ts", [grey(i) for i in range(10)], stamps)
    source = VideoFileReference(path, "loop")
    assert seen(source, at(0, 20)) == [*range(10)] * 2
    source.close()


UPRIGHT = ["red", "green", "blue", "white"]


@pytest.mark.parametrize(
    ("rotation", "flip", "shown"),
    [
        (0, False, UPRIGHT),
        (90, False, ["green", "white", "red", "blue"]),  # a quarter turn counter-clockwise
        (180, False, ["white", "blue", "green", "red"]),
        (-90, False, ["blue", "red", "white", "green"]),
        (0, True, ["green", "red", "white", "blue"]),
        (180, True, ["blue", "white", "red", "green"]),
    ],
)
def test_the_display_matrix_turns_the_picture(tmp_path: Path, rotation: int, flip: bool, shown: list[str]) -> None:
    path = write_clip(tmp_path / "phone.mp4", [quadrants(64, 128)] * 2, rotation=rotation, flip=flip)
    source = VideoFileReference(path, "hold")
    height, width = (128, 64) if abs(rotation) == 90 else (64, 128)
    assert corners(source.frames(at(0, 1), height, width, "crop")[0]) == shown
    # On a square canvas the bars show which way it lies.
    boxed = source.frames(at(0, 1), 128, 128, "letterbox")[0]
    side = boxed[:, :32] if height > width else boxed[:32]
    assert not side.any()
    assert corners(boxed[:, 32:96] if height > width else boxed[32:96]) == shown
    source.close()


def test_a_turn_that_is_no_quarter_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "tilted.mp4", [quadrants(64, 64)], rotation=30)
    with pytest.raises(MediaInputError, match=r"tilted.mp4: .* not by a multiple of 90"):
        VideoFileReference(path, "hold")


def test_pixels_that_are_not_square_are_shown_in_shape(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "dv.mp4", [np.full((64, 64, 3), 200, np.uint8)], pixel_aspect=Fraction(2))
    source = VideoFileReference(path, "hold")
    boxed = source.frames(at(0, 1), 128, 128, "letterbox")[0]
    bright = np.argwhere(boxed[:, :, 0] > 100)
    assert [*bright.min(axis=0), *bright.max(axis=0)] == [32, 0, 95, 127]
    source.close()


def test_frames_are_fitted_but_not_recompressed(tmp_path: Path) -> None:
    coarse = np.random.default_rng(3).integers(0, 256, (6, 10, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((192, 128), Image.Resampling.BICUBIC))
    source = VideoFileReference(write_clip(tmp_path / "clip.mp4", [picture]), "hold")
    for scale in (1, 2):
        expected = fit(picture, 128 // scale, 192 // scale, "crop").astype(int)
        frames = source.frames(at(0, 2), 128 // scale, 192 // scale, "crop")
        assert np.array_equal(frames[0], frames[1])
        error = frames[0] - expected
        assert np.abs(error).mean() < 2  # the clip's own 4:2:0; a round trip at CRF 33 leaves more than 4
        assert np.abs(error.mean(axis=(0, 1))).max() < 0.5
    source.close()


@pytest.mark.parametrize("size", [(64, 96), (32, 48), (40, 130)])
def test_black_and_white_stay_pure(tmp_path: Path, size: tuple[int, int]) -> None:
    """Outpainting fills what is exactly black."""
    path = write_clip(tmp_path / "clip.mp4", [np.full((64, 96, 3), level, np.uint8) for level in (0, 255)])
    source = VideoFileReference(path, "hold")
    black, white = source.frames(at(0, 2), *size, "crop")
    assert (black == 0).all()
    assert (white == 255).all()
    source.close()


@pytest.mark.parametrize("matrix", ["bt709", "bt470bg"])
def test_colours_follow_the_matrix_that_the_file_states(tmp_path: Path, matrix: str) -> None:
    path = tmp_path / "colour.mp4"
    standard = {"bt709": ("ITU709", 1), "bt470bg": ("ITU601", 5)}[matrix]
    picture = np.full((64, 64, 3), (200, 40, 30), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = standard[1]
        rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
        container.mux(stream.encode(rgb.reformat(format="yuv420p", dst_colorspace=standard[0])))
        container.mux(stream.encode(None))
    source = VideoFileReference(path, "hold")
    for size in ((64, 64), (32, 32)):
        assert np.abs(source.frames(at(0, 1), *size, "crop").astype(int) - [200, 40, 30]).max() <= 4
    source.close()


def test_a_long_clip_is_never_held_in_memory(tmp_path: Path) -> None:
    pictures = [grey(i % 60, 720, 1280) for i in range(60)]
    path = write_clip(tmp_path / "long.mp4", pictures * 4, gop=1)
    whole_nbytes = 240 * 1280 * 720 * 3 // 2
    del pictures
    gc.collect()
    process = psutil.Process(os.getpid())
    source = VideoFileReference(path, "hold")
    before = process.memory_info().rss
    highest = 0
    for i in range(24):
        assert seen(source, at(Fraction(i * 10, 24), 10)) == [j % 60 for j in range(i * 10, i * 10 + 10)]
        highest = max(highest, process.memory_info().rss)
    source.close()
    assert highest - before < whole_nbytes / 3


def damage(path: Path) -> None:
    """Overwrite some frames in the middle of an MP4."""
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 800] = bytes(800)
    path.write_bytes(data)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("page.mp4", lambda _: b"<!doctype html><html>404</html>" * 20, "not a video in a known format"),
        ("cut.mp4", half, "not a video in a known format"),
        ("empty.mp4", lambda _: b"", "not a video in a known format"),
    ],
)
def test_what_is_no_usable_video_is_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], says: str
) -> None:
    whole = write_clip(tmp_path / "whole.mp4", [grey(i) for i in range(9)])
    path = tmp_path / name
    path.write_bytes(change(whole.read_bytes()))
    with pytest.raises(MediaInputError, match=says) as caught:
        VideoFileReference(path, "loop")
    assert str(path) in str(caught.value)


def test_a_file_damaged_in_the_middle_says_so_where_it_is_read(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [quadrants(64, 96) // (i + 1) for i in range(30)], gop=1)
    damage(path)
    source = VideoFileReference(path, "hold")
    with pytest.raises(MediaInputError, match=r"clip.mp4: the video cannot be decoded"):
        source.frames(at(0, 30), *SIZE, "crop")
    source.close()


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", [grey(1)])
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{clip}'\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaInputError, match=name):
            VideoFileReference(tmp_path / name, "loop")


def test_missing_files_directories_sound_and_wrong_ends_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaInputError, match="no such file"):
        VideoFileReference(tmp_path / "nothing.mp4", "loop")
    with pytest.raises(MediaInputError, match="this is a directory"):
        VideoFileReference(tmp_path, "loop")
    with pytest.raises(ValueError, match="loop or hold, got 'stop'"):
        VideoFileReference(tmp_path / "nothing.mp4", "stop")  # type: ignore[arg-type]
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 480), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
    with pytest.raises(MediaInputError, match="no video in this file"):
        VideoFileReference(sound, "loop")


# Directories


def folder_of(path: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        Image.fromarray(grey(i)).save(path / name)
    return path


def test_a_directory_is_a_clip_in_natural_order(tmp_path: Path) -> None:
    folder_of(tmp_path, ["f1.png", "f2.png", "F9.png", "f10.png", "f010.bmp", "f100.png"])
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_bytes(b"")
    source = ImageFolderReference(tmp_path, Fraction(24), "loop")
    # f010 and f10 are the same number: the name decides.
    assert seen(source, at(0, 8)) == [0, 1, 2, 4, 3, 5, 0, 1]
    slow = ImageFolderReference(tmp_path, Fraction(12), "hold")
    assert seen(slow, at(Fraction(1, 12), 12)) == [1, 1, 2, 2, 4, 4, 3, 3, 5, 5, 5, 5]
    source.close()


def test_images_of_any_kind_and_size_become_frames(tmp_path: Path) -> None:
    Image.fromarray(quadrants(40, 80)).save(tmp_path / "1.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(quadrants(60, 40), 1))).save(tmp_path / "2.jpg", exif=exif)
    frames = ImageFolderReference(tmp_path, Fraction(24), "hold").frames(at(0, 2), *SIZE, "crop")
    assert [corners(frame) for frame in frames] == [UPRIGHT, UPRIGHT]


def test_an_unusable_directory_or_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaInputError, match="no image in this directory"):
        ImageFolderReference(tmp_path, Fraction(24), "loop")
    with pytest.raises(MediaInputError, match="no such directory"):
        ImageFolderReference(tmp_path / "nowhere", Fraction(24), "loop")
    bad = tmp_path / "frame1.png"
    bad.write_bytes(b"<html>")
    with pytest.raises(MediaInputError, match="this is a file"):
        ImageFolderReference(bad, Fraction(24), "loop")
    source = ImageFolderReference(tmp_path, Fraction(24), "loop")
    with pytest.raises(MediaInputError, match=r"frame1\.png: this is a web page"):
        source.frames(at(0, 1), *SIZE, "crop")
    with pytest.raises(ValueError, match="positive, got 0"):
        ImageFolderReference(tmp_path, Fraction(0), "loop")


# Live frames


def live(clock: FakeClock, window_s: float = 2, hold_s: float = 1, max_nbytes: int = 1 << 30) -> LiveReference:
    return LiveReference(clock, window_s, hold_s, max_nbytes)


def push_at(source: LiveReference, clock: FakeClock, first: int, count: int, fps: float) -> None:
    for i in range(count):
        source.push(grey(first + i))
        clock.advance(1 / fps)


def test_a_chunk_shows_the_last_seconds_up_to_now() -> None:
    clock = FakeClock()
    source = live(clock)
    push_at(source, clock, 0, 48, 24)
    clock.advance(-1 / 24)
    assert seen(source, at(0, 9)) == [*range(39, 48)]
    # start_s has no meaning; time passing does.
    clock.advance(1 / 24)
    push_at(source, clock, 48, 4, 24)
    clock.advance(-1 / 24)
    assert seen(source, at(0, 9)) == [*range(43, 52)]


def test_a_hosts_own_timestamps_may_count_from_anywhere() -> None:
    clock = FakeClock()
    source = live(clock)
    for i in range(24):
        clock.advance((0.01, 0.073)[i % 2])  # frames arrive in pairs: their own times are even
        source.push(grey(i), at_s=90_000 + i / 24)
    assert seen(source, at(0, 9)) == [*range(15, 24)]


def test_before_the_first_frame_that_frame_is_shown() -> None:
    clock = FakeClock()
    source = live(clock)
    source.push(grey(7))
    clock.advance(1 / 24)
    source.push(grey(8))
    assert seen(source, at(0, 5)) == [7, 7, 7, 7, 8]


def test_the_frame_on_show_when_the_window_begins_is_kept() -> None:
    clock = FakeClock()
    source = live(clock, window_s=1)
    source.push(grey(1))
    clock.advance(1.2)
    source.push(grey(2))
    clock.advance(0.5)
    assert seen(source, at(0, 10, Fraction(10))) == [1] * 4 + [2] * 6


def test_a_silent_source_is_bridged_by_its_last_frame_and_then_refused() -> None:
    clock = FakeClock()
    source = live(clock, hold_s=1)
    assert source.newest_age_s() is None
    with pytest.raises(MediaInputError, match=r"no frame has arrived\. Push one"):
        source.frames(at(0, 9), *SIZE, "crop")
    push_at(source, clock, 0, 24, 24)
    clock.advance(3 / 24)
    assert source.newest_age_s() == pytest.approx(4 / 24)
    assert seen(source, at(0, 9)) == [19, 20, 21, 22, 23, 23, 23, 23, 23]
    clock.advance(0.8)
    assert seen(source, at(0, 9)) == [23] * 9
    clock.advance(0.2)
    with pytest.raises(MediaInputError, match=r"no frame has arrived for 1\.2 s, its last one is held for 1 s"):
        source.frames(at(0, 9), *SIZE, "crop")
    source.push(grey(30))
    assert seen(source, at(0, 1)) == [30]


def test_a_late_frame_is_dropped_and_a_restarted_source_begins_anew() -> None:
    clock = FakeClock()
    source = live(clock)
    for number, at_s in ((1, 10.0), (2, 10.1), (3, 10.05), (4, 10.1)):
        source.push(grey(number), at_s)
    assert source.late_frames == 2
    assert seen(source, at(0, 3, Fraction(10))) == [1, 1, 2]
    source.push(grey(5), 0.0)
    assert source.late_frames == 2
    assert seen(source, at(0, 3, Fraction(10))) == [5, 5, 5]
    source.close()
    assert source.newest_age_s() is None


def test_a_pushed_frame_is_the_buffers_own() -> None:
    clock = FakeClock()
    source = live(clock)
    picture = grey(3)
    source.push(picture)
    picture[:] = 255
    first = source.frames(at(0, 2), *SIZE, "crop")
    assert numbers(first) == [3, 3]
    first[:] = 0
    assert seen(source, at(0, 2)) == [3, 3]


@given(
    st.lists(st.tuples(st.floats(0, 1.5), st.integers(1, 60)), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sampled_from([Fraction(4), Fraction(10)]),
    st.integers(1, 40),
)
def test_what_is_read_is_newest_monotone_and_bounded(
    pushes: list[tuple[float, int]], count: int, rate: Fraction, room: int
) -> None:
    clock = FakeClock()
    frame_nbytes = 8 * 8 * 3
    source = LiveReference(clock, window_s=3, hold_s=2, max_nbytes=room * frame_nbytes)
    stamps: list[float] = []
    for i, (gap_s, _) in enumerate(pushes):
        clock.advance(gap_s + 0.001)
        source.push(np.full((8, 8, 3), i, np.uint8))
        stamps.append(clock.now())
    frames = source.frames(at(0, count, rate), 8, 8, "crop")
    chosen = [int(frame.mean()) for frame in frames]
    assert chosen == sorted(chosen)
    assert chosen[-1] == len(pushes) - 1
    oldest = max(0, len(pushes) - room)
    for i, index in enumerate(chosen):
        due = clock.now() - (count - 1 - i) / float(rate)
        latest = due + 1 / (8 * float(rate))
        assert index == max(oldest, bisect_right(stamps, latest) - 1) or abs(stamps[index] - latest) < 1e-6
    assert source.held_nbytes <= room * frame_nbytes
    kept_s = clock.now() - 3
    assert source.held_nbytes <= (1 + sum(stamp >= kept_s for stamp in stamps)) * frame_nbytes


def test_a_chunk_longer_than_the_window_makes_it_longer() -> None:
    clock = FakeClock()
    source = live(clock, window_s=1)
    two_s = at(0, 16, Fraction(8))
    push_at(source, clock, 0, 24, 8)
    clock.advance(-1 / 8)
    assert seen(source, two_s) == [*[15] * 8, *range(16, 24)]
    clock.advance(1 / 8)
    push_at(source, clock, 24, 8, 8)
    clock.advance(-1 / 8)
    assert seen(source, two_s) == [*range(16, 32)]


@pytest.mark.parametrize("fps", [24, 30, 60])
def test_a_chunk_longer_than_what_fits_is_looked_at_throughout(fps: int) -> None:
    """Of a 5 s chunk's frames the buffer holds 100: 20 a second, instead of the last 1.7 to 4 s."""
    clock = FakeClock()
    source = live(clock, window_s=60, max_nbytes=101 * 8 * 8 * 3)
    for number in range(11 * fps):
        source.push(np.full((8, 8, 3), (number % 256, number // 256, 0), np.uint8))
        if number == fps:
            source.frames(at(0, 120, Fraction(24)), 8, 8, "crop")
        clock.advance(1 / fps)
    frames = source.frames(at(0, 120, Fraction(24)), 8, 8, "crop")
    shown = [int(frame[0, 0, 0]) + 256 * int(frame[0, 0, 1]) for frame in frames]
    assert shown[-1] == 11 * fps - 1
    assert shown[-1] - shown[0] > 4.8 * fps
    assert len(set(shown)) > 85  # every second one of 30 would be 75
    assert max(np.diff(shown)) <= fps / 10
    assert source.thinned_rate == pytest.approx(20, abs=2)


def test_a_camera_that_fits_is_not_thinned() -> None:
    clock = FakeClock()
    source = live(clock, window_s=60, max_nbytes=101 * 8 * 8 * 3)
    for number in range(60):
        source.push(np.full((8, 8, 3), number, np.uint8))
        clock.advance(1 / 10)
        if number > 8:
            source.frames(at(0, 120, Fraction(24)), 8, 8, "crop")
    assert source.thinned_rate is None
    assert source.held_nbytes == 60 * 8 * 8 * 3


def test_pushing_and_reading_from_two_threads() -> None:
    """Every read is a run of consecutive frames in order, whatever the other thread does."""
    clock = FakeClock()
    source = live(clock, window_s=1, hold_s=100, max_nbytes=50 * 8 * 8 * 3)
    source.push(np.zeros((8, 8, 3), np.uint8), 0.0)
    finished = threading.Event()

    def push() -> None:
        for i in range(1, 2000):
            source.push(np.full((8, 8, 3), i % 250, np.uint8), i / 24)
        finished.set()

    pusher = threading.Thread(target=push, name="pusher")
    pusher.start()
    reads = 0
    while not finished.is_set() or reads == 0:
        frames = source.frames(at(0, 9), 8, 8, "crop")
        steps = np.diff(frames[:, 0, 0, 0].astype(int)) % 250
        assert set(steps.tolist()) <= {0, 1}
        reads += 1
    pusher.join()
    assert source.frames(at(0, 1), 8, 8, "crop")[0, 0, 0, 0] == 1999 % 250


def test_misuse_of_a_live_reference_is_refused() -> None:
    clock = FakeClock()
    source = live(clock, window_s=1, max_nbytes=8 * 8 * 3)
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\), got float32"):
        source.push(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="18432 bytes, the buffer holds 192"):
        source.push(grey(0))
    with pytest.raises(ValueError, match="positive"):
        LiveReference(clock, 0, 1, 1)


# Stills, paths and sizes


def test_a_path_means_a_directory_a_still_or_a_clip(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    folder_of(tmp_path / "frames", ["1.png", "2.png"])
    Image.fromarray(grey(5)).save(tmp_path / "sheet.PNG")
    write_clip(tmp_path / "clip.mp4", [grey(i) for i in range(3)])
    expected = {"frames": [0, 0, 1, 1, 0], "sheet.PNG": [5] * 5, "clip.mp4": [0, 1, 2, 0, 1]}
    for name, shown in expected.items():
        source = open_reference(tmp_path / name, Fraction(12), "loop")
        assert seen(source, at(0, 5)) == shown
        source.close()
    with pytest.raises(MediaInputError, match=r"missing\.mp4: no such file"):
        open_reference(tmp_path / "missing.mp4", Fraction(12), "loop")


def test_a_sheet_stands_still_for_the_whole_chunk() -> None:
    source = StillReference(quadrants(100, 150))
    frames = source.frames(at(17, 121), 64, 96, "letterbox")
    assert frames.shape == (121, 64, 96, 3)
    assert corners(frames[0]) == UPRIGHT
    assert (frames == frames[:1]).all()
    frames[0] = 0
    assert frames[1].any()
    source.close()


def test_the_grey_levels_of_these_tests_fit_into_a_byte() -> None:
    assert 60 * GREY_STEP < 256
