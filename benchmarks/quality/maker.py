"""Clips from the product: a session for each, with the parameters and files that a user would give it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scope_ltx.catalog import LORA_DIRECTORY
from scope_ltx.config import LTX2Config
from scope_ltx.engine import EngineOptions
from scope_ltx.pipeline import Pipeline, load_pipeline
from scope_ltx.session import Session

Frames = npt.NDArray[np.uint8]
"""(F, H, W, 3) RGB."""
Samples = npt.NDArray[np.float32]
"""(2, N) at 48 kHz."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Of one chunk, as it is shown."""

    frames: Frames
    samples: Samples


class Maker:
    """Makes clips of one size with one model. `geometry`: size, frames and frame rate; `notes` collects what the
    product told its user."""

    def __init__(self, model: Path, device: str, geometry: LTX2Config) -> None:
        self.model, self.device = model, device
        self.geometry = geometry
        # Compiling takes longer than most rows, and would change the figures while they are taken.
        self._pipeline: Pipeline = load_pipeline(model, device, EngineOptions(acceleration="off"), geometry)
        self.notes: set[str] = set()

    @property
    def fps(self) -> float:
        return self.geometry.frame_rate

    @property
    def seconds(self) -> float:
        """Of one clip."""
        return self.geometry.num_frames / self.geometry.frame_rate

    def clip(self, prompt: str, seed: int, **parameters: Any) -> Clip:
        """The first chunk of a stream with these parameters of LTX2Config beside the geometry."""
        (made,) = self.chunks(prompt, seed, 1, **parameters)
        return made

    def chunks(self, prompt: str, seed: int, count: int, **parameters: Any) -> Sequence[Clip]:
        """So many chunks of one stream."""
        # One seed for every chunk would repeat the first one.
        config = self.geometry.updated(base_seed=seed, randomize_seed=count > 1, **parameters)
        session = Session(self._pipeline, config, prompt)
        made = []
        with closing(_Sources(session)):
            for _ in range(count):
                segment = session.next_segment()
                made.append(Clip(segment.frames, segment.samples))
                self.notes |= {note for note in session.last_notes if "merged in" not in note}
        return made

    def has_lora(self, file: str) -> bool:
        return (self.model / LORA_DIRECTORY / file).is_file()

    def close(self) -> None:
        self._pipeline.close()


class _Sources:
    """Closes a session with its files."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def close(self) -> None:
        self._session.close()
        self._session.close_sources()
