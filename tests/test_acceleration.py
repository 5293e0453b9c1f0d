"""Taking over from eager to compiled blocks, with the compiling done by hand."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from typing import Any

import torch

from scope_ltx.sampling.acceleration import CompiledForms
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.workspace import CallBlock, Pass
from scope_streaming.weights.graphs import Launch
from tests.test_fidelity import SIGMAS, PromptEncoder, sequences
from tests.tiny import tiny_parts


class WhenTold(Executor):
    """Runs what was submitted when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, fn, args))
        return future

    def work(self) -> None:
        for future, fn, args in self.waiting:
            try:
                future.set_result(fn(*args))
            except RuntimeError as error:
                future.set_exception(error)
        self.waiting.clear()


class CountingRunner:
    name = "counted"

    def __init__(self) -> None:
        self.forgotten = 0

    def run(self, key: object, launch: Launch, *, warm: bool = False) -> None:
        launch()

    def forget(self) -> None:
        self.forgotten += 1


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
    denoiser = Denoiser(parts.transformer, None, runner, CompiledForms(executor, compile_block))
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
    assert torch.equal(chunk(denoiser, context), eager)
    assert compiled_calls == 1 + 3
    assert denoiser.engine == "compiled, counted"
    assert runner.forgotten == 1, "what was captured of the eager form must not be replayed"


@torch.inference_mode()
def test_when_compiling_fails_the_stream_goes_on_as_it_is() -> None:
    parts = tiny_parts()
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode("a")

    def compile_block(call: CallBlock) -> CallBlock:
        def compiled(*args: Any) -> Any:
            raise RuntimeError("no compiler")

        return compiled

    executor = WhenTold()
    denoiser = Denoiser(parts.transformer, None, CountingRunner(), CompiledForms(executor, compile_block))
    eager = chunk(denoiser, context)
    chunk(denoiser, context)
    chunk(denoiser, context)
    executor.work()
    assert torch.equal(chunk(denoiser, context), eager)
    assert denoiser.engine == "eager, counted"
    assert not executor.waiting, "a shape that failed is not tried again"
