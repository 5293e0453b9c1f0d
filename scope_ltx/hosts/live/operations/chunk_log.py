"""One log line per chunk."""

from __future__ import annotations

import logging
from dataclasses import asdict

from scope_ltx.hosts.live.operations.logs import FIELDS
from scope_ltx.hosts.live.stream.made_chunk import MadeChunk

logger = logging.getLogger(__name__)


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
