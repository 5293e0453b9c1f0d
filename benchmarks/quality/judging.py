"""Judges beside the generator: clips are judged as they are made, in other processes, and few of them wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Self, TypeVar

import torch

Made = TypeVar("Made")
Judged = TypeVar("Judged")


class Judging:
    """Use with `with`. No processes: everything is judged where it is made."""

    def __init__(self, processes: int) -> None:
        if processes < 0:
            raise ValueError(f"processes must be 0 or more, got {processes}")
        self._processes = processes
        # A forked process must not use what the device's library has set up.
        self._pool = (
            ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,))
            if processes
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, judge: Callable[[Made], Judged], made: Iterable[Made]) -> Iterator[Judged]:
        """`judge` of each, in order, while the next ones are made. `judge` must be a function that can be sent to
        another process. At most two clips for each process wait: 48 MB each at the default size."""
        if self._pool is None:
            yield from map(judge, made)
            return
        waiting: deque[Future[Judged]] = deque()
        for one in made:
            waiting.append(self._pool.submit(judge, one))
            while len(waiting) > 2 * self._processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
