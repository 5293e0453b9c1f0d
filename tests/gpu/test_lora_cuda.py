"""LoRAs merged on a CUDA device: the bytes of the CPU, wherever the weights live, and seen by captured graphs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scope_ltx.config import LTX2Config
from scope_ltx.lora.file import linear_shapes
from scope_ltx.lora.loras import NO_LORAS
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.adapters import LoraAdapter
from scope_ltx.models.components import load_components
from scope_quant.fp8 import FP8_DTYPE, quantize_per_tensor
from scope_quant.merge import LowRank, merge_fp8, merge_plain
from scope_streaming.weights.filling import AHEAD
from scope_streaming.weights.graphs import EagerRunner, GraphRunner
from tests.fakes.loras import draw_factors, write_lora
from tests.gpu.test_streaming_cuda import LAYERS, Bench
from tests.test_adapters import Model, assert_same, chosen, plans, same_bytes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def exact_change(rows: int, columns: int) -> LowRank:
    """Small whole numbers: every sum is exact in float32, in whatever order it is made."""
    generator = torch.Generator().manual_seed(2)
    down, up = (
        torch.randint(-3, 4, shape, generator=generator).bfloat16() for shape in ((16, columns), (rows, 16))
    )
    return LowRank(down, up, 0.25)


def test_a_merge_gives_the_bytes_of_the_cpu() -> None:
    weight = torch.randint(-8, 9, (512, 768), generator=torch.Generator().manual_seed(1)).float()
    change = exact_change(512, 768)
    scale = torch.tensor(2.0**-3)
    ours = merge_fp8(weight.to(CUDA).to(FP8_DTYPE), scale.to(CUDA), [change])
    theirs = merge_fp8(weight.to(FP8_DTYPE), scale, [change])
    assert same_bytes(ours.data.cpu(), theirs.data)
    # A CUDA device divides by a number by multiplying with its inverse: one more rounding.
    assert float(ours.scale) == pytest.approx(float(theirs.scale), rel=2**-23)
    plain = merge_plain(weight.bfloat16().to(CUDA), [change])
    assert same_bytes(plain.cpu(), merge_plain(weight.bfloat16(), [change]))


def test_a_merge_of_any_values_stays_within_one_requantization() -> None:
    generator = torch.Generator().manual_seed(4)
    pristine = quantize_per_tensor(torch.randn(512, 768, generator=generator) * 0.03)
    down, up = (torch.randn(shape, generator=generator).bfloat16() * 0.05 for shape in ((16, 768), (512, 16)))
    change = LowRank(down, up, 0.8)
    merged = merge_fp8(pristine.data.to(CUDA), pristine.scale.to(CUDA), [change])
    wanted = pristine.data.double() * pristine.scale.double() + 0.8 * change.up.double() @ change.down.double()
    found = merged.data.cpu().double() * merged.scale.cpu().double()
    bound = torch.maximum(wanted.abs() * 2**-4, merged.scale.cpu().double() * 2**-10)
    assert ((found - wanted).abs() <= bound + 1e-5 * wanted.abs().max()).all()


@pytest.mark.parametrize("resident", [0, 3, LAYERS])
def test_graphs_replay_what_was_refilled(resident: int) -> None:
    assert LAYERS > AHEAD, "staging buffers are used more than once"
    graphs, eager = Bench(resident, GraphRunner(CUDA)), Bench(resident, EagerRunner())
    prepared = graphs.prepare()
    before = graphs.steps(prepared)
    allocated = torch.cuda.memory_allocated()

    def fill(index: int, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            assert tensor.is_cpu
            generator = torch.Generator().manual_seed(1000 * index + len(name))
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)

    for bench in (graphs, eager):
        names = {index: ["attn1.to_q.weight", "ff.net.2.weight"] for index in range(LAYERS)}
        bench.walk.refill(names, fill)
    assert torch.cuda.memory_allocated() == allocated
    after = graphs.steps(prepared)
    for ours, theirs, old in zip(after, eager.steps(eager.prepare()), before, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, old)


@pytest.mark.parametrize("streamed", [False, True])
def test_merged_in_place_is_merged_while_placing(small_model_dir: Path, tmp_path: Path, streamed: bool) -> None:
    with torch.inference_mode(False):
        parts = load_components(ModelFiles.in_directory(small_model_dir), CUDA)
        transformer, text = ([block.nbytes for block in blocks] for blocks in parts.blocks)
        # Two slots, and room for two or three blocks beside them.
        budget_mib = (2 * max(*transformer, *text) + 0.45 * sum(transformer)) / 2**20 if streamed else None
        model = Model(parts, parts.place(plans(parts, budget_mib)), LoraAdapter(parts))
    assert bool(model.placement.plan.streamed) == streamed
    assert model.placement.plan.resident
    shapes = linear_shapes(parts.transformer, parts.connectors)
    path = write_lora(tmp_path / "all.safetensors", draw_factors(shapes, shapes, rank=4))
    select = partial(model.adapter.select, LTX2Config(loras=chosen((path, 0.7))), reference=False)
    pristine = model.weights()
    locked = model.placement.pinned_nbytes

    loras = select().loras
    applied = model.use(loras)
    assert applied.layers == len(shapes)
    assert applied.text_changed
    merged = model.weights()
    assert not all(same_bytes(tensor, pristine[name]) for name, tensor in merged.items())
    model.placement.close()
    with torch.inference_mode(False):
        model.placement = parts.place(plans(parts, budget_mib))
    assert_same(model.weights(), merged)

    model.use(NO_LORAS)
    assert_same(model.weights(), pristine)
    # Only now: the first product takes a workspace of 32 MiB, and keeps it.
    allocated = torch.cuda.memory_allocated()
    for _ in range(5):
        model.use(loras)
        model.use(NO_LORAS)
    assert model.placement.pinned_nbytes == locked
    assert torch.cuda.memory_allocated() == allocated
    model.placement.close()
