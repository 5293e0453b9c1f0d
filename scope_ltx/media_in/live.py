"""Reference frames that a host pushes while the stream runs: a camera, a screen, another program's output.

Policy when full: *the oldest goes*; where a chunk lasts longer than what fits, those between that are too near to
each other go instead. Pushing never waits. What is read is always the newest: a chunk's frames are those of the
last seconds, up to now, so a reference lags by one chunk's length and by nothing more.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from scope_ltx.media_in.errors import MediaInputError
from scope_ltx.media_in.fit import FitMode, fit_array
from scope_ltx.media_in.frame_times import FrameTimes, on_show
from scope_ltx.media_in.reference import Frames
from scope_streaming.clock import Clock

RESTART_S = 1.0
"""A timestamp that steps back by this much begins a new stream; a smaller step is a late frame."""


@dataclass(frozen=True)
class _Pushed:
    at_s: float
    arrived_s: float
    frame: npt.NDArray[np.uint8]


class LiveReference:
    """Bounded buffer of pushed frames. `push` from any thread; `frames` from the generation thread.

    Holds frames of the last `window_s` seconds, or of the last chunk's length where that is more, and never more
    than `max_nbytes` (one second of 1920x1080 at 30 fps is 187 MB: push frames no larger than they are needed). A
    source that falls silent is bridged by its last frame for `hold_s` seconds.
    """

    def __init__(self, clock: Clock, window_s: float, hold_s: float, max_nbytes: int) -> None:
        if window_s <= 0 or hold_s < 0 or max_nbytes < 1:
            raise ValueError(
                "window_s and max_nbytes are positive and hold_s is 0 or more, "
                f"got {window_s:g} s, {max_nbytes} bytes and {hold_s:g} s"
            )
        self._clock = clock
        self._window_s = window_s
        self._hold_s = hold_s
        self._max_nbytes = max_nbytes
        self._pushed: deque[_Pushed] = deque()
        self._nbytes = 0
        self._late = 0
        self._needed_s = 0.0
        self._thinned = False
        self._thinned_rate: float | None = None
        self._lock = threading.Lock()

    def push(self, frame: npt.NDArray[np.uint8], at_s: float | None = None) -> None:
        """Add a frame, uint8 RGB (H, W, 3); it is copied. Never waits for a reader.

        `at_s` is its time in seconds of the source's own clock, whatever that counts from; None takes the time of
        arrival. Keep to one of the two. A frame that comes too late, after a newer one, is dropped and counted.
        Raises ValueError for anything but a picture.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"a frame is uint8 (H, W, 3), got {frame.dtype} {frame.shape}")
        if frame.nbytes > self._max_nbytes:
            raise ValueError(f"one frame has {frame.nbytes} bytes, the buffer holds {self._max_nbytes}")
        now_s = self._clock.now()
        pushed = _Pushed(now_s if at_s is None else float(at_s), now_s, frame.copy())
        with self._lock:
            if self._pushed and pushed.at_s <= self._pushed[-1].at_s:
                if pushed.at_s > self._pushed[-1].at_s - RESTART_S:
                    self._late += 1
                    return
                self._clear()
            self._pushed.append(pushed)
            self._nbytes += pushed.frame.nbytes
            self._thin()
            begin_s = pushed.at_s - max(self._window_s, self._needed_s)
            # The frame on show when the window begins may be older than the window: it stays.
            while self._nbytes > self._max_nbytes or (len(self._pushed) > 1 and self._pushed[1].at_s <= begin_s):
                self._nbytes -= self._pushed.popleft().frame.nbytes

    def frames(self, times: FrameTimes, height: int, width: int, mode: FitMode) -> Frames:
        """The newest `times.count` frames at `times.frame_rate`: the last one is what is on show now.

        `times.start_s` has no meaning here. Before the first frame that is held, that frame is shown.
        Raises MediaInputError when nothing was pushed, or nothing for longer than `hold_s`.
        """
        now_s = self._clock.now()
        with self._lock:
            held = tuple(self._pushed)
            self._needed_s = float(times.duration_s)
            since_s = held[-1].at_s - self._needed_s if held else 0.0
            recent = sum(pushed.at_s > since_s for pushed in held)
            self._thinned_rate = recent / self._needed_s if self._thinned else None
            self._thinned = False
        if not held:
            raise MediaInputError("live reference", "no frame has arrived", "Push one before a chunk is made")
        silent_s = now_s - held[-1].arrived_s
        if silent_s > self._hold_s:
            problem = f"no frame has arrived for {silent_s:.1f} s, its last one is held for {self._hold_s:g} s"
            raise MediaInputError("live reference", problem, "Check the source, or allow a longer hold_s")
        # The source's clock now: it runs on from its newest frame.
        return self._resampled(held, held[-1].at_s + max(0.0, silent_s), times, (height, width), mode)

    def newest_age_s(self) -> float | None:
        """Seconds since the newest frame arrived; None before the first."""
        with self._lock:
            newest = self._pushed[-1] if self._pushed else None
        return None if newest is None else self._clock.now() - newest.arrived_s

    @property
    def thinned_rate(self) -> float | None:
        """Frames a second that the last chunk could look at, where others had to go for it to look at all of its
        time; None where none had to."""
        return self._thinned_rate

    @property
    def late_frames(self) -> int:
        """Frames that were dropped because a newer one was there already."""
        return self._late

    @property
    def held_nbytes(self) -> int:
        """Bytes of pixels in the buffer."""
        return self._nbytes

    def close(self) -> None:
        """Forget every frame."""
        with self._lock:
            self._clear()

    def _thin(self) -> None:
        """Of the last chunk's length, cut into as many equal times as frames fit, each keeps its first frame: drop
        the one before the newest if it is another. The newest always stays. One place is kept free: what is on
        show when a chunk begins is older."""
        spacing_s = self._needed_s / max(1, self._max_nbytes // self._pushed[-1].frame.nbytes - 1)
        if not spacing_s or len(self._pushed) < 3:
            return
        if self._pushed[-2].at_s // spacing_s == self._pushed[-3].at_s // spacing_s:
            self._nbytes -= self._pushed[-2].frame.nbytes
            del self._pushed[-2]
            self._thinned = True

    def _clear(self) -> None:
        self._pushed.clear()
        self._nbytes = 0

    @staticmethod
    def _resampled(
        held: tuple[_Pushed, ...], end_s: float, times: FrameTimes, size: tuple[int, int], mode: FitMode
    ) -> Frames:
        out = np.empty((times.count, *size, 3), np.uint8)
        stamps = [pushed.at_s for pushed in held]
        fitted = -1
        for i in range(times.count):
            back_s = Fraction(times.count - 1 - i) / times.frame_rate - times.tolerance_s
            index = on_show(stamps, end_s - float(back_s))
            out[i] = out[i - 1] if index == fitted else fit_array(held[index].frame, *size, mode)
            fitted = index
        return out
