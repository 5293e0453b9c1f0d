"""Reference frames from a video file, decoded as they are needed.

The file's own timestamps decide (a variable frame rate stays in time). Two frames are held at once, whatever the
clip's length. Times are those of the clip's first frame, which is at 0.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from scope_ltx.at_end import continued
from scope_ltx.media_in.errors import MediaInputError
from scope_ltx.media_in.fit import FitMode, fit_frame
from scope_ltx.media_in.frame_times import FrameTimes
from scope_ltx.media_in.orientation import orientation_of
from scope_ltx.media_in.reference import AtEnd, Frames, checked_at_end

SEEK_AHEAD_S = 2
"""A longer jump forward seeks to a key frame; a shorter one decodes on: key frames are often 2 s apart or more."""
DEFAULT_FRAME_S = Fraction(1, 25)
"""How long the only frame of a file without a frame rate lasts; it is shown again anyway."""


class VideoFileReference:
    """The frames of one file. Opening it decodes its first frame. One thread at a time; `close` when done.

    Raises MediaInputError for a file that is missing, holds no video, or is damaged where it is read.
    """

    def __init__(self, path: str | Path, at_end: AtEnd) -> None:
        self._at_end = checked_at_end(at_end)
        self._cursor = _Cursor(Path(path))

    def frames(self, times: FrameTimes, height: int, width: int, mode: FitMode) -> Frames:
        """See ReferenceSource."""
        out = np.empty((times.count, height, width, 3), np.uint8)
        fitted: av.VideoFrame | None = None
        for i, at_s in enumerate(times.lookups_s()):
            frame = self._on_show(at_s)
            if frame is fitted:
                out[i] = out[i - 1]
            else:
                out[i] = self._fitted(frame, height, width, mode)
                fitted = frame
        return out

    def end_with(self, at_end: AtEnd, at_s: Fraction) -> Fraction:
        """See Clip."""
        before, self._at_end = self._at_end, checked_at_end(at_end)
        return continued(at_s, self._cursor.end_s, before, at_end)

    def close(self) -> None:
        self._cursor.close()

    def _on_show(self, at_s: Fraction) -> av.VideoFrame:
        """The clip's length is known for certain only once its end was reached."""
        cursor = self._cursor
        if cursor.end_s is None or self._at_end == "hold":
            frame = cursor.frame_at(at_s)
            if cursor.end_s is None or at_s < cursor.end_s or self._at_end == "hold":
                return frame
        return cursor.frame_at(at_s % cursor.end_s)

    def _fitted(self, frame: av.VideoFrame, height: int, width: int, mode: FitMode) -> npt.NDArray[np.uint8]:
        orientation = self._cursor.orientation
        canvas = orientation.canvas(height, width)
        return orientation.turn(fit_frame(frame, *canvas, mode, self._cursor.pixel_aspect))


_Timed: TypeAlias = tuple[Fraction, av.VideoFrame]
"""Seconds since the clip's first frame, and a frame."""


class _Cursor:
    """A place in the file: the frame on show, and the one after it. Moves forward by decoding, else by seeking."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end_s: Fraction | None = None
        """When the last frame's time is over; None until the end was reached."""
        self._origin_s: Fraction | None = None
        self._last_gap_s = Fraction(0)
        self._now: _Timed
        self._next: _Timed | None
        self._container = self._open()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pixel_aspect(self) -> Fraction:
        """A pixel's width over its height; 1 where the file says nothing."""
        return self._stream.sample_aspect_ratio or Fraction(1)

    def frame_at(self, at_s: Fraction) -> av.VideoFrame:
        """The frame on show at `at_s`; the last one when that is past the end."""
        far = self._next is not None and self._next[0] <= at_s and at_s > self._now[0] + SEEK_AHEAD_S
        if at_s < self._now[0] or far:
            self._seek(at_s)
        while self._next is not None and self._next[0] <= at_s:
            self._last_gap_s = self._next[0] - self._now[0]
            self._now = self._next
            self._look_ahead()
        return self._now[1]

    def close(self) -> None:
        self._container.close()

    def _open(self) -> InputContainer:
        if not self.path.is_file():
            problem = "a video file is expected, this is a directory" if self.path.is_dir() else "no such file"
            raise MediaInputError(self.path, problem, "Check the path")
        try:
            # The name is a file's and nothing else: no address, no list of other files to open.
            container = av.open(f"file:{self.path}", options={"protocol_whitelist": "file"})
        except av.FFmpegError as error:
            problem = f"this is not a video in a known format ({error.strerror})"
            raise MediaInputError(self.path, problem, "Use MP4, MOV, MKV or WebM") from error
        if not container.streams.video:
            container.close()
            raise MediaInputError(self.path, "there is no video in this file", "Use a file that has pictures")
        self._stream = container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._frames = container.decode(self._stream)
        return container

    def _start(self) -> None:
        """Stand on the first frame of a container that was just opened."""
        frame = self._decode()
        if frame is None:
            raise MediaInputError(self.path, "no frame can be decoded", "It may be incomplete: copy it again")
        try:
            # Once: it is the container's. Asking makes a reference cycle of the frame, which keeps its pixels
            # until Python looks for cycles: asked of every frame, reading a clip of 332 MB filled 490 MB.
            self.orientation = orientation_of(frame)
        except ValueError as error:
            raise MediaInputError(self.path, str(error), "Rotate the clip itself") from error
        self._stand_on(frame)

    def _seek(self, at_s: Fraction) -> None:
        """Stand on a frame at or before `at_s`, the nearest that the file lets us start from."""
        assert self._origin_s is not None, "the first frame was decoded on opening"
        assert self._stream.time_base is not None, "frames had times on opening"
        try:
            self._container.seek(int((at_s + self._origin_s) / self._stream.time_base), stream=self._stream)
            self._frames = self._container.decode(self._stream)
            frame = self._decode()
        except (av.FFmpegError, MediaInputError):
            frame = None
        if frame is None or self._time_of(frame) > at_s:
            # The file has no index, or a wrong one: from its start, then.
            self.close()
            self._container = self._open()
            self._start()
        else:
            self._stand_on(frame)

    def _stand_on(self, frame: av.VideoFrame) -> None:
        self._now = (self._time_of(frame), frame)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Decode the next frame whose time is later; a damaged file may repeat or turn back a timestamp."""
        while (frame := self._decode()) is not None:
            if (at_s := self._time_of(frame)) > self._now[0]:
                self._next = (at_s, frame)
                return
        self._next = None
        self.end_s = self._now[0] + self._duration_of(self._now[1])

    def _decode(self) -> av.VideoFrame | None:
        try:
            return next(self._frames, None)
        except av.FFmpegError as error:
            problem = f"the video cannot be decoded ({error.strerror})"
            raise MediaInputError(self.path, problem, "The file may be damaged: convert it again") from error

    def _time_of(self, frame: av.VideoFrame) -> Fraction:
        """Seconds since the first frame."""
        if frame.pts is None or frame.time_base is None:
            raise MediaInputError(self.path, "its frames carry no times", "Convert it to MP4")
        seconds = frame.pts * frame.time_base
        if self._origin_s is None:
            self._origin_s = seconds
        return seconds - self._origin_s

    def _duration_of(self, frame: av.VideoFrame) -> Fraction:
        if frame.duration and frame.time_base:
            return frame.duration * frame.time_base
        rate = self._stream.average_rate
        return 1 / rate if rate else self._last_gap_s or DEFAULT_FRAME_S
