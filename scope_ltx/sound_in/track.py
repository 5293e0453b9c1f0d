"""The driving track: the sound that a chunk plays, and the same stretch of time as the model wants to hear it.

Positions are whole samples at 48 kHz and every chunk starts where the last one ended, however long the chunks
are and however often their length or frame rate changes. What the model hears starts at the very same sample;
it is a third as many samples, and a little of what comes next (see `lengths.model_samples_for`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from scope_ltx.at_end import continued
from scope_ltx.errors import ScopeLtxError
from scope_ltx.sound_in.files import SoundReader
from scope_ltx.sound_in.lengths import OUTPUT_RATE, model_samples_for
from scope_ltx.sound_in.resample import TO_MODEL, Samples
from scope_ltx.sound_in.window import Reader, SoundWindow

AtEnd = Literal["loop", "silence", "stop"]
"""What follows the last sample: the first one, silence, or nothing."""

LOOP_HEAD_SAMPLES = 30 * OUTPUT_RATE
"""Kept in memory (11.5 MB) of a track that loops, so that going round does not decode the file twice a chunk."""


class TrackEnded(ScopeLtxError):
    """The driving track has played to its end, and is to stop there. A file ends with it, a stream rests: nothing
    is wrong."""


@dataclass(frozen=True)
class Stretch:
    """One chunk's share of a track, from sample `start` to `stop` at 48 kHz.

    output: (2, samples) float32 at 48 kHz, what is played. model: (2, N) float32 at 16 kHz, what is encoded.
    sounding: how many of the output's samples come from the track; the others are silence.
    ended: the track has no more sound after this.
    """

    start: int
    stop: int
    output: Samples = field(repr=False)
    model: Samples = field(repr=False)
    sounding: int
    ended: bool = False


class Track(Protocol):
    """Where driving sound comes from: a file's `DrivingTrack`, or a `LiveTrack`."""

    def peek(self, samples: int, audio_tokens: int, overlap: int = 0) -> Stretch:
        """The next `samples` at 48 kHz, and what the encoder makes exactly `audio_tokens` of. That begins
        `overlap` samples earlier, for a chunk that repeats the end of the last one. Nothing moves, so a chunk that
        failed can be made again. Raises TrackEnded, SoundFileError, ValueError."""

    def commit(self, stretch: Stretch) -> None:
        """The chunk of `stretch` is being made: go on after it."""

    def take_back(self, stretch: Stretch) -> None:
        """The chunk of `stretch`, the last one that was committed, is not made after all: it plays next."""

    def close(self) -> None:
        """Give the file back."""


class DrivingTrack:
    """A file as a track, decoded as it is needed. One thread at a time; use with `close`.

    A file that is damaged further on ends there: `damage` tells. Raises SoundFileError for one that is no sound.
    """

    def __init__(
        self,
        path: Path,
        at_end: AtEnd,
        open_reader: Callable[[Path, int], Reader] = SoundReader,
        loop_head: int = LOOP_HEAD_SAMPLES,
    ) -> None:
        self.path = path
        self._at_end = _checked(at_end)
        self._loop_head = loop_head
        head = loop_head if at_end == "loop" else 0
        self._window = SoundWindow(partial(open_reader, path, OUTPUT_RATE), head)
        self._position = 0

    @property
    def position(self) -> int:
        """Samples at 48 kHz from the first one played to the next chunk's first; a loop counts on."""
        return self._position

    @property
    def damage(self) -> str | None:
        """Why the track has ended before its file says that it does; known once it got there."""
        return None if self._window.damage is None else str(self._window.damage)

    def end_with(self, at_end: AtEnd) -> None:
        """From now on that follows the end. What plays goes on: a loop with the round that it is in. A track that
        has ended and is to loop begins anew.

        Raises ValueError for what is none of the three, and as opening does.
        """
        if _checked(at_end) == self._at_end:
            return
        if at_end == "loop":
            self._window.keep_head(self._loop_head)
        self._position = continued(self._position, self._window.length, self._at_end, at_end)
        self._at_end = at_end

    def seek(self, position: int) -> None:
        """Go on from there. Raises ValueError when it is negative."""
        if position < 0:
            raise ValueError(f"a track's position must not be negative, got {position}")
        self._position = position

    def peek(self, samples: int, audio_tokens: int, overlap: int = 0) -> Stretch:
        start = self._position
        sound = hear(self._sound, start, samples, audio_tokens, overlap)
        length = self._window.length
        if self._at_end == "loop" or length is None:
            return Stretch(start, start + samples, *sound, sounding=samples)
        if self._at_end == "stop" and start >= length:
            raise TrackEnded(f"{self.path} has ended after {length / OUTPUT_RATE:.2f} s")
        sounding = max(0, min(samples, length - start))
        return Stretch(start, start + samples, *sound, sounding=sounding, ended=start + samples >= length)

    def commit(self, stretch: Stretch) -> None:
        """Raises ValueError when the stretch does not start where the track stands."""
        if stretch.start != self._position:
            raise ValueError(f"the track is at sample {self._position}, the stretch starts at {stretch.start}")
        self._position = stretch.stop

    def take_back(self, stretch: Stretch) -> None:
        if self._position == stretch.stop:
            self._position = stretch.start

    def close(self) -> None:
        self._window.close()

    def _sound(self, start: int, count: int) -> Samples:
        """The endless sound that the track stands for: silence before it, `at_end` after it."""
        before = min(count, max(0, -start))
        pieces = [np.zeros((2, before), np.float32)]
        place, missing = start + before, count - before
        while missing > 0:
            piece = self._piece(place, missing)
            pieces.append(piece)
            place += piece.shape[1]
            missing -= piece.shape[1]
        return np.concatenate(pieces, axis=1)

    def _piece(self, place: int, count: int) -> Samples:
        """At least one sample from `place` on, at most `count`; none only where the end was just found."""
        length = self._window.length
        if self._at_end != "loop":
            past_the_end = length is not None and place >= length
            return np.zeros((2, count), np.float32) if past_the_end else self._window.read(place, count)
        if length is None:
            return self._window.read(place, count)
        if count > length:
            return self._rounds(place, count, length)
        return self._window.read(place % length, count)

    def _rounds(self, at: int, count: int, length: int) -> Samples:
        """A track shorter than a chunk, several times over."""
        once = self._window.read(0, length)
        return np.take(once, np.arange(at, at + count) % length, axis=1)


def _checked(at_end: AtEnd) -> AtEnd:
    if at_end not in ("loop", "silence", "stop"):
        raise ValueError(f"what follows a track's end must be loop, silence or stop, got {at_end!r}")
    return at_end


def hear(
    sound: Callable[[int, int], Samples], start: int, samples: int, audio_tokens: int, overlap: int
) -> tuple[Samples, Samples]:
    """Output from `start` and model samples from `overlap` before it, of an endless `sound(start, count)` at
    48 kHz. One sample more than that is read, so that a track which ends with the chunk knows it.

    Raises ValueError for sizes below 1, and for a negative overlap.
    """
    if samples < 1 or overlap < 0:
        raise ValueError(f"a chunk has at least one sample and no negative overlap, got {samples} and {overlap}")
    count = model_samples_for(audio_tokens)
    before = TO_MODEL.margin + overlap
    heard = sound(start - before, max(before + samples + 1, TO_MODEL.extent(count)))
    return heard[:, before : before + samples].copy(), TO_MODEL.stretch(heard, count)
