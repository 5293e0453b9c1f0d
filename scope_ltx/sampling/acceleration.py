"""Which form of a block a chunk runs: as it is, or compiled. Compiling never delays a chunk.

The first two chunks of a shape run the blocks as they are. From the third on, when everything is captured and
needs little of the interpreter, another thread compiles them on copies of the chunk's tensors (30 s on an H200's
host; begun with the first chunk, it made that one take 26 s). The first chunk after that takes the compiled form.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Protocol

import torch

from scope_ltx.sampling.workspace import CallBlock, call_block

logger = logging.getLogger(__name__)

CHUNKS_BEFORE = 2
"""The first warms up and captures the blocks, the second captures the decoders."""

SWITCH_INTERVAL_S = 0.0002

Rehearse = Callable[[CallBlock], None]
"""Runs every kind of block once on copies, so that what it compiles is what a chunk will need."""


class BlockForms(Protocol):
    """Decides the form of the blocks for a shape of work."""

    @property
    def busy(self) -> bool:
        """Something is being compiled: device memory is taken and given back beside the chunk."""

    def form(self, shape: Hashable, rehearse: Callable[[], Rehearse]) -> tuple[str, CallBlock]:
        """A name for the form, and the form. `rehearse` makes its copies when it is called, at once or never."""


class PlainForm:
    """Blocks as they are."""

    busy = False

    def form(self, shape: Hashable, rehearse: Callable[[], Rehearse]) -> tuple[str, CallBlock]:
        return "eager", call_block


class CompiledForms:
    """Compiles each shape once, on `executor`. When compiling fails, the reason is logged once and the blocks
    stay as they are: slower, and correct."""

    def __init__(self, executor: Executor, compile_block: Callable[[CallBlock], CallBlock]) -> None:
        self._executor = executor
        self._compiled = compile_block(call_block)
        self._chunks: Counter[Hashable] = Counter()
        self._shapes: dict[Hashable, Future[None]] = {}

    @property
    def busy(self) -> bool:
        return any(not compiling.done() for compiling in self._shapes.values())

    def form(self, shape: Hashable, rehearse: Callable[[], Rehearse]) -> tuple[str, CallBlock]:
        compiling = self._shapes.get(shape)
        if compiling is not None and compiling.done() and compiling.exception() is None:
            return "compiled", self._compiled
        if compiling is None and self._chunks[shape] == CHUNKS_BEFORE:
            self._shapes[shape] = self._executor.submit(self._run, rehearse())
        self._chunks[shape] += 1
        return "eager", call_block

    @torch.inference_mode()
    def _run(self, rehearse: Rehearse) -> None:
        try:
            with quick_switching():
                rehearse(self._compiled)
        except Exception:
            logger.exception("the blocks could not be compiled; they run as they are")
            raise


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


def inductor(call: CallBlock) -> CallBlock:
    """One compiled function for all blocks: their weights are its inputs."""
    compiled: CallBlock = torch.compile(call, fullgraph=True, dynamic=False)
    return compiled
