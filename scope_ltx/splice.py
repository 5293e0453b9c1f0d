"""Cutting a chunk to what is shown of it, and keeping what the next one goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from scope_ltx.config import LTX2Config
from scope_ltx.inputs import Pixels, Samples, Tail
from scope_ltx.sampling.geometry import SAMPLE_RATE, ChunkSplice, overlap_frames
from scope_streaming.media.timeline import exact_frame_rate, segment_samples

CROSSFADE_SAMPLES = 480
"""10 ms: longer than a click, shorter than a syllable's onset."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What one shown chunk leaves to the next. surplus: up to 10 ms of its sound after its last shown frame."""

    tail: Tail
    surplus: Samples
    rate: Fraction

    def fits(self, config: LTX2Config) -> bool:
        """The next chunk has its size, frame rate and overlap, so it may go on from here."""
        count, height, width = self.tail.frames.shape[:3]
        wanted = (overlap_frames(config.overlap_latents), config.height, config.width)
        return (count, height, width) == wanted and exact_frame_rate(config.frame_rate) == self.rate


@dataclass(frozen=True)
class Cut:
    """Where a chunk of a configuration is cut. `overlap_samples` are those of the frames that it repeats."""

    splice: ChunkSplice
    rate: Fraction
    driven: bool

    @classmethod
    def of(cls, config: LTX2Config, *, continues: bool, driven: bool) -> Cut:
        """`continues`: the chunk begins with the tail of the one before. Raises ValueError as ChunkSplice."""
        extends = config.continuity == "extend"
        splice = ChunkSplice(
            config.num_frames,
            overlap_latents=config.overlap_latents if continues else 0,
            next_latents=config.overlap_latents if extends else 0,
            trim_tail=config.trim_tail,
        )
        return cls(splice, exact_frame_rate(config.frame_rate), driven)

    @property
    def frames(self) -> int:
        """That are shown."""
        return int(self.splice.shown.stop - self.splice.shown.start)

    @property
    def samples(self) -> int:
        """That sound with them."""
        return segment_samples(self.frames, self.rate, SAMPLE_RATE)

    @property
    def overlap_samples(self) -> int:
        repeated = self.splice.shown.start
        return segment_samples(repeated, self.rate, SAMPLE_RATE) if repeated else 0

    def shown(self, frames: Pixels, samples: Samples, before: Kept | None) -> tuple[Pixels, Samples]:
        """Of a whole chunk (F, H, W, 3) and (channels, N). A driving track's samples come cut already."""
        picture = frames[self.splice.shown]
        if self.driven:
            return picture, samples
        start = self._sound_starts(samples)
        sound = samples[:, start : start + self.samples]
        if before is None or not self.overlap_samples:
            return picture, sound
        return picture, crossfaded(before.surplus, sound)

    def kept(self, frames: Pixels, samples: Samples, surplus: Samples) -> Kept | None:
        """Of a whole chunk and what its sound has beyond, copied; None where the next chunk shall not go on from
        here."""
        tail = self.splice.tail
        count = tail.stop - tail.start
        if not count:
            return None
        if self.driven:
            return Kept(Tail(frames[tail].copy(), None), np.zeros((2, 0), np.float32), self.rate)
        end = self._sound_starts(samples) + self.samples
        sounding = segment_samples(count, self.rate, SAMPLE_RATE)
        heard = samples[:, max(0, end - sounding) : end].copy()
        # With nothing trimmed the shown sound ends where the chunk's does, and only the surplus goes on.
        beyond = np.concatenate([samples[:, end:], surplus], axis=1)[:, :CROSSFADE_SAMPLES].copy()
        return Kept(Tail(frames[tail].copy(), heard), beyond, self.rate)

    def _sound_starts(self, samples: Samples) -> int:
        """After the overlap's sound; whole samples at both ends may leave one less than is shown."""
        return max(0, min(self.overlap_samples, int(samples.shape[1]) - self.samples))


def crossfaded(before: Samples, after: Samples) -> Samples:
    """`after`, faded in over what `before` has: both sound the same moment."""
    length = min(before.shape[1], after.shape[1], CROSSFADE_SAMPLES)
    if not length:
        return after
    rising = np.linspace(0, 1, length, dtype=np.float32)
    joined = after.copy()
    joined[:, :length] = before[:, :length] * (1 - rising) + after[:, :length] * rising
    return joined
