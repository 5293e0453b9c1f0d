"""What those who count and log are told of every chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from scope_ltx.request import ChunkStats


@dataclass(frozen=True)
class MadeChunk:
    """A chunk that is on its way to the viewers. `media_s` is how long it plays."""

    index: int
    media_s: float
    stats: ChunkStats
    prompt: str
    notes: tuple[str, ...]

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of media per second of work; None where no work was measured."""
        return self.media_s / self.stats.busy_s if self.stats.busy_s > 0 else None


class ChunkObserver(Protocol):
    """Is told of every chunk, by whichever thread finishes it; of prompts by the event loop. Must be quick."""

    def made(self, chunk: MadeChunk) -> None: ...

    def failed(self, error: BaseException) -> None: ...

    def prompt_shown(self, seconds: float) -> None:
        """A new prompt is on air, so long after it came."""
