"""Time as an object, so that hours of streaming can be tested in milliseconds.

The only module that imports `time`. Seconds are monotonic and have no meaning as a date.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Where `now` comes from and how a thread waits."""

    def now(self) -> float:
        """Monotonic seconds."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait up to `seconds`, or until `stop` is set. Returns whether `stop` is set."""


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(max(0.0, seconds))
