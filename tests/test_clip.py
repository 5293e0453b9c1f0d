"""Clips read back with PyAV: exact times, equal lengths, and nothing left behind by a failure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from scope_ltx.clip import ClipWriter
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND, Timeline, exact_frame_rate
from tests.fakes.cli_backend import SAMPLE_RATE, make_segment

SIZE = (64, 96)
AAC_FRAME_S = 1024 / SAMPLE_RATE


def segments(count: int, frames: int, rate: Fraction, size: tuple[int, int] = SIZE) -> list[Segment]:
    timeline = Timeline(SAMPLE_RATE)
    return [make_segment(i, timeline, frames, rate, size) for i in range(count)]


def write(path: Path, rate: Fraction, made: Iterable[Segment]) -> None:
    with ClipWriter(path, *SIZE, rate, SAMPLE_RATE) as clip:
        for segment in made:
            clip.write(segment)


def duration_s(stream: av.stream.Stream) -> float:
    assert stream.duration is not None
    assert stream.time_base is not None
    return float(stream.duration * stream.time_base)


@pytest.mark.parametrize("frame_rate", [24.0, 23.976, 60.0, 7.3])
def test_times_are_the_timelines_and_sound_lasts_as_long_as_picture(tmp_path: Path, frame_rate: float) -> None:
    rate = exact_frame_rate(frame_rate)
    made = segments(2, 33, rate)
    path = tmp_path / "clip.mp4"
    write(path, rate, made)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264"
        assert video.codec_context.pix_fmt == "yuv420p"
        assert audio.codec_context.name == "aac"
        assert (audio.rate, audio.channels) == (SAMPLE_RATE, 2)
        assert (video.width, video.height) == SIZE
        length_s = made[-1].times.end / TICKS_PER_SECOND
        assert abs(duration_s(video) - length_s) < 1e-3
        assert abs(duration_s(audio) - length_s) < AAC_FRAME_S
        assert video.time_base is not None
        video_ticks = video.time_base * TICKS_PER_SECOND
        pictures = list(container.decode(video=0))
    ticks = [int(frame.pts * video_ticks) for frame in pictures if frame.pts is not None]
    assert ticks == [tick for segment in made for tick in segment.times.frame_ticks]
    greys = [float(frame.to_ndarray(format="rgb24").mean()) for frame in pictures]
    assert greys == pytest.approx([*range(1, 34)] * 2, abs=2.0)


def test_sound_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write(path, Fraction(24), segments(2, 25, Fraction(24)))
    with av.open(str(path)) as container:
        decoded = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    spectrum = np.abs(np.fft.rfft(decoded[0, :48_000]))
    assert int(spectrum.argmax()) == 440
    middle = decoded[0, 48_000 : 2 * 48_000 - 2048]
    assert float(np.sqrt(np.mean(middle**2))) == pytest.approx(0.2 / 2**0.5, rel=0.05)


def test_a_clip_may_start_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write(path, Fraction(24), segments(3, 9, Fraction(24))[1:])
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times[0] == 0.0
    assert len(times) == 18


@pytest.mark.parametrize(
    ("size", "rate", "sample_rate", "told"),
    [
        ((63, 96), Fraction(24), SAMPLE_RATE, "even width and height, got 63x96"),
        ((64, 0), Fraction(24), SAMPLE_RATE, "even width and height, got 64x0"),
        (SIZE, Fraction(0), SAMPLE_RATE, "rates must be positive"),
        (SIZE, Fraction(24), 0, "rates must be positive"),
    ],
)
def test_what_no_clip_can_hold(
    tmp_path: Path, size: tuple[int, int], rate: Fraction, sample_rate: int, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        ClipWriter(tmp_path / "clip.mp4", *size, rate, sample_rate)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is written as \.mp4"):
        ClipWriter(tmp_path / "clip.mkv", *SIZE, Fraction(24), SAMPLE_RATE)
    with pytest.raises(ValueError, match="directory that exists"):
        ClipWriter(tmp_path / "none" / "clip.mp4", *SIZE, Fraction(24), SAMPLE_RATE)


def test_a_segment_that_does_not_fit(tmp_path: Path) -> None:
    first, second, third = segments(3, 9, Fraction(24))
    wrong_size = segments(1, 9, Fraction(24), size=(32, 32))[0]
    path = tmp_path / "clip.mp4"
    with pytest.raises(ValueError, match="the clip is 64x96, segment 0 is 32x32"):
        write(path, Fraction(24), [wrong_size])
    with pytest.raises(ValueError, match="segment 2 starts at tick"):
        write(path, Fraction(24), [first, third])
    mono = Segment(1, second.frames, np.ascontiguousarray(second.samples[:1]), second.times)
    with pytest.raises(ValueError, match="segment 1 has 1 channels"):
        write(path, Fraction(24), [first, mono])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_clip_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the old clip")
    first = segments(1, 9, Fraction(24))[0]

    def generate() -> Iterator[Segment]:
        yield first
        raise RuntimeError("generation failed")

    with pytest.raises(RuntimeError, match="generation failed"):
        write(path, Fraction(24), generate())
    assert path.read_bytes() == b"the old clip"
    assert list(tmp_path.iterdir()) == [path]


def test_no_segments_are_no_clip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no segment was written"):
        write(tmp_path / "clip.mp4", Fraction(24), [])
    assert list(tmp_path.iterdir()) == []
