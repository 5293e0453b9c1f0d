"""Which form of a block a chunk runs: as it is, or compiled. Compiling never delays a chunk.

The first two chunks of a shape run the blocks as they are. From the third on, when everything is captured and
needs little of the interpreter, another thread compiles them on copies of the chunk's tensors (30 s on an H200's
host; begun with the first chunk, it made that one take 26 s). The first chunk after that takes the compiled form.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from scope_ltx.sampling.workspace import CallBlock, call_block

logger = logging.getLogger(__name__)

CHUNKS_BEFORE = 2
"""The first warms up and captures the blocks, the second captures the decoders."""

SWITCH_INTERVAL_S = 0.0002

ATTEMPTS = 2
SHAPES = 16
"""Shapes of work whose progress is remembered; a stream uses a few."""
RECOMPILES = 4 * SHAPES

Start = Callable[[Callable[[], None]], object]

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


@dataclass
class Progress:
    """How far one shape has come. `failed` attempts; `compiling` now, `ready` to be used."""

    chunks: int = 0
    failed: int = 0
    compiling: bool = False
    ready: bool = False


class CompiledForms:
    """Compiles each shape once, through `start`, one at a time. When compiling fails the reason is logged, the
    blocks stay as they are (slower, and correct), and it is tried once more: memory may have been short, or the
    blocks may have moved."""

    def __init__(self, start: Start, compile_block: Callable[[CallBlock], CallBlock]) -> None:
        """`start` runs a task on another thread."""
        self._start = start
        self._compiled = compile_block(call_block)
        self._turn = threading.Lock()
        self._shapes: OrderedDict[Hashable, Progress] = OrderedDict()

    @property
    def busy(self) -> bool:
        return any(progress.compiling for progress in tuple(self._shapes.values()))

    def form(self, shape: Hashable, rehearse: Callable[[], Rehearse]) -> tuple[str, CallBlock]:
        progress = self._shapes.setdefault(shape, Progress())
        self._shapes.move_to_end(shape)
        while len(self._shapes) > SHAPES and not next(iter(self._shapes.values())).compiling:
            self._shapes.popitem(last=False)
        if progress.ready:
            return "compiled", self._compiled
        if not progress.compiling and progress.failed < ATTEMPTS and progress.chunks >= CHUNKS_BEFORE:
            progress.compiling = True
            self._start(partial(self._compile, progress, rehearse()))
        progress.chunks += 1
        return "eager", call_block

    @torch.inference_mode()
    def _compile(self, progress: Progress, rehearse: Rehearse) -> None:
        try:
            with self._turn, quick_switching():
                rehearse(self._compiled)
            progress.ready = True
        except Exception:
            logger.exception("the blocks could not be compiled; they run as they are")
            progress.failed += 1
            progress.chunks = 0
        finally:
            progress.compiling = False


def on_daemon_thread(task: Callable[[], None]) -> None:
    """A process that ends does not wait for what runs here: inductor may have half a minute to go."""
    threading.Thread(target=task, name="block-compiler", daemon=True).start()


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


def inductor(call: CallBlock, backend: str = "inductor") -> CallBlock:
    """One compiled function for all blocks: their weights are its inputs."""
    compiled = torch.compile(call, fullgraph=True, dynamic=False, backend=backend)

    def run(*arguments: Any) -> tuple[Tensor, Tensor]:
        # PyTorch gives up a function for good after 8 forms of it: with two kinds of blocks, after four sizes.
        # The setting belongs to the thread, and compiling happens on the first call.
        with torch._dynamo.config.patch(recompile_limit=RECOMPILES):
            result: tuple[Tensor, Tensor] = compiled(*arguments)
        return result

    return run
