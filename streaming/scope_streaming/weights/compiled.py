"""Which form of a function a chunk runs: as it is, or compiled. Compiling never delays a chunk.

The first two chunks of a shape run it as it is. From the third on, when everything is captured and needs little
of the interpreter, another thread compiles it on copies of the chunk's tensors (30 s for the blocks on an H200's
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
from typing import Any, Generic, Protocol, TypeVar, cast

import torch

logger = logging.getLogger(__name__)

Call = TypeVar("Call", bound=Callable[..., Any])
Call_co = TypeVar("Call_co", bound=Callable[..., Any], covariant=True)

CHUNKS_BEFORE = 2
"""The first warms up and captures the blocks, the second captures the decoders."""

SWITCH_INTERVAL_S = 0.0002

ATTEMPTS = 2
SHAPES = 16
"""Shapes of work whose progress is remembered; a stream uses a few."""
RECOMPILES = 4 * SHAPES

Start = Callable[[Callable[[], None]], object]
"""Runs a task on another thread. Tasks do not overlap."""


class Forms(Protocol[Call_co]):
    """Decides the form of a function for a shape of work."""

    @property
    def busy(self) -> bool:
        """Something is being compiled: device memory is taken and given back beside the chunk."""

    def form(self, shape: Hashable, rehearse: Callable[[], Callable[[Call_co], None]]) -> tuple[str, Call_co]:
        """A name for the form, and the form. `rehearse` makes its copies when it is called, at once or never; what
        it returns runs the function once in every way that a chunk will need."""


class PlainForm(Generic[Call]):
    """A function as it is."""

    busy = False

    def __init__(self, plain: Call) -> None:
        self._plain = plain

    def form(self, shape: Hashable, rehearse: Callable[[], Callable[[Call], None]]) -> tuple[str, Call]:
        return "eager", self._plain


@dataclass
class Progress:
    """How far one shape has come. `failed` attempts; `compiling` now, `ready` to be used."""

    chunks: int = 0
    failed: int = 0
    compiling: bool = False
    ready: bool = False


class CompiledForms(Generic[Call]):
    """Compiles each shape once, through `start`.

    When compiling fails the reason is logged, the function stays as it is (slower, and correct), and it is tried
    once more: memory may have been short, or the blocks may have moved.
    """

    def __init__(self, start: Start, plain: Call, compile_it: Callable[[Call], Call]) -> None:
        self._start = start
        self._plain = plain
        self._compiled = compile_it(plain)
        self._shapes: OrderedDict[Hashable, Progress] = OrderedDict()

    @property
    def busy(self) -> bool:
        return any(progress.compiling for progress in tuple(self._shapes.values()))

    def form(self, shape: Hashable, rehearse: Callable[[], Callable[[Call], None]]) -> tuple[str, Call]:
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
        return "eager", self._plain

    @torch.inference_mode()
    def _compile(self, progress: Progress, rehearse: Callable[[Call], None]) -> None:
        try:
            rehearse(self._compiled)
            progress.ready = True
        except Exception:
            logger.exception("compiling has failed; what was to be compiled runs as it is")
            progress.failed += 1
            progress.chunks = 0
        finally:
            progress.compiling = False


class BackgroundThread:
    """Runs tasks one at a time, each on a daemon thread: a process that ends does not wait for inductor, which may
    have half a minute to go."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def __call__(self, task: Callable[[], None]) -> None:
        threading.Thread(target=self._run, args=(task,), name="compiler", daemon=True).start()

    def _run(self, task: Callable[[], None]) -> None:
        with self._turn, quick_switching():
            task()


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


def inductor(call: Call, *, dynamic: bool = False, backend: str = "inductor") -> Call:
    """One compiled function; the weights it works with are its inputs. `dynamic`: one form serves all sizes."""
    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic, backend=backend)

    def run(*arguments: Any) -> Any:
        # PyTorch gives up a function for good after 8 forms of it: with two kinds of blocks, after four sizes.
        # The setting belongs to the thread, and compiling happens on the first call.
        with torch._dynamo.config.patch(recompile_limit=RECOMPILES):
            return compiled(*arguments)

    return cast(Call, run)
