"""Which form of a function a chunk runs: as it is, or compiled. Compiling never delays a chunk.

The first two chunks of a shape run it as it is. From the third on, when everything is captured and needs little
of the interpreter, another thread compiles it on copies of the chunk's tensors (30 s for the blocks on an H200's
host; begun with the first chunk, it made that one take 26 s). The first chunk after that takes the compiled form.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch._inductor.loop_body import InterpreterShim

from scope_streaming.weights.background import Background

logger = logging.getLogger(__name__)

Call = TypeVar("Call", bound=Callable[..., Any])
Call_co = TypeVar("Call_co", bound=Callable[..., Any], covariant=True)

CHUNKS_BEFORE = 2
"""The first warms up and captures the blocks, the second captures the decoders."""

ATTEMPTS = 2
SHAPES = 16
"""Shapes of work whose progress is remembered; a stream uses a few."""
RECOMPILES = 4 * SHAPES


class Forms(Protocol[Call_co]):
    """Decides the form of a function for a shape of work."""

    def form(self, shape: Hashable, rehearse: Callable[[], Callable[[Call_co], None]]) -> tuple[str, Call_co]:
        """A name for the form, and the form. `rehearse` makes its copies when it is called, at once or never; what
        it returns runs the function once in every way that a chunk will need."""


class PlainForm(Generic[Call]):
    """A function as it is."""

    def __init__(self, plain: Call) -> None:
        self._plain = plain

    def form(self, shape: Hashable, rehearse: Callable[[], Callable[[Call], None]]) -> tuple[str, Call]:
        return "eager", self._plain


@dataclass
class Progress:
    """How far one shape has come. `failed` attempts; `compiling` now, `ready` to be used, `taken` by a chunk."""

    chunks: int = 0
    failed: int = 0
    compiling: bool = False
    ready: bool = False
    taken: bool = False


class CompiledForms(Generic[Call]):
    """Compiles each shape once, in the `background`. What is ready is taken when nothing else is being compiled:
    a compiler marks the whole process as tracing, and meanwhile a compiled function runs as it was written.

    When compiling fails the reason is logged, the function stays as it is (slower, and correct), and it is tried
    once more: memory may have been short, or the blocks may have moved.
    """

    def __init__(self, background: Background, plain: Call, compile_it: Callable[[Call], Call]) -> None:
        self._background = background
        self._plain = plain
        self._compiled = compile_it(plain)
        self._shapes: OrderedDict[Hashable, Progress] = OrderedDict()

    def form(self, shape: Hashable, rehearse: Callable[[], Callable[[Call], None]]) -> tuple[str, Call]:
        progress = self._shapes.setdefault(shape, Progress())
        self._shapes.move_to_end(shape)
        while len(self._shapes) > SHAPES and not next(iter(self._shapes.values())).compiling:
            self._shapes.popitem(last=False)
        if progress.ready and (progress.taken or not self._background.busy):
            progress.taken = True
            return "compiled", self._compiled
        due = not (progress.compiling or progress.ready) and progress.chunks >= CHUNKS_BEFORE
        progress.chunks += 1
        if due and progress.failed < ATTEMPTS:
            self._begin(progress, rehearse)
        return "eager", self._plain

    def _begin(self, progress: Progress, rehearse: Callable[[], Callable[[Call], None]]) -> None:
        progress.compiling = True
        try:
            self._background.start(partial(self._compile, progress, rehearse()))
        except Exception:
            # Want of memory for the copies, or of a thread, must not cost the chunk that only asked for a form.
            self._give_up(progress)
            progress.compiling = False

    @torch.inference_mode()
    def _compile(self, progress: Progress, rehearse: Callable[[Call], None]) -> None:
        try:
            rehearse(self._compiled)
            progress.ready = True
        except Exception:
            self._give_up(progress)
        finally:
            progress.compiling = False

    def _give_up(self, progress: Progress) -> None:
        logger.exception("compiling has failed; what was to be compiled runs as it is")
        progress.failed += 1
        progress.chunks = 0


def trace_shim() -> None:
    """Have inductor trace its one symbolic function now, which it otherwise does when it first compiles.

    A symbolic trace replaces `Module.__call__` for the whole process while it lasts, some 3 ms. A module that
    another thread calls meanwhile, such as a decoder's, fails with "module is not installed as a submodule"; seen
    once on an H200 with PyTorch 2.11. Everything else that inductor traces lets other modules through.
    """
    InterpreterShim._dummy_gm()


def inductor(call: Call, *, dynamic: bool = False, backend: str = "inductor") -> Call:
    """One compiled function; the weights it works with are its inputs. `dynamic`: one form serves all sizes.

    To be made before anything else runs modules: see `trace_shim`."""
    if backend == "inductor":
        trace_shim()
    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic, backend=backend)

    def run(*arguments: Any) -> Any:
        # PyTorch gives up a function for good after 8 forms of it: with two kinds of blocks, after four sizes.
        # While another thread compiles it would raise; told not to, it runs `call`. Both settings belong to the
        # thread, and compiling happens on the first call.
        with torch._dynamo.config.patch(recompile_limit=RECOMPILES, error_on_nested_fx_trace=False):
            return compiled(*arguments)

    return cast(Call, run)
