"""What a chunk is conditioned on besides its text and numbers: pixels and samples, decoded and of the right size.

A session makes them anew for each chunk; a generator turns them into tokens. All pixels are uint8 RGB of the
chunk's height and width, all samples float32 in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PinnedImage:
    """pixels (H, W, 3) that frame `frame_idx` of the chunk shall show, at `strength` 0 to 1."""

    pixels: Pixels
    frame_idx: int
    strength: float


@dataclass(frozen=True, eq=False)
class DrivingSound:
    """output: (2, samples) at 48 kHz, exactly the sound of the frames that are shown. model: (2, N) at 16 kHz, the
    same time for the model, with what comes before (an overlap) and after, as many as its audio tokens need."""

    output: Samples
    model: Samples


@dataclass(frozen=True, eq=False)
class Tail:
    """What the chunk before ended with, to go on from: frames (8 (K - 1) + 1, H, W, 3), and the samples (2, N) at
    48 kHz that sounded with them (None while a driving track gives the sound)."""

    frames: Pixels
    samples: Samples | None


@dataclass(frozen=True, eq=False)
class ChunkInputs:
    """pins: at most one for each frame, frame 0 not beside a tail. reference: (F, H, W, 3), as many frames as the
    chunk. voice: (2, N) at 16 kHz. At most one of driving and voice.

    camera_may_come: where no file gives the reference, a camera may: it sends one now, not yet, or not any more.
    Then a LoRA that looks at a reference rests while there is none, and a reference that no LoRA looks at is left
    out, each with a note. Where it is False, the one without the other is refused.
    """

    pins: tuple[PinnedImage, ...] = ()
    reference: Pixels | None = None
    driving: DrivingSound | None = None
    voice: Samples | None = None
    tail: Tail | None = None
    camera_may_come: bool = False


NO_INPUTS = ChunkInputs()
