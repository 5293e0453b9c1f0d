"""The plugin on a CUDA device: loaded, used and unloaded, with the device's memory as it was."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from scope_ltx.hosts.scope import loading
from scope_ltx.hosts.scope.node import Parts, build_pipeline_class
from scope_ltx.hosts.scope.weights import SharedWeights
from scope_ltx.hosts.scope.worker import worker_thread
from scope_streaming.clock import SystemClock
from tests.fakes.scope_api import host_api

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def outputs(pipeline: Any, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    end_s = time.monotonic() + 60
    while len(found) < count and time.monotonic() < end_s:
        output = pipeline(prompts="a cat", init_cache=not found)
        found += [output] if output else []
        time.sleep(0.002)
    return found


def held() -> tuple[int, int]:
    """Bytes of tensors, and of everything that the device has free."""
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]


def test_five_loads_and_unloads_leave_the_devices_memory(small_model_dir: Path, tmp_path: Path) -> None:
    """No collector runs: the instance and its model go with the last reference."""
    clock = SystemClock()
    weights = SharedWeights(clock, loading.device_nbytes, loading.empty_caches, kept_s=0.0)
    parts = Parts(clock, worker_thread, weights, loading.find_model, loading.identity_of, loading.model_loader())
    cls = build_pipeline_class(host_api(tmp_path), parts)
    threads = set(threading.enumerate())  # tests before may have left some that are ending
    seen = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(6):
            pipeline = cls(model=str(small_model_dir), num_frames=25, height=128, width=128, acceleration="graphs")
            made = outputs(pipeline, 12)
            assert len(made) == 12, pipeline.status
            assert made[0]["video"].device.type == "cpu"
            loaded = torch.cuda.memory_allocated()
            instance = weakref.ref(pipeline)
            del pipeline, made
            assert instance() is None
            assert set(threading.enumerate()) <= threads
            assert loaded > 10 * 2**20
            seen.append(held())
    finally:
        gc.enable()
    # The first has also brought in libraries and their workspaces.
    allocated, free = zip(*seen[1:], strict=True)
    assert max(allocated) == min(allocated), seen
    assert max(free) - min(free) <= 0.01 * loaded, seen
