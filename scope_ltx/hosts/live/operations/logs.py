"""What a log record becomes: text for people, or a JSON object for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogForm = Literal["text", "json"]
FIELDS = "fields"
"""Attribute of a log record whose dict becomes members of its JSON line."""


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
