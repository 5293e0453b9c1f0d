"""What goes into a generator and what comes out of it: the seam between a session and a pipeline."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from scope_ltx.config import LTX2Config


@dataclass(frozen=True)
class ChunkRequest:
    """Everything that decides one chunk: the same request gives the same frames and samples.

    Setting `cancel` abandons the chunk at the next step boundary with `GenerationCancelled`.
    """

    config: LTX2Config
    prompt: str
    seed: int
    cancel: threading.Event = field(default_factory=threading.Event, compare=False)


@dataclass(frozen=True)
class ChunkStats:
    """Wall seconds of one chunk by stage. `text_s` is 0 when the prompt's context was cached. `engine` says
    how the transformer's blocks ran: as they are or compiled, launched or replayed."""

    text_s: float
    denoise_s: float
    decode_s: float
    steps: int
    engine: str = ""

    @property
    def total_s(self) -> float:
        return self.text_s + self.denoise_s + self.decode_s


@dataclass(frozen=True)
class Chunk:
    """One generated chunk, on the CPU. Frames and samples last equally long (to half a sample).

    frames: uint8 RGB (F, H, W, 3). samples: float32 in [-1, 1], (channels, N) at `sample_rate`.
    `notes` are sentences for the user about what was decided for them (a snapped size, a schedule fallback).
    """

    frames: npt.NDArray[np.uint8]
    samples: npt.NDArray[np.float32]
    sample_rate: int
    stats: ChunkStats
    notes: tuple[str, ...] = ()


class Generator(Protocol):
    """Makes chunks: the pipeline, or a ten-line fake in a test of a host."""

    def generate(self, request: ChunkRequest) -> Chunk:
        """Blocks for the whole chunk. Raises GenerationCancelled, UnsupportedError."""
