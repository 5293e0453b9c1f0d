"""Work that takes long, such as compiling, on another thread, beside chunks that must not wait for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

SWITCH_INTERVAL_S = 0.0002


class Background(Protocol):
    """Runs tasks on another thread, one at a time."""

    @property
    def busy(self) -> bool:
        """A task runs, or waits for its turn."""

    def start(self, task: Callable[[], None]) -> None: ...


class BackgroundThread:
    """One for a process: its switch interval is the process's, and so are what a compiler does to memory and to
    tracing, which `busy` tells of.

    Daemon threads: a process that ends does not wait for inductor, which may have half a minute to go.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._tasks = 0

    @property
    def busy(self) -> bool:
        return self._tasks > 0

    def start(self, task: Callable[[], None]) -> None:
        self._count(1)
        try:
            threading.Thread(target=self._run, args=(task,), name="compiler", daemon=True).start()
        except RuntimeError:  # no thread can be started
            self._count(-1)
            raise

    def _run(self, task: Callable[[], None]) -> None:
        try:
            with self._turn, quick_switching():
                task()
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self._tasks += change


@contextmanager
def quick_switching() -> Iterator[None]:
    """Threads hand the interpreter over 25 times as often, for the process and while this lasts.

    Every operation on a tensor gives the interpreter up for a moment. Beside a compiler, which never waits, it
    comes back only after the switch interval: 5 ms for each of a chunk's 600 operations would be 3 s.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
