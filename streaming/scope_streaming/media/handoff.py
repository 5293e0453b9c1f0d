"""The one place where the generation thread and the network side meet.

Policy when full: *the producer waits before it starts*. A place is reserved first and filled later, so
nothing finished is ever held back or thrown away, a change of parameters governs the very next chunk that
starts, and memory is bounded by `capacity` however slow the consumer is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class HandoffClosedError(Exception):
    """The hand-off was closed and holds nothing any more."""


class Handoff(Generic[T]):
    """Bounded queue from one producer thread to one consumer, which may be an event loop.

    Producer: `reserve` (waits), then `put` or `release`; `fail` when it ends by an exception. Consumer:
    `poll` or `take`. `close` from either side wakes every wait at once.
    """

    def __init__(self, capacity: int = 1) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._reserved = 0
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._listener: Callable[[], None] | None = None

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    def reserve(self, beyond: int = 0) -> bool:
        """Wait for a free place and hold it. False when the hand-off is closed: then stop producing.

        `beyond` allows that many places above the capacity, for a producer that works on two items at once.
        """
        capacity = self._capacity + beyond
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) + self._reserved < capacity)
            if self._closed:
                return False
            self._reserved += 1
            return True

    def put(self, item: T) -> None:
        """Fill the reserved place. After `close` the item is dropped: nobody is left to take it."""
        with self._changed:
            self._spend()
            if not self._closed:
                self._items.append(item)
            self._notify()

    def release(self) -> None:
        """Give the reserved place back unused."""
        with self._changed:
            self._spend()
            self._notify()

    def fail(self, error: BaseException) -> None:
        """Close, and raise `error` in the consumer once it has taken what is left."""
        with self._changed:
            self._error = self._error or error
            self._closed = True
            self._notify()

    def close(self) -> None:
        """Wake every wait. What is inside is dropped."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._notify()

    def poll(self) -> T | None:
        """The next item, or None. Raises the producer's exception, or HandoffClosedError, when no item is left."""
        with self._changed:
            return self._pop()

    def take(self, timeout_s: float | None = None) -> T | None:
        """Like `poll`, but waits up to `timeout_s` (None: as long as it takes)."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            return self._pop()

    def on_change(self, listener: Callable[[], None] | None) -> None:
        """Call `listener` after every change, on the thread that made it.

        It must be quick and call nothing here: an event loop passes one that calls `call_soon_threadsafe`.
        None takes it away; when this returns, it is not running and will not be called again.
        """
        with self._changed:
            self._listener = listener

    def _pop(self) -> T | None:
        if self._items:
            item = self._items.popleft()
            self._notify()
            return item
        if self._error is not None:
            raise self._error
        if self._closed:
            raise HandoffClosedError("the hand-off is closed")
        return None

    def _spend(self) -> None:
        if self._reserved == 0:
            raise RuntimeError("no place was reserved: call reserve before put or release")
        self._reserved -= 1

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._listener is not None:
            self._listener()
