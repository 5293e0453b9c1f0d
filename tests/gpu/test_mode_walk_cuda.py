"""Fifty chunks of changing modes, sizes and LoRA sets on a CUDA device: same bytes, same memory."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from scope_ltx.engine import EngineOptions
from scope_ltx.pipeline import load_pipeline
from tests.fakes.mode_walk import CHUNKS, MODES, SETS, SIZES, Alone, walk, write_sets

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Compiled blocks would be taken in the middle of the walk, and round otherwise.
ENGINE = EngineOptions(acceleration="graphs")


def held() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def test_fifty_chunks_leave_the_bytes_and_the_memory_as_they_were(small_model_dir: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(small_model_dir, "cuda", ENGINE)
    alone = Alone(lambda: load_pipeline(small_model_dir, "cuda", ENGINE), write_sets(tmp_path, pipeline))
    every = [(mode, chosen, size) for chosen in SETS for mode in MODES for size in SIZES]
    steps = (every * 2)[:CHUNKS]
    walk(pipeline, alone, steps)
    alone.close()
    alone.loaded.clear()
    before = held()
    walk(pipeline, alone, steps)
    assert held() == before
    pipeline.close()
