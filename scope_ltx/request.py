"""What goes into a generator and what comes out of it: the seam between a session and a pipeline."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from scope_ltx.config import LTX2Config
from scope_ltx.inputs import NO_INPUTS, ChunkInputs


@dataclass(frozen=True)
class WeightedPrompt:
    """`weight` is relative to the others of a mix, and above 0."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class ChunkRequest:
    """Everything that decides one chunk: the same request gives the same frames and samples.

    `mix` blends several prompts by weight; where it is not empty, `prompt` is only their description.
    Setting `cancel` abandons the chunk with `GenerationCancelled`, between two of the model's blocks or before it
    is decoded.
    """

    config: LTX2Config
    prompt: str
    seed: int
    inputs: ChunkInputs = NO_INPUTS
    mix: tuple[WeightedPrompt, ...] = ()
    cancel: threading.Event = field(default_factory=threading.Event, compare=False)


@dataclass(frozen=True)
class ChunkStats:
    """Wall seconds of one chunk by stage. `text_s` is 0 when the prompt's context was cached. `engine` says
    how the transformer's blocks ran: as they are or compiled, launched or replayed. `overlapped`: it was decoded
    beside the next chunk's denoising.

    copied_nbytes: weights copied to the device for this chunk. device_nbytes and pinned_nbytes: device memory that
    this process held and host memory that it had locked at the chunk's end.
    """

    text_s: float
    denoise_s: float
    decode_s: float
    steps: int
    engine: str = ""
    overlapped: bool = False
    copied_nbytes: int = 0
    device_nbytes: int = 0
    pinned_nbytes: int = 0

    @property
    def total_s(self) -> float:
        """From the request to the frames."""
        return self.text_s + self.denoise_s + self.decode_s

    @property
    def busy_s(self) -> float:
        """How long the next chunk had to wait: what decides the real-time factor."""
        return self.text_s + self.denoise_s + (0.0 if self.overlapped else self.decode_s)


@dataclass(frozen=True)
class Chunk:
    """One generated chunk, on the CPU. Frames and samples last equally long (to half a sample).

    With a tail in its inputs it begins with what the tail shows and sounds: a session leaves that out.

    frames: uint8 RGB (F, H, W, 3). samples: float32 in [-1, 1], (channels, N) at `sample_rate`.
    surplus: (channels, M), how the sound goes on after them, as far as it was made: what a next chunk fades in
    over. `notes` are sentences for the user about what was decided for them (a snapped size, a schedule fallback).
    """

    frames: npt.NDArray[np.uint8]
    samples: npt.NDArray[np.float32]
    sample_rate: int
    stats: ChunkStats
    notes: tuple[str, ...] = ()
    surplus: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((2, 0), np.float32))


class Generator(Protocol):
    """Makes chunks: the pipeline, or a ten-line fake in a test of a host."""

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        """Returns when the next request may be submitted: the chunk may still be finished on another thread.
        Chunks are finished in the order of their requests.

        Raises GenerationCancelled, UnsupportedError; what fails later is in the future.
        """

    def close(self) -> None:
        """Give the model's memory back. Nothing is submitted any more, and nothing is being made."""
