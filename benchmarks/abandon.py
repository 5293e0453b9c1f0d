"""How soon the device is free after a chunk was given up, and what it costs to be able to.

    python -m benchmarks.abandon --budgets 24,12 [--size 384x320x129] [--out DIRECTORY]

A host that ends a session sets an event and joins the thread that calls us; a new session starts at once. Both
want the old chunk gone. Graphs are queued far faster than they run, so the host is kept at most one run of blocks
ahead of the device. For comparison the same pipeline is measured with longer runs and no such bound. At the end,
what is left of the model in device and page-locked memory.

Needs one NVIDIA GPU and diffusers; no model files, no network.
"""

from __future__ import annotations

import argparse
import gc
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.full_model import build_components
from benchmarks.full_size import PUBLISHED_BF16_BLOCKS
from benchmarks.report import RESULTS, machine, write_json
from scope_ltx.config import LTX2Config
from scope_ltx.engine import EngineOptions
from scope_ltx.errors import GenerationCancelled
from scope_ltx.pipeline import Pipeline, hold_to_budget
from scope_ltx.request import ChunkRequest
from scope_streaming.clock import SystemClock
from scope_streaming.weights.run_ahead import OneRunAhead, Unbounded
from scope_streaming.weights.streamer import RUN_BLOCKS, BlockStreamer, runs

UNBOUNDED_RUN_BLOCKS = 16
WARM, TIMED, GIVEN_UP = 3, 5, 5
PROMPT = "A red ball bounces along a beach at dusk while waves roll in."


def bind(pipeline: Pipeline, *, bounded: bool) -> None:
    """One of the two ways to queue, in a pipeline that stays loaded."""
    walk = pipeline.placement.walk
    assert isinstance(walk, BlockStreamer)
    longest = RUN_BLOCKS if bounded else UNBOUNDED_RUN_BLOCKS
    walk._runs = runs(len(walk), frozenset(walk.plan.streamed), longest)
    walk._ahead = OneRunAhead(torch.device("cuda")) if bounded else Unbounded()
    pipeline._denoiser.use(walk)


def step_ms(pipeline: Pipeline, config: LTX2Config) -> float:
    """Of a chunk's denoising, the median of a few."""
    chunks = [pipeline.generate(ChunkRequest(config, PROMPT, seed)) for seed in range(WARM + TIMED)]
    return 1000 * median(chunk.stats.denoise_s / chunk.stats.steps for chunk in chunks[WARM:])


def given_up_ms(pipeline: Pipeline, config: LTX2Config) -> list[float]:
    """From the wish to the idle device, at different moments of the denoising."""
    whole_s = pipeline.generate(ChunkRequest(config, PROMPT, 0)).stats.denoise_s
    taken = []
    for index in range(GIVEN_UP):
        request = ChunkRequest(config, PROMPT, index)
        moment: list[float] = []

        def give_up(request: ChunkRequest = request, moment: list[float] = moment) -> None:
            moment.append(time.perf_counter())
            request.cancel.set()

        timer = threading.Timer(whole_s * (index + 1) / (GIVEN_UP + 1), give_up)
        timer.start()
        try:
            pipeline.generate(request)
        except GenerationCancelled:
            torch.cuda.synchronize()
            taken.append(1000 * (time.perf_counter() - moment[0]))
        timer.join()
    return taken


def held() -> dict[str, int]:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return {"allocated": torch.cuda.memory_allocated(), "free": torch.cuda.mem_get_info()[0]}


def measure(budget_gb: float, config: LTX2Config) -> dict[str, Any]:
    device, engine = torch.device("cuda"), EngineOptions(budget_gb, acceleration="graphs")
    torch.zeros(1, device=device)
    before = held()
    hold_to_budget(device, engine)
    pipeline = Pipeline(build_components(device, engine, PUBLISHED_BF16_BLOCKS), SystemClock(), config)
    plan = pipeline.placement.plan
    result: dict[str, Any] = {
        "budget_gb": budget_gb,
        "resident": len(plan.resident),
        "streamed": len(plan.streamed),
        "pinned_nbytes": pipeline.placement.pinned_nbytes,
        "device_nbytes": torch.cuda.memory_allocated(),
    }
    for bounded in (False, True):
        bind(pipeline, bounded=bounded)
        name = "bounded" if bounded else "unbounded"
        result.setdefault(f"{name}_step_ms", []).append(round(step_ms(pipeline, config), 2))
        taken = given_up_ms(pipeline, config)
        result.setdefault(f"{name}_given_up_ms", []).extend(round(ms, 1) for ms in taken)
        print(name, result[f"{name}_step_ms"], result[f"{name}_given_up_ms"], flush=True)
    placement = pipeline.placement
    pipeline.close()
    result["pinned_nbytes_after"] = placement.pinned_nbytes
    del pipeline, placement
    after = held()
    result["device_nbytes_after"] = after["allocated"] - before["allocated"]
    result["free_nbytes_lost"] = before["free"] - after["free"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", default="24,12", help="GiB, separated by commas")
    parser.add_argument("--size", default="384x320x129", help="height x width x frames")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    height, width, frames = map(int, given.size.split("x"))
    config = LTX2Config(height=height, width=width, num_frames=frames)
    results = [measure(float(budget), config) for budget in given.budgets.split(",")]
    for result in results:
        for name, value in result.items():
            print(f"{name:>24}  {value}")
    print(write_json("abandon", {"machine": machine(torch.device("cuda")), "results": results}, given.out))


if __name__ == "__main__":
    main()
