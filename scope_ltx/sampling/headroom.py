"""How much device memory is left to activations. Pure arithmetic, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from scope_ltx.sampling.geometry import ChunkGeometry

Size: TypeAlias = tuple[int, int]
"""Tokens and pixels of a request: what its activations depend on."""

GROWTH = 1.5
"""How much more is left after running out: two blocks' worth at the default size."""


def estimated_nbytes(geometry: ChunkGeometry) -> int:
    """Device memory that a chunk's activations need: denoising and decoding together, because the captured
    graphs of the one keep their memory during the other.

    Denoising measured on an H200 (benchmarks.weights, CUDA graphs): 1.3 GiB at 2,176 tokens and 1.9 GiB at
    5,503. Decoding holds about six copies of its widest layer, 128 channels at a quarter of the output's size:
    100 bytes per output pixel.
    """
    return 2**30 + 180_000 * (geometry.video_tokens + geometry.audio_tokens) + 100 * geometry.pixels


@dataclass(frozen=True)
class Headroom:
    """`nbytes` is what the blocks' placement leaves free. `factor` is what running out of memory has taught
    about the estimate on this device, for every size. `measured` is what requests have taken, by their size."""

    nbytes: int
    factor: float = 1.0
    measured: Mapping[Size, int] = field(default_factory=dict)

    @classmethod
    def of(cls, geometry: ChunkGeometry) -> Headroom:
        return cls(estimated_nbytes(geometry))

    def needed_nbytes(self, geometry: ChunkGeometry) -> int:
        """As measured, or else by the corrected estimate."""
        return self.measured.get(_size(geometry)) or int(estimated_nbytes(geometry) * self.factor)

    def covering(self, geometry: ChunkGeometry) -> Headroom:
        """Enough for `geometry` too."""
        return replace(self, nbytes=max(self.nbytes, self.needed_nbytes(geometry)))

    def grown(self) -> Headroom:
        """After a request ran out of memory. What was measured until then was not all that is needed."""
        return Headroom(int(self.nbytes * GROWTH), self.factor * GROWTH)

    def learned(self, geometry: ChunkGeometry, nbytes: int) -> Headroom:
        """A request of these sizes held `nbytes` at most."""
        size = _size(geometry)
        return replace(self, measured={**self.measured, size: max(nbytes, self.measured.get(size, 0))})


def _size(geometry: ChunkGeometry) -> Size:
    return (geometry.video_tokens + geometry.audio_tokens, geometry.pixels)
