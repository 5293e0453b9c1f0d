"""The denoiser on a CUDA device with its blocks streamed: same numbers, and a steady state that never waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.models.text import TextContext
from scope_ltx.sampling.denoiser import Denoiser, Prepared
from scope_ltx.sampling.workspace import CallBlock, Pass, call_block
from scope_streaming.weights.backend import slot_ring
from scope_streaming.weights.graphs import BlockRunner, EagerRunner, GraphRunner
from scope_streaming.weights.host import PinningError, cuda_memory
from scope_streaming.weights.layout import block_tensors, layout_of
from scope_streaming.weights.plan import plan_residency
from scope_streaming.weights.streamer import BlockStreamer
from tests.tiny import tiny_transformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")
LAYERS = 7
SIGMAS = tuple(i / 20 for i in range(20, -1, -1))
NEVER = threading.Event()


class Compiled:
    """The form of the blocks is one compiled function from the first chunk on."""

    def form(self, shape: object, rehearse: object) -> tuple[str, CallBlock]:
        compiled: CallBlock = torch.compile(call_block, fullgraph=True, dynamic=False)
        return "compiled", compiled


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def blocks_and_values() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    torch.manual_seed(0)
    model = tiny_transformer(LAYERS).to(torch.bfloat16).eval()
    values = [
        {name: tensor.detach().clone() for name, tensor in block_tensors(block).items()}
        for block in model.transformer_blocks
    ]
    for name, child in model.named_children():
        if name != "transformer_blocks":
            child.to(CUDA)
    for name, parameter in list(model.named_parameters(recurse=False)):
        setattr(model, name, nn.Parameter(parameter.to(CUDA), requires_grad=False))
    return model, values


def fill(values: list[dict[str, Tensor]], index: int, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(values[index][name])


class Bench:
    """A denoiser over a tiny transformer, of whose blocks `resident` stay on the device."""

    def __init__(self, resident: int, runner: BlockRunner, forms: Compiled | None = None, passes: int = 1) -> None:
        model, values = blocks_and_values()
        blocks = list(model.get_submodule("transformer_blocks").children())
        sizes = [layout_of(block_tensors(block)).nbytes for block in blocks]
        budget = sum(sizes) if resident == LAYERS else (resident + 2) * max(sizes)
        self.plan = plan_residency(sizes, budget)
        ring = slot_ring(self.plan, CUDA)
        self.walk = BlockStreamer(blocks, partial(fill, values), self.plan, ring, cuda_memory(CUDA), CUDA)
        self.denoiser = Denoiser(model, self.walk, runner, forms)
        generator = torch.Generator(CUDA).manual_seed(1)
        draw = partial(torch.randn, device=CUDA, generator=generator)
        self.video = TokenSequence(draw(1, 24, 128), self.denoiser.video_coords(2, 3, 4, 24.0))
        self.audio = TokenSequence(draw(1, 9, 128), self.denoiser.audio_coords(9))
        context = TextContext(draw(1, 1024, 48).bfloat16(), draw(1, 1024, 32).bfloat16())
        self.passes = [Pass(context)] * passes

    def prepare(self) -> Prepared:
        return self.denoiser.prepare(self.video, self.audio, self.passes, SIGMAS)

    def steps(self, prepared: Prepared, count: int = 20) -> tuple[Tensor, Tensor]:
        video, audio = self.video.latents.clone(), self.audio.latents.clone()
        self.walk_steps(prepared, video, audio, count)
        return video, audio

    def walk_steps(self, prepared: Prepared, video: Tensor, audio: Tensor, count: int = 20) -> None:
        for step in range(count):
            velocity = self.denoiser.velocities(prepared, video, audio, step, NEVER)[-1]
            video.add_(velocity.video, alpha=SIGMAS[step + 1] - SIGMAS[step])
            audio.add_(velocity.audio, alpha=SIGMAS[step + 1] - SIGMAS[step])


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("resident", [0, 3, 5])
def test_streamed_equals_resident_bit_for_bit(resident: int) -> None:
    whole, streamed = Bench(LAYERS, EagerRunner()), Bench(resident, EagerRunner())
    assert (len(whole.plan.streamed), len(streamed.plan.streamed)) == (0, LAYERS - len(streamed.plan.resident))
    for ours, theirs in zip(streamed.steps(streamed.prepare()), whole.steps(whole.prepare()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own code
def test_graphs_equal_eager_bit_for_bit_and_compiled_within_rounding() -> None:
    eager, graphs = Bench(3, EagerRunner()), Bench(3, GraphRunner(CUDA))
    compiled = Bench(3, GraphRunner(CUDA), Compiled())
    expected = eager.steps(eager.prepare())
    for ours, theirs in zip(graphs.steps(graphs.prepare()), expected, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(compiled.steps(compiled.prepare()), expected, strict=True):
        # bfloat16 has 8 bits; fused kernels round in fewer places.
        assert relative_error(ours, theirs) < 2e-2


@pytest.mark.parametrize("resident", [0, 3])
def test_the_steady_state_allocates_nothing_and_never_waits(resident: int) -> None:
    bench = Bench(resident, GraphRunner(CUDA))
    prepared = bench.prepare()
    video, audio = bench.steps(prepared)
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()
    torch.cuda.set_sync_debug_mode("error")
    try:
        bench.walk_steps(prepared, video, audio)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    after = torch.cuda.memory_stats()
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert changed == {}


def test_two_passes_copy_the_bytes_of_one() -> None:
    def copied(passes: int) -> int:
        bench = Bench(3, GraphRunner(CUDA), passes=passes)
        prepared = bench.prepare()
        bench.steps(prepared, 3)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            bench.steps(prepared, 4)
            torch.cuda.synchronize()
        bench.walk.close()
        return sum(event.count for event in profile.key_averages() if "HtoD" in event.key)

    assert copied(1) == copied(2) >= 4 * 4


def test_leaving_gives_device_and_pinned_memory_back() -> None:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        bench = Bench(3, EagerRunner())
        bench.steps(bench.prepare(), 2)
        bench.walk.close()
        del bench
    assert torch.cuda.memory_allocated() - before < 2**20


def test_what_cannot_be_captured_is_launched_and_the_rest_still_replays() -> None:
    total, runner = torch.zeros((), device=CUDA), GraphRunner(CUDA)

    def waits() -> None:
        total.add_(float(total.item() >= 0))

    for expected in (1, 2, 3):
        runner.run("waits", waits)
        assert float(total) == expected
    assert not runner.replays("waits")
    assert runner.name == "launched and graphs"
    for _ in range(3):
        runner.run("adds", lambda: total.add_(1))
    assert runner.replays("adds")
    torch.cuda.synchronize()
    assert float(total) == 6


def test_memory_that_cannot_be_locked_is_no_error_of_the_next_kernel() -> None:
    memory = cuda_memory(CUDA)
    buffer = memory.allocate(2**20)
    memory.lock(buffer)
    with pytest.raises(PinningError, match="712"):  # the driver has it already
        memory.lock(buffer)
    assert torch.ones(4, device=CUDA).sum().item() == 4.0
    memory.close()
