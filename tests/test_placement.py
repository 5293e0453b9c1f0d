"""The real pipeline on the small model, with its weights resident and with its weights streamed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scope_ltx.config import LTX2Config
from scope_ltx.engine import GIB, EngineOptions
from scope_ltx.errors import GenerationCancelled
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.memory import ModelMemory
from scope_ltx.models.placement import Placement, plan_both
from scope_ltx.models.split_linear import RowSplitLinear
from scope_ltx.pipeline import Pipeline, load_pipeline
from scope_ltx.request import Chunk, ChunkRequest
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.headroom import Demand, estimated_nbytes
from scope_streaming.clock import SystemClock
from scope_streaming.weights.host import HostMemory, PinningError
from scope_streaming.weights.layout import block_tensors
from scope_streaming.weights.plan import BudgetError, ResidencyPlan

MIB = 2**20
MOST_STREAMED_MIB, FEW_STREAMED_MIB = 4.9, 6.3
"""The small model has 6.0 MiB in the transformer, 3.7 in the text path: 4 and 2 blocks are then streamed."""
TINY = LTX2Config(height=64, width=64, num_frames=9, num_steps=2)


def chunk(pipeline: Pipeline, prompt: str = "a red ball") -> Chunk:
    return pipeline.generate(ChunkRequest(TINY, prompt, seed=7))


@pytest.fixture(scope="module")
def resident(small_model_dir: Path) -> Pipeline:
    return load_pipeline(small_model_dir, "cpu")


@pytest.mark.parametrize("budget_mib", [MOST_STREAMED_MIB, FEW_STREAMED_MIB])
def test_streamed_blocks_give_the_same_bytes_as_resident_ones(
    small_model_dir: Path, resident: Pipeline, budget_mib: float
) -> None:
    streamed = load_pipeline(small_model_dir, "cpu", EngineOptions(budget_mib * MIB / GIB))
    assert streamed.placement.plan.streamed
    assert streamed.placement.text_plan.streamed
    assert not resident.placement.plan.streamed
    for prompt in ("a red ball", "a blue square", "a red ball"):
        ours, theirs = chunk(streamed, prompt), chunk(resident, prompt)
        assert np.array_equal(ours.frames, theirs.frames)
        assert np.array_equal(ours.samples, theirs.samples)
    assert not np.array_equal(chunk(streamed, "a blue square").frames, chunk(streamed).frames)
    streamed.close()


def test_a_cancelled_chunk_leaves_streaming_in_order(small_model_dir: Path, resident: Pipeline) -> None:
    streamed = load_pipeline(small_model_dir, "cpu", EngineOptions(MOST_STREAMED_MIB * MIB / GIB))
    cancelled = ChunkRequest(TINY, "a red ball", seed=7)
    cancelled.cancel.set()
    with pytest.raises(GenerationCancelled):
        streamed.generate(cancelled)
    assert np.array_equal(chunk(streamed).frames, chunk(resident).frames)
    streamed.close()


class RunsOutOnce:
    """A video decoder that runs out of memory at its first call."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        self._calls += 1
        if self._calls == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._vae.decode(*args, **kwargs)


def test_running_out_of_memory_is_tried_again_and_told(small_model_dir: Path, resident: Pipeline) -> None:
    parts = load_components(ModelFiles.in_directory(small_model_dir), torch.device("cpu"))
    vae: Any = RunsOutOnce(parts.video_vae)
    pipeline = Pipeline(replace(parts, video_vae=vae), SystemClock())
    made = chunk(pipeline)
    assert np.array_equal(made.frames, chunk(resident).frames)
    assert [note for note in made.notes if "ran out of memory" in note]
    assert not [note for note in chunk(pipeline).notes if "memory" in note]


class Shrinking:
    """Places for the small model, with a budget that falls as headroom grows. Fails to place when told."""

    def __init__(self, parts: Components, budget_mib: float) -> None:
        self._parts = parts
        self._budget_nbytes = int(budget_mib * MIB)
        self.failures = 0
        self.measured: int | None = None

    def plan(self, headroom_nbytes: int) -> tuple[ResidencyPlan, ResidencyPlan]:
        transformer, text = ([block.nbytes for block in blocks] for blocks in self._parts.blocks)
        return plan_both(transformer, text, self._budget_nbytes - (headroom_nbytes - FIRST_NBYTES) // 1000)

    def activations_nbytes(self, plans: tuple[ResidencyPlan, ResidencyPlan]) -> int | None:
        return self.measured

    def place(self, plans: tuple[ResidencyPlan, ResidencyPlan]) -> Placement:
        if self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._parts.place(plans)


FIRST, LARGER, HUGE = (
    Demand.of(ChunkGeometry.of(LTX2Config(height=size, width=size, num_frames=129))) for size in (320, 384, 1024)
)
FIRST_NBYTES = estimated_nbytes(FIRST)


@pytest.fixture
def shrinking(small_model_dir: Path) -> Shrinking:
    parts = load_components(ModelFiles.in_directory(small_model_dir), torch.device("cpu"))
    return Shrinking(parts, 6.6)


def test_a_larger_request_moves_blocks_and_tells(shrinking: Shrinking) -> None:
    moves: list[Placement | None] = []
    memory = ModelMemory(shrinking, FIRST, moves.append)
    before = memory.placement
    memory.fit(FIRST)
    assert (memory.placement, moves) == (before, [])
    memory.fit(LARGER)
    assert moves == [None, memory.placement]
    assert len(memory.placement.plan.streamed) > len(before.plan.streamed)
    memory.fit(FIRST)
    assert len(moves) == 2
    memory.close()


def test_what_a_request_took_counts_for_more_than_the_estimate(shrinking: Shrinking) -> None:
    memory = ModelMemory(shrinking, FIRST, lambda _: None)
    plan = memory.placement.plan
    shrinking.measured = FIRST_NBYTES - 1
    memory.learn(LARGER)
    memory.fit(LARGER)
    assert memory.placement.plan == plan
    shrinking.measured = estimated_nbytes(LARGER)
    memory.learn(LARGER)
    memory.fit(LARGER)
    assert len(memory.placement.plan.streamed) > len(plan.streamed)
    memory.close()


def test_a_request_that_cannot_fit_leaves_everything_as_it_is(shrinking: Shrinking) -> None:
    moves: list[Placement | None] = []
    memory = ModelMemory(shrinking, FIRST, moves.append)
    before = memory.placement
    for _ in range(3):
        with pytest.raises(BudgetError):
            memory.fit(HUGE)
    memory.fit(FIRST)
    assert (memory.placement, moves) == (before, [])
    memory.close()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_move_that_fails_is_undone_or_made_good_by_the_next_request(shrinking: Shrinking, failures: int) -> None:
    moves: list[Placement | None] = []
    memory = ModelMemory(shrinking, FIRST, moves.append)
    plan = memory.placement.plan
    shrinking.failures = failures
    with pytest.raises(torch.OutOfMemoryError):
        memory.fit(LARGER)
    if failures == 2:
        assert moves == [None]
        with pytest.raises(RuntimeError, match="no place"):
            _ = memory.placement
        memory.fit(FIRST)
    assert memory.placement.plan == plan
    assert moves[-1] is memory.placement
    memory.close()


def test_a_placement_that_fails_gives_everything_back_though_its_error_is_kept(small_model_dir: Path) -> None:
    """What is locked counts against the limit that the way back meets."""
    locked: set[int] = set()

    def memory(most: int) -> HostMemory:
        def register(address: int, nbytes: int) -> None:
            if len(locked) == most:
                raise RuntimeError("out of memory")
            locked.add(address)

        return HostMemory(register, locked.remove)

    parts = load_components(ModelFiles.in_directory(small_model_dir), torch.device("cpu"))
    transformer, text = ([block.nbytes for block in blocks] for blocks in parts.blocks)
    plans = plan_both(transformer, text, int(MOST_STREAMED_MIB * MIB))
    streamed = len(plans[0].streamed)
    for most in (1, streamed - 1, streamed + 1):
        with pytest.raises(PinningError) as kept:
            Placement(*parts.blocks, parts.device, plans, memory(most))
        assert "out of memory" in str(kept.value)
        assert not locked
        modules = [block.module for blocks in parts.blocks for block in blocks]
        assert all(tensor.is_meta for module in modules for tensor in block_tensors(module).values())
    Placement(*parts.blocks, parts.device, plans, memory(len(transformer) + len(text))).close()
    assert not locked


def test_a_pipeline_whose_blocks_have_no_place_never_runs_over_nothing(small_model_dir: Path) -> None:
    """A walk over no blocks would show noise, without an error."""
    pipeline = load_pipeline(small_model_dir, "cpu")
    pipeline._moved(None)
    with pytest.raises(RuntimeError, match="have no place on the device"):
        chunk(pipeline)
    pipeline._moved(pipeline.placement)
    assert chunk(pipeline).frames.shape == (9, 64, 64, 3)


def test_a_budget_that_cannot_hold_the_slots_says_what_would_do(small_model_dir: Path) -> None:
    with pytest.raises(BudgetError, match=r"2 slots of 2\.\d MiB need at least 5\.\d MiB\. Raise"):
        load_pipeline(small_model_dir, "cpu", EngineOptions(0.1 * MIB / GIB))


@pytest.mark.parametrize("budget", [0, -1, float("inf"), float("nan")])
def test_a_budget_that_is_none_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="a number above 0 GiB, got"):
        EngineOptions(budget)


def test_graphs_need_a_cuda_device(small_model_dir: Path) -> None:
    with pytest.raises(ValueError, match="'graphs' needs a CUDA device, not cpu: use 'off'"):
        load_pipeline(small_model_dir, "cpu", EngineOptions(acceleration="graphs"))


def test_text_shares_slots_that_fit_both() -> None:
    transformer, text = [10 * MIB] * 8, [12 * MIB] * 3
    everything, nothing_streamed = plan_both(transformer, text, 116 * MIB)
    assert not everything.streamed
    assert not nothing_streamed.streamed
    plan, text_plan = plan_both(transformer, text, 115 * MIB)
    assert not plan.streamed
    assert plan.slot_nbytes == text_plan.slot_nbytes == 12 * MIB
    assert text_plan.streamed == (0, 1, 2)
    plan, _ = plan_both(transformer, text, 64 * MIB)
    assert len(plan.streamed) == 4
    assert plan.device_nbytes == 64 * MIB


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_a_linear_layer_in_parts_is_the_same_layer(rows: int) -> None:
    linear = torch.nn.Linear(5, 7)
    split = RowSplitLinear(linear, part_nbytes=rows * 5 * 4)
    for first, part in zip(split.first_rows, split.parts, strict=True):
        part.weight.data.copy_(linear.weight[first : first + part.out_features])
        part.bias.data.copy_(linear.bias[first : first + part.out_features])
    x = torch.randn(2, 5)
    torch.testing.assert_close(split(x), linear(x))
    assert len(split.parts) == -(-7 // min(rows, 7))
