"""A generator that shows what the camera showed and plays what the microphone heard, at once."""

from __future__ import annotations

import numpy as np

from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_streaming.media.timeline import exact_frame_rate, segment_samples
from tests.fakes.whole_chunks import WholeChunks

SAMPLE_RATE = 48_000
IDLE = (96, 96, 96)
"""The colour of a picture without a camera."""


class MirrorGenerator(WholeChunks):
    """Instant. `mirrored` and `driven` count chunks that had live picture and live sound. `tint` is what is left
    of red, green and blue; None: all."""

    def __init__(self, tint: tuple[float, float, float] | None = None) -> None:
        self.made = self.mirrored = self.driven = 0
        self._tint = None if tint is None else np.array(tint, np.float32)

    def generate(self, request: ChunkRequest) -> Chunk:
        config, inputs = request.config, request.inputs
        frames = inputs.reference
        if frames is None:
            frames = np.full((config.num_frames, config.height, config.width, 3), IDLE, np.uint8)
        elif self._tint is not None:
            frames = (frames * self._tint).astype(np.uint8)
        length = segment_samples(config.num_frames, exact_frame_rate(config.frame_rate), SAMPLE_RATE)
        samples = np.zeros((2, length), np.float32) if inputs.driving is None else inputs.driving.output
        self.made += 1
        self.mirrored += inputs.reference is not None
        self.driven += inputs.driving is not None
        return Chunk(frames, samples, SAMPLE_RATE, ChunkStats(0.0, 0.001, 0.0, config.num_steps))
