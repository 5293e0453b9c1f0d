"""What every row is given: the maker, the judges, counts, and a directory for the files that it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.figures import Row
from benchmarks.quality.judging import Judging
from benchmarks.quality.maker import Maker
from benchmarks.quality.prompt_run import PublishedRun
from scope_ltx.config import LTX2Config


@dataclass(frozen=True)
class Bench:
    """One evaluation. modes: cases of each mode. compared: prompts of the rows that compare two ways to run.
    strengths: at which a reference is followed, rising from 0 to 1. scratch: an empty directory for inputs and
    model files, removed afterwards. bf16_weights: unquantised training weights."""

    maker: Maker
    judging: Judging
    published: PublishedRun
    modes: int
    compared: int
    scratch: Path
    bf16_weights: Path | None = None
    strengths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)

    @property
    def size(self) -> LTX2Config:
        return self.maker.geometry

    @property
    def fps(self) -> float:
        return self.maker.fps

    def folder(self, name: str) -> Path:
        """A new directory for one row's files."""
        path = self.scratch / name
        path.mkdir()
        return path


MakeRow = Callable[[Bench], Row]
