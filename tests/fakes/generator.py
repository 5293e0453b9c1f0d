"""A generator whose frames and sound say where in the stream they are, so that a viewer can measure.

Frames: a counter as black and white squares. Sound: a tone that climbs from 400 to 2000 Hz within each second,
without a click, so its pitch tells the position to a few milliseconds.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_streaming.media.timeline import exact_frame_rate, segment_samples
from tests.fakes.whole_chunks import WholeChunks

SAMPLE_RATE = 48_000
BITS = 20
SQUARE = 32
LOW_HZ, SPAN_HZ = 400.0, 1600.0
_PHASE_PER_SECOND = 2 * np.pi * (LOW_HZ + SPAN_HZ / 2)


class TestCardGenerator(WholeChunks):
    """Instant. Counts the frames of its whole life, so chunks continue each other in picture and sound."""

    __test__ = False

    def __init__(self) -> None:
        self.requests: list[ChunkRequest] = []
        self._frames = 0
        self._samples = 0

    def generate(self, request: ChunkRequest) -> Chunk:
        self.requests = [*self.requests[-9:], request]
        config = request.config
        count = config.num_frames
        frames = np.full((count, config.height, config.width, 3), 96, np.uint8)
        for i in range(count):
            draw_counter(frames[i], self._frames + i)
        length = segment_samples(count, exact_frame_rate(config.frame_rate), SAMPLE_RATE)
        samples = sweep(self._samples, length)
        self._frames += count
        self._samples += length
        return Chunk(frames, samples, SAMPLE_RATE, ChunkStats(0.1, 0.7, 0.2, config.num_steps))


class Ending(TestCardGenerator):
    """Raises `error` after its `chunks`-th chunk, until `left` is set again."""

    def __init__(self, chunks: int, error: Exception) -> None:
        super().__init__()
        self.left = chunks
        self._error = error

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        if self.left == 0:
            raise self._error
        self.left -= 1
        return super().submit(request)


class Unfinished(TestCardGenerator):
    """Leaves it to the test when a chunk is finished."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[Future[Chunk]] = []

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        self.chunks.append(Future())
        self.requests.append(request)
        return self.chunks[-1]


def draw_counter(frame: npt.NDArray[np.uint8], number: int) -> None:
    """Write `number` into the top of an (H, W, 3) frame, lowest bit first."""
    columns = frame.shape[1] // SQUARE
    for bit in range(BITS):
        y, x = bit // columns * SQUARE, bit % columns * SQUARE
        frame[y : y + SQUARE, x : x + SQUARE] = 235 if number >> bit & 1 else 16


def read_counter(frame: npt.NDArray[Any]) -> int:
    """The number in an (H, W, 3) frame. Reads the middle of each square, so compression does not matter."""
    columns = frame.shape[1] // SQUARE
    number = 0
    for bit in range(BITS):
        y, x = bit // columns * SQUARE, bit % columns * SQUARE
        if frame[y + 8 : y + 24, x + 8 : x + 24].mean() > 128:
            number |= 1 << bit
    return number


def sweep(start: int, length: int) -> npt.NDArray[np.float32]:
    """Samples [start, start + length) of the endless tone: float32 (2, length)."""
    position = start + np.arange(length)
    seconds, t = position // SAMPLE_RATE, (position % SAMPLE_RATE) / SAMPLE_RATE
    phase = seconds * _PHASE_PER_SECOND + 2 * np.pi * (LOW_HZ * t + SPAN_HZ / 2 * t * t)
    mono = (0.3 * np.sin(phase)).astype(np.float32)
    return np.stack([mono, mono])


def read_sweep(samples: npt.NDArray[np.float32]) -> float | None:
    """Second within the sweep, 0..1, at the middle of `samples` (1-D, some 60 ms); None when it is silent.

    A window that holds the jump from 2000 to 400 Hz cannot be read and gives None as well.
    """
    if np.sqrt(np.mean(samples**2)) < 0.05:
        return None
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 16))
    hz = np.argmax(spectrum) * SAMPLE_RATE / (1 << 16)
    width_s = len(samples) / SAMPLE_RATE
    second = (hz - LOW_HZ) / SPAN_HZ
    return float(second) if width_s < second < 1 - width_s else None
