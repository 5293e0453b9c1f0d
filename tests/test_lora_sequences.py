"""Any sequence of modes, sizes and LoRA sets over 50 chunks: no stale LoRA, and no memory that stays behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.engine import GIB, EngineOptions
from scope_ltx.pipeline import Pipeline, load_pipeline
from tests.fakes.mode_walk import CHUNKS, MODES, SETS, SIZES, STEP, Alone, Step, walk, write_sets

MIB = 2**20
STREAMED_SHARE = 0.75
"""Of the device memory that all blocks take: some are then in slots, the others in place."""


@pytest.fixture(scope="module")
def pipeline(small_model_dir: Path) -> Pipeline:
    whole = load_pipeline(small_model_dir, "cpu")
    nbytes = whole.placement.plan.device_nbytes + whole.placement.text_plan.device_nbytes
    whole.close()
    streamed = load_pipeline(small_model_dir, "cpu", EngineOptions(vram_budget_gb=STREAMED_SHARE * nbytes / GIB))
    assert streamed.placement.plan.streamed
    assert streamed.placement.plan.resident
    return streamed


@pytest.fixture(scope="module")
def alone(small_model_dir: Path, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    files = write_sets(tmp_path_factory.mktemp("sets"), pipeline)
    one = Alone(lambda: load_pipeline(small_model_dir, "cpu"), files)
    yield one
    one.close()


def test_every_step_differs_from_every_other(alone: Alone) -> None:
    """Otherwise the walk below could not tell a stale LoRA or a forgotten mode."""
    steps = [(mode, chosen, SIZES[0]) for mode in MODES for chosen in SETS]
    assert len({alone(step) for step in steps}) == len(steps)


@settings(max_examples=2)
@given(st.lists(STEP, min_size=CHUNKS, max_size=CHUNKS))
def test_any_sequence_gives_the_chunks_of_pipelines_with_one_set_each(
    pipeline: Pipeline, alone: Alone, steps: list[Step]
) -> None:
    walk(pipeline, alone, steps)


def live_tensors() -> int:
    """Bytes of all tensors that something still holds."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter):
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_memory_after_fifty_chunks_is_what_it_was_before(pipeline: Pipeline, alone: Alone) -> None:
    every = [(mode, chosen, size) for chosen in SETS for mode in MODES for size in SIZES]
    steps = (every * 2)[:CHUNKS]
    walk(pipeline, alone, steps)
    held, resident = live_tensors(), psutil.Process().memory_info().rss
    walk(pipeline, alone, steps)
    assert live_tensors() == held
    # The allocator of the C library keeps some of what was freed; one copy of the weights is 15 MB.
    assert psutil.Process().memory_info().rss - resident < 15 * MIB
