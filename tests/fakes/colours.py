"""A generator that is instant: a block of colour that moves, a note in each ear, and a record of its requests."""

from __future__ import annotations

import numpy as np

from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from tests.fakes.whole_chunks import WholeChunks

SAMPLE_RATE = 48_000
LEFT_HZ, RIGHT_HZ = 440.0, 1_320.0


class ColourGenerator(WholeChunks):
    """Every chunk is alike; `requests` tells which parameters and prompts reached it."""

    def __init__(self) -> None:
        self.requests: list[ChunkRequest] = []

    def generate(self, request: ChunkRequest) -> Chunk:
        self.requests.append(request)
        config = request.config
        frames = np.full((config.num_frames, config.height, config.width, 3), (40, 60, 110), np.uint8)
        half = config.height // 2
        for number, frame in enumerate(frames):
            top = number * half // config.num_frames
            frame[top : top + half, config.width // 4 : -config.width // 4] = (230, 150, 80)
        count = round(config.num_frames * SAMPLE_RATE / config.frame_rate)
        at = np.arange(count) / SAMPLE_RATE
        notes = [0.2 * np.sin(2 * np.pi * hertz * at) for hertz in (LEFT_HZ, RIGHT_HZ)]
        stats = ChunkStats(text_s=0.0, denoise_s=0.3, decode_s=0.1, steps=config.num_steps)
        return Chunk(frames, np.stack(notes).astype(np.float32), SAMPLE_RATE, stats)
