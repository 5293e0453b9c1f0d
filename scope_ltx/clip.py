"""Segments into one MP4 file: H.264 picture and AAC sound, with the timeline's own times.

Segments are written as they come; none is kept. The file appears under its name only when it is complete.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND

AAC_FRAME_SAMPLES = 1024
_BT709 = 1
_LIMITED_RANGE = 1


class ClipWriter:
    """Writes gapless segments of one size to `path`; use with `with`.

    Leaving the block normally finishes the file and puts it under its name, replacing one that is there.
    Leaving it with an exception, or failing to finish, leaves nothing behind.
    Raises ValueError for a size or rate that H.264 and AAC cannot hold and for a segment that does not fit.
    """

    def __init__(self, path: Path, width: int, height: int, frame_rate: Fraction, sample_rate: int) -> None:
        if path.suffix.lower() != ".mp4":
            raise ValueError(f"a clip is written as .mp4, got {path.name!r}")
        if not path.parent.is_dir() or path.is_dir():
            raise ValueError(f"{path} cannot be written: it must be a file in a directory that exists")
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ValueError(f"H.264 4:2:0 needs even width and height, got {width}x{height}")
        if frame_rate <= 0 or sample_rate <= 0:
            raise ValueError(f"rates must be positive, got {frame_rate} fps and {sample_rate} Hz")
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._size = (width, height)
        self._frame_rate = frame_rate
        self._sample_rate = sample_rate
        self._sound = _SampleQueue()
        self._first_tick: int | None = None
        self._end_tick = 0

    def __enter__(self) -> Self:
        self._container = av.open(str(self._part), "w", format="mp4")
        try:
            self._video = self._add_video()
            self._audio = self._add_audio()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            if self._first_tick is None:
                raise ValueError(f"{self._path}: no segment was written, so there is no clip")
            self._encode_sound(self._sound.take_rest())
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
            self._container.close()
            self._part.replace(self._path)
        except BaseException:
            self._discard()
            raise

    def write(self, segment: Segment) -> None:
        """Encode the next segment. Raises ValueError when its size, rate or start does not fit."""
        times = segment.times
        if self._first_tick is None:
            self._first_tick = self._end_tick = times.start
        frame_size = (segment.frames.shape[2], segment.frames.shape[1])
        if frame_size != self._size:
            raise ValueError(f"the clip is {_text(self._size)}, segment {segment.index} is {_text(frame_size)}")
        if times.sample_rate != self._sample_rate or segment.samples.shape[0] != 2:
            raise ValueError(
                f"the clip's sound is stereo at {self._sample_rate} Hz, segment {segment.index} has "
                f"{segment.samples.shape[0]} channels at {times.sample_rate} Hz"
            )
        if times.start != self._end_tick:
            raise ValueError(
                f"segment {segment.index} starts at tick {times.start}, the clip ends at {self._end_tick}"
            )
        self._end_tick = times.end
        for picture, tick in zip(segment.frames, times.frame_ticks, strict=True):
            self._encode_picture(picture, tick - self._first_tick)
        self._sound.put(segment.samples)
        while (block := self._sound.take_frame()) is not None:
            self._encode_sound(block)

    def _add_video(self) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=self._frame_rate, options={"crf": "18"})
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        # In ticks, so that a rate that is no whole number of milliseconds keeps its exact times.
        context.time_base = Fraction(1, TICKS_PER_SECOND)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        return stream

    def _add_audio(self) -> AudioStream:
        return self._container.add_stream("aac", rate=self._sample_rate, layout="stereo", bit_rate=192_000)

    def _encode_picture(self, picture: npt.NDArray[np.uint8], tick: int) -> None:
        rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = tick, Fraction(1, TICKS_PER_SECOND)
        self._container.mux(self._video.encode(frame))

    def _encode_sound(self, block: _Block) -> None:
        start, samples = block
        if samples.shape[1] == 0:
            return
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
        frame.sample_rate = self._sample_rate
        frame.pts, frame.time_base = start, Fraction(1, self._sample_rate)
        self._container.mux(self._audio.encode(frame))

    def _discard(self) -> None:
        try:
            self._container.close()
        finally:
            self._part.unlink(missing_ok=True)


_Block = tuple[int, npt.NDArray[np.float32]]
"""Index of the first sample in the clip, and samples (2, N)."""


class _SampleQueue:
    """Cuts segments' samples into the encoder's frames; holds less than one frame between segments."""

    def __init__(self) -> None:
        self._held = np.zeros((2, 0), np.float32)
        self._taken = 0

    def put(self, samples: npt.NDArray[np.float32]) -> None:
        self._held = np.concatenate([self._held, samples], axis=1)

    def take_frame(self) -> _Block | None:
        return self._take(AAC_FRAME_SAMPLES) if self._held.shape[1] >= AAC_FRAME_SAMPLES else None

    def take_rest(self) -> _Block:
        return self._take(self._held.shape[1])

    def _take(self, count: int) -> _Block:
        block = (self._taken, self._held[:, :count])
        self._held = self._held[:, count:]
        self._taken += count
        return block


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
