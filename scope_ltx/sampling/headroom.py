"""How much device memory is left to activations. Pure arithmetic, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from scope_ltx.sampling.geometry import ChunkGeometry


@dataclass(frozen=True)
class Demand:
    """What a request's activations depend on. `tokens` of both modalities, conditions included; `passes` of the
    transformer within a step; `encoded_pixels` of clips that go through the video encoder."""

    tokens: int
    pixels: int
    passes: int = 1
    encoded_pixels: int = 0

    @classmethod
    def of(
        cls, geometry: ChunkGeometry, *, appended_tokens: int = 0, passes: int = 1, encoded_pixels: int = 0
    ) -> Demand:
        tokens = geometry.video_tokens + geometry.audio_tokens + appended_tokens
        return cls(tokens, geometry.pixels, passes, encoded_pixels)


GROWTH = 1.5
"""How much more is left after running out: two blocks' worth at the default size."""


def estimated_nbytes(demand: Demand) -> int:
    """Device memory that a chunk's activations need: denoising and decoding together, because the captured
    graphs of the one keep their memory during the other.

    Denoising measured on an H200 (benchmarks.weights, CUDA graphs): 1.3 GiB at 2,176 tokens and 1.9 GiB at
    5,503; each further pass keeps hidden states and text of its own. Decoding holds about six copies of its
    widest layer, 128 channels at a quarter of the output's size: 100 bytes per output pixel. Encoding ends before
    the denoising begins, and only what it needs beyond that counts.
    """
    passes = (demand.passes - 1) * (40 * 2**20 + 30_000 * demand.tokens)
    denoising = 180_000 * demand.tokens + passes
    return 2**30 + max(denoising, 100 * demand.encoded_pixels) + 100 * demand.pixels


@dataclass(frozen=True)
class Headroom:
    """`nbytes` is what the blocks' placement leaves free. `factor` is what running out of memory has taught
    about the estimate on this device, for every size. `measured` is what requests have taken, by their size."""

    nbytes: int
    factor: float = 1.0
    measured: Mapping[Demand, int] = field(default_factory=dict)

    @classmethod
    def of(cls, demand: Demand) -> Headroom:
        return cls(estimated_nbytes(demand))

    def needed_nbytes(self, demand: Demand) -> int:
        """As measured, or else by the corrected estimate."""
        return self.measured.get(demand) or int(estimated_nbytes(demand) * self.factor)

    def covering(self, demand: Demand) -> Headroom:
        """Enough for `demand` too."""
        return replace(self, nbytes=max(self.nbytes, self.needed_nbytes(demand)))

    def grown(self) -> Headroom:
        """After a request ran out of memory. What was measured until then was not all that is needed."""
        return Headroom(int(self.nbytes * GROWTH), self.factor * GROWTH)

    def learned(self, demand: Demand, nbytes: int) -> Headroom:
        """A request like this held `nbytes` at most."""
        return replace(self, measured={**self.measured, demand: max(nbytes, self.measured.get(demand, 0))})
