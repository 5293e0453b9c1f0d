"""One log line per chunk, as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from scope_ltx.request import ChunkStats

logger = logging.getLogger(__name__)

LogForm = Literal["text", "json"]
FIELDS = "fields"
"""Attribute of a log record whose dict becomes members of its JSON line."""


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


class ChunkLog:
    """Writes the line of each chunk. What failed is logged by the generation loop, with its traceback."""

    def made(self, chunk: MadeChunk) -> None:
        stats, factor = chunk.stats, chunk.real_time_factor
        fields = {
            "chunk": chunk.index,
            "media_s": round(chunk.media_s, 6),
            "real_time_factor": None if factor is None else round(factor, 3),
            **{
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in asdict(stats).items()
            },
            "prompt": chunk.prompt,
            "notes": list(chunk.notes),
        }
        logger.info(
            "chunk %d: %.2f s of media, %s real time, text %.3f s, denoise %.3f s in %d steps, decode %.3f s",
            chunk.index,
            chunk.media_s,
            "?" if factor is None else f"{factor:.2f}x",
            stats.text_s,
            stats.denoise_s,
            stats.steps,
            stats.decode_s,
            extra={FIELDS: fields},
        )

    def failed(self, error: BaseException) -> None:
        """Nothing: see above."""

    def prompt_shown(self, seconds: float) -> None:
        logger.info("a new prompt is on air after %.2f s", seconds, extra={FIELDS: {"prompt_change_s": seconds}})


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, the record's fields, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(form: LogForm, level: str, stream: TextIO | None = None) -> None:
    """What a program does once, at its start: everything to `stream` (None: standard error) from `level` on.

    The libraries' own chatter starts at WARNING: aiortc would log every packet.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in ("scope_ltx", "scope_streaming", "scope_quant"):
        logging.getLogger(package).setLevel(level.upper())
