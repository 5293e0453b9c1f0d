"""Filling buffers ahead: while some are read from disk, the one before is page-locked or copied to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Buffer = TypeVar("Buffer")

AHEAD = 4
"""Buffers that are filled at a time, so many times one block of host memory."""


def filled(
    buffers: Iterable[tuple[int, Buffer]], fill: Callable[[int, Buffer], None], ahead: int = AHEAD
) -> Iterator[tuple[int, Buffer]]:
    """Each numbered buffer in turn once `fill` has filled it, on another thread, at most `ahead` at a time.

    The next buffer is asked for when the caller is done with one. Raises what `fill` raises.
    """
    filling: deque[tuple[int, Buffer, Future[None]]] = deque()
    with ThreadPoolExecutor(ahead, thread_name_prefix="weights-fill") as pool:

        def first() -> tuple[int, Buffer]:
            index, buffer, done = filling.popleft()
            done.result()
            return index, buffer

        for index, buffer in buffers:
            filling.append((index, buffer, pool.submit(fill, index, buffer)))
            if len(filling) == ahead:
                yield first()
        while filling:
            yield first()
