"""Taking over from eager to compiled blocks, with the compiling done by hand."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch.fx import Tracer

from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.workspace import CallBlock, Pass, call_block
from scope_streaming.weights.background import BackgroundThread
from scope_streaming.weights.compiled import CompiledForms, inductor, trace_shim
from scope_streaming.weights.graphs import Launch
from tests.test_fidelity import SIGMAS, PromptEncoder, sequences
from tests.tiny import tiny_parts


class WhenTold:
    """Runs what was started when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.elsewhere = False

    @property
    def busy(self) -> bool:
        return bool(self.waiting) or self.elsewhere

    def start(self, task: Callable[[], None]) -> None:
        self.waiting.append(task)

    def work(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class CountingRunner:
    name = "counted"

    def __init__(self) -> None:
        self.forgotten: list[Hashable] = []

    def run(self, key: object, launch: Launch, *, warm: bool = False) -> None:
        launch()

    def replays(self, key: object) -> bool:
        return False

    def forget(self, group: Hashable = None) -> None:
        self.forgotten.append(group)


def chunk(denoiser: Denoiser, context: Any, step: int = 2) -> torch.Tensor:
    video, audio = sequences(denoiser)
    prepared = denoiser.prepare(video, audio, [Pass(context)], SIGMAS)
    velocities = denoiser.velocities(prepared, video.latents, audio.latents, step, threading.Event())
    return velocities[0].video.clone()


@torch.inference_mode()
def test_the_compiled_form_takes_over_at_the_chunk_after_it_is_ready() -> None:
    parts = tiny_parts()
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode("a")
    compiled_calls = 0

    def compile_block(call: CallBlock) -> CallBlock:
        def compiled(*args: Any) -> Any:
            nonlocal compiled_calls
            compiled_calls += 1
            return call(*args)

        return compiled

    executor, runner = WhenTold(), CountingRunner()
    denoiser = Denoiser(parts.transformer, None, runner, CompiledForms(executor, call_block, compile_block))
    eager = chunk(denoiser, context)
    assert torch.equal(chunk(denoiser, context), eager)
    assert not executor.waiting, "the first chunks have the processor for themselves"
    assert torch.equal(chunk(denoiser, context), eager)
    assert len(executor.waiting) == 1
    assert compiled_calls == 0
    assert denoiser.engine == "eager, counted"
    executor.work()
    # One rehearsal: all three blocks of the tiny transformer are of one kind.
    assert compiled_calls == 1
    executor.elsewhere = True
    chunk(denoiser, context)
    assert denoiser.engine == "eager, counted", "what is ready waits until nothing else is being compiled"
    executor.elsewhere = False
    assert torch.equal(chunk(denoiser, context), eager)
    assert compiled_calls == 1 + 3
    assert denoiser.engine == "compiled, counted"
    assert len(runner.forgotten) == 1, "what was captured of the eager form must not be replayed"


def test_want_of_memory_for_the_copies_costs_no_chunk_and_is_tried_once_more() -> None:
    background, room = WhenTold(), False
    forms = CompiledForms(background, int, lambda call: call)

    def rehearse() -> Callable[[Any], None]:
        if not room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return lambda call: None

    assert [forms.form("a shape", rehearse)[0] for _ in range(3)] == ["eager"] * 3
    assert not background.waiting
    room = True
    assert [forms.form("a shape", rehearse)[0] for _ in range(3)] == ["eager"] * 3
    background.work()
    assert forms.form("a shape", rehearse)[0] == "compiled"


def test_a_thread_that_cannot_be_started_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    background = BackgroundThread()
    with pytest.raises(RuntimeError, match="can't start"):
        background.start(lambda: None)
    assert not background.busy


@torch.inference_mode()
def test_when_compiling_fails_the_stream_goes_on_as_it_is() -> None:
    parts = tiny_parts()
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode("a")

    def compile_block(call: CallBlock) -> CallBlock:
        def compiled(*args: Any) -> Any:
            raise RuntimeError("no compiler")

        return compiled

    executor, attempts = WhenTold(), 0
    denoiser = Denoiser(
        parts.transformer, None, CountingRunner(), CompiledForms(executor, call_block, compile_block)
    )
    eager = chunk(denoiser, context)
    chunk(denoiser, context)
    chunk(denoiser, context)
    executor.work()
    for _ in range(8):
        assert torch.equal(chunk(denoiser, context), eager)
        assert denoiser.engine == "eager, counted"
        attempts += len(executor.waiting)
        executor.work()
    assert attempts == 1, "a shape that failed is tried once more"


@torch.inference_mode()
def test_shapes_in_turn_keep_what_was_captured_of_them() -> None:
    parts = tiny_parts()
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode("a")
    start, runner = WhenTold(), CountingRunner()
    denoiser = Denoiser(parts.transformer, None, runner, CompiledForms(start, call_block, lambda call: call))
    for _ in range(4):
        chunk(denoiser, context)
        start.work()
    assert denoiser.engine == "compiled, counted"
    video, audio = sequences(denoiser)
    for _ in range(2):
        denoiser.prepare(video, audio, [Pass(context), Pass(context)], SIGMAS)
        assert denoiser.engine == "eager, counted"
        chunk(denoiser, context)
        assert denoiser.engine == "compiled, counted"
    assert len(runner.forgotten) == 1, "only the switch of the first shape to its compiled form"


def test_a_function_is_compiled_for_more_sizes_than_pytorch_would() -> None:
    """The default limit is 8 forms of one function, and with fullgraph the ninth fails."""

    def double(block: Any, *tensors: torch.Tensor) -> Any:
        return tuple(tensor * 2 for tensor in tensors)

    compiled: Any = inductor(double, backend="eager")
    for size in range(2, 13):
        assert float(compiled(None, torch.ones(size))[0].sum()) == 2 * size


def test_a_compiled_function_may_be_called_while_another_thread_traces() -> None:
    """PyTorch's mark of tracing belongs to the process: by itself the call would raise."""

    def double(tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 2

    compiled = inductor(double, backend="eager")
    inside, leave = threading.Event(), threading.Event()

    class Traced(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside.set()
            assert leave.wait(10)
            return x

    tracing = threading.Thread(target=torch.fx.symbolic_trace, args=(Traced(),))
    tracing.start()
    assert inside.wait(10)
    try:
        assert float(compiled(torch.ones(1))) == 2
    finally:
        leave.set()
        tracing.join()


def test_tasks_in_the_background_take_turns_and_busy_lasts_until_the_last() -> None:
    background, running, done = BackgroundThread(), threading.Lock(), threading.Semaphore(0)
    gate = threading.Event()

    def task() -> None:
        assert running.acquire(blocking=False), "two at a time"
        assert gate.wait(10)
        running.release()
        done.release()

    assert not background.busy
    for _ in range(3):
        background.start(task)
    assert background.busy
    gate.set()
    for _ in range(3):
        assert done.acquire(timeout=10)
    for thread in [thread for thread in threading.enumerate() if thread.name == "compiler"]:
        thread.join(10)
    assert not background.busy


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler uses what PyTorch deprecates
def test_compiling_disturbs_no_module_that_another_thread_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain symbolic trace would fail them all while it lasts: inductor has made its only one beforehand."""
    traced: list[str] = []
    trace = Tracer.trace

    def watched(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        traced.append(type(self).__name__)
        return trace(self, *args, **kwargs)

    trace_shim()
    monkeypatch.setattr(Tracer, "trace", watched)
    block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.GELU())
    # Where there is no C++ compiler, what was lowered cannot be built: everything was traced by then.
    # Never compiled before, or PyTorch's cache on disk would spare it the tracing.
    unique = random.SystemRandom().random()
    with torch.inference_mode(), suppress(BackendCompilerFailed):
        torch.compile(lambda x: block(x) * unique, fullgraph=True)(torch.ones(2, 8))
    assert "PythonKeyTracer" in traced
    assert "Tracer" not in traced
