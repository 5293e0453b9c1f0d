"""Any stretch of a file's sound, asked for in rising order, from a window that moves along the file.

A decoder only goes forward. What was read last is kept for a while, so that a chunk can be tried again; a stretch
from before that decodes the file anew from its start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from scope_ltx.sound_in.files import SoundFileError
from scope_ltx.sound_in.resample import Samples

_BLOCK = 48_000
_KEPT = 48_000
"""A second behind the latest stretch stays: its resampling looks back 20 samples."""


class Reader(Protocol):
    """What goes forward through a sound: a `SoundReader`."""

    def read(self, count: int) -> Samples: ...

    def close(self) -> None: ...


class SoundWindow:
    """Random access by sample over what `open_reader` opens. One thread at a time.

    The first `head` samples are kept for good: a loop comes back to them while its tail is still needed.
    Memory: the head, the longest stretch asked for, and two seconds.
    """

    def __init__(self, open_reader: Callable[[], Reader], head: int = 0) -> None:
        self._open_reader = open_reader
        self._reader = open_reader()
        self._held: deque[Samples] = deque()
        self._begin = self._end = 0
        self.length: int | None = None
        """Samples in all, once the end was seen."""
        self.damage: SoundFileError | None = None
        """Why nothing could be decoded after that, where the file is longer."""
        self._head = np.zeros((2, 0), np.float32)
        self._head = self.read(0, head)

    def keep_head(self, head: int) -> None:
        """Keep the first `head` samples for good, wherever the window is. Raises as opening does."""
        if self._head.shape[1] >= head:
            return
        beginning = SoundWindow(self._open_reader)
        try:
            self._head = beginning.read(0, head)
        finally:
            beginning.close()

    def read(self, start: int, count: int) -> Samples:
        """Samples `start` to `start + count`, as a copy; fewer where the sound ends.

        Raises ValueError for a negative place, and what the reader raises on opening.
        """
        if start < 0 or count < 0:
            raise ValueError(f"a stretch must not be negative, got {count} samples from {start}")
        stop = start + count
        if self.length is not None:
            stop = min(stop, self.length)
        if start >= stop:
            return np.zeros((2, 0), np.float32)
        if stop <= self._head.shape[1]:
            return self._head[:, start:stop].copy()
        if start < self._begin:
            self._begin_anew()
        self._fill(start, stop)
        return self._copy(start, min(stop, self._end))

    @property
    def held_nbytes(self) -> int:
        """Memory that the sound takes now."""
        return self._head.nbytes + sum(block.nbytes for block in self._held)

    def close(self) -> None:
        self._reader.close()
        self._held.clear()

    def _begin_anew(self) -> None:
        self._reader.close()
        self._held.clear()
        self._begin = self._end = 0
        self._reader = self._open_reader()

    def _fill(self, start: int, stop: int) -> None:
        """Decode up to `stop` and let go of what lies well before `start`."""
        while self._end < stop:
            try:
                block = self._reader.read(min(_BLOCK, stop - self._end))
            except SoundFileError as error:
                self.length, self.damage = self._end, error
                return
            if block.shape[1] == 0:
                self.length = self._end
                return
            self._held.append(block)
            self._end += block.shape[1]
            while self._held and self._begin + self._held[0].shape[1] <= start - _KEPT:
                self._begin += self._held.popleft().shape[1]

    def _copy(self, start: int, stop: int) -> Samples:
        result = np.empty((2, max(0, stop - start)), np.float32)
        place = self._begin
        for block in self._held:
            first, last = max(start, place), min(stop, place + block.shape[1])
            if first < last:
                result[:, first - start : last - start] = block[:, first - place : last - place]
            place += block.shape[1]
        return result
