"""Time that passes when a test says so: for threads, and for an event loop."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class FakeClock:
    """A wait returns at once and moves time by what was asked plus `overshoot_s`, as a real one wakes late."""

    def __init__(self, overshoot_s: float = 0.0) -> None:
        self._now = 1000.0
        self._overshoot_s = overshoot_s
        self.waits: list[float] = []

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        if not stop.is_set():
            self._now += seconds + self._overshoot_s
        return stop.is_set()


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timeout, it moves the clock by it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the event loop would wait for ever: nothing is scheduled")
        if timeout > 0:
            self._clock.advance(timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a FakeClock's: hours of sleeping pass in no time, in the right order."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        return self._clock.now()


def in_virtual_time(clock: FakeClock, scenario: Coroutine[Any, Any, T]) -> T:
    """What `scenario` gives, run on an event loop of that clock."""
    loop = VirtualLoop(clock)
    try:
        return loop.run_until_complete(scenario)
    finally:
        loop.close()


class InlineExecutor(Executor):
    """Runs a job where it is submitted, so that no real thread races with virtual time."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future
