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
from scope_ltx.models.components import load_components
from scope_ltx.models.placement import plan_both
from scope_ltx.models.split_linear import RowSplitLinear
from scope_ltx.pipeline import Pipeline, load_pipeline
from scope_ltx.request import Chunk, ChunkRequest
from scope_streaming.clock import SystemClock
from scope_streaming.weights.plan import BudgetError

MIB = 2**20
TINY = LTX2Config(height=64, width=64, num_frames=9, num_steps=2)


def chunk(pipeline: Pipeline, prompt: str = "a red ball") -> Chunk:
    return pipeline.generate(ChunkRequest(TINY, prompt, seed=7))


@pytest.fixture(scope="module")
def resident(small_model_dir: Path) -> Pipeline:
    return load_pipeline(small_model_dir, "cpu")


@pytest.mark.parametrize("budget_mib", [3.0, 3.4])
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
    streamed = load_pipeline(small_model_dir, "cpu", EngineOptions(3.2 * MIB / GIB))
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


def test_a_larger_request_makes_room_before_it_starts(small_model_dir: Path) -> None:
    pipeline = load_pipeline(small_model_dir, "cpu")
    before = pipeline.placement
    chunk(pipeline)
    assert pipeline.placement is before
    larger = LTX2Config(height=416, width=352, num_frames=137, num_steps=1)
    request = ChunkRequest(larger, "a red ball", seed=7)
    request.cancel.set()
    with pytest.raises(GenerationCancelled):
        pipeline.generate(request)
    assert pipeline.placement is not before
    assert chunk(pipeline).frames.shape == (9, 64, 64, 3)


def test_a_budget_that_cannot_hold_the_slots_says_what_would_do(small_model_dir: Path) -> None:
    with pytest.raises(BudgetError, match=r"2 slots of 1\.\d MiB need at least 3\.\d MiB\. Raise"):
        load_pipeline(small_model_dir, "cpu", EngineOptions(0.1 * MIB / GIB))


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0 GiB, got 0"):
        EngineOptions(0)


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
