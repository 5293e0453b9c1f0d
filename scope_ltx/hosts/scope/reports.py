"""Sentences for the log, each said once: what a client sends comes again with every call of the host."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

REMEMBERED = 512
"""A client that sends something new each time does not fill the memory; what was forgotten is said again."""


class Reports:
    """One instance's. Thread-safe."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.RLock()

    def once(self, sentence: str) -> None:
        """A value that was not taken as it came, and what was done instead."""
        if self._is_new(sentence):
            self._logger.warning("%s", sentence)

    def failure(self, what: str, error: BaseException) -> None:
        """With its traceback the first time."""
        sentence = f"{what}: {type(error).__name__}: {error}"
        if self._is_new(sentence):
            self._logger.error("%s", sentence, exc_info=error)

    def _is_new(self, sentence: str) -> bool:
        with self._lock:
            new = sentence not in self._said
            self._said[sentence] = None
            self._said.move_to_end(sentence)
            while len(self._said) > REMEMBERED:
                self._said.popitem(last=False)
            return new
