"""How much device memory is left to activations. Pure arithmetic, no torch."""

from __future__ import annotations

from scope_ltx.sampling.geometry import ChunkGeometry

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


class Headroom:
    """`nbytes` is what the blocks' placement leaves free now. It grows with the largest request, and by half
    when a request ran out of memory; what a size then needed is remembered."""

    def __init__(self, first: ChunkGeometry) -> None:
        self.nbytes = estimated_nbytes(first)
        self._factor = 1.0

    def must_grow_for(self, geometry: ChunkGeometry) -> bool:
        """Whether `geometry` needs more than there is; then `nbytes` is what it needs."""
        needed = int(estimated_nbytes(geometry) * self._factor)
        grows = needed > self.nbytes
        self.nbytes = max(needed, self.nbytes)
        return grows

    def grow(self) -> None:
        """A request ran out of memory: the estimate was too small on this device, for every size."""
        self._factor *= GROWTH
        self.nbytes = int(self.nbytes * GROWTH)
