"""Seconds per denoising step of the full-size transformer, with its blocks streamed, at several memory budgets.

    python -m benchmarks.weights --budgets 24,16,12,8 [--published] [--out DIRECTORY]

Needs one NVIDIA GPU (torch >= 2.9) and diffusers; no model files, no network. Everything is measured in one
process: the copy bandwidth, the compute floor (all blocks resident and compiled, one CUDA graph for the step),
our engine under each budget (enforced on the allocator) and diffusers' group offloading on the same work.
"""

from __future__ import annotations

import argparse
import gc
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.full_size import (
    PUBLISHED_BF16_BLOCKS,
    FixedForm,
    build_transformer,
    materialize_rest,
    random_fill,
    random_work,
)
from benchmarks.peer import group_offloading_steps
from benchmarks.report import RESULTS, machine, summary, write_json
from scope_ltx.config import LTX2Config
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.loop import euler_step
from scope_ltx.sampling.schedules import resolve_schedule
from scope_ltx.sampling.workspace import CallBlock, Pass, call_block
from scope_quant.capability import probe_fp8
from scope_streaming.weights.engine import CudaCopyEngine
from scope_streaming.weights.graphs import BlockRunner, EagerRunner, GraphRunner
from scope_streaming.weights.host import cuda_memory
from scope_streaming.weights.layout import block_tensors, layout_of
from scope_streaming.weights.plan import SLOTS, plan_residency
from scope_streaming.weights.ring import SlotRing
from scope_streaming.weights.streamer import BlockStreamer, BlockWalk

GIB = 2**30
SIZES = {"384x320x129": (384, 320, 129), "768x448x121": (448, 768, 121)}
NEVER = threading.Event()


def copy_bandwidth(device: torch.device, nbytes: int) -> float:
    """GB/s of page-locked copies to the device, median of 10 copies of one block's size."""
    host = cuda_memory(device)
    source = host.allocate(nbytes)
    host.lock(source)
    target = torch.empty(nbytes, dtype=torch.uint8, device=device)
    rates = []
    for _ in range(12):
        torch.cuda.synchronize()
        started = time.perf_counter()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        rates.append(nbytes / (time.perf_counter() - started) / 1e9)
    host.close()
    return sorted(rates[2:])[5]


class Work:
    """One size of request on one model, ready to step."""

    def __init__(self, model: Any, size: tuple[int, int, int], device: torch.device) -> None:
        height, width, frames = size
        self.config = LTX2Config(height=height, width=width, num_frames=frames)
        self.sigmas = resolve_schedule(self.config).sigmas
        self.geometry = ChunkGeometry.of(self.config)
        self.model, self.device = model, device

    def timings(
        self,
        walk: BlockWalk,
        runner: BlockRunner,
        call: CallBlock,
        loops: int,
        passes: int = 1,
    ) -> tuple[list[float], list[Tensor]]:
        """Seconds of each step over `loops` 8-step loops after one warm-up loop, and the last latents."""
        denoiser = Denoiser(self.model, walk, runner, FixedForm("measured", call))
        video, audio, context = random_work(denoiser, self.geometry, self.device, torch.bfloat16)
        seconds: list[float] = []
        latents: list[Tensor] = []
        for loop in range(loops + 2):
            prepared = denoiser.prepare(video, audio, [Pass(context)] * passes, self.sigmas)
            latents = [video.latents.clone(), audio.latents.clone()]
            torch.cuda.synchronize()
            started = time.perf_counter()
            for step, (sigma, following) in enumerate(pairwise(self.sigmas)):
                velocity = denoiser.velocities(prepared, latents[0], latents[1], step, NEVER)[-1]
                euler_step(latents[0], velocity.video, sigma, following, video)
                euler_step(latents[1], velocity.audio, sigma, following, audio)
            torch.cuda.synchronize()
            if loop >= 2:
                seconds.append((time.perf_counter() - started) / (len(self.sigmas) - 1))
        return seconds, latents

    def floor(self, loops: int, call: CallBlock) -> tuple[list[float], float]:
        """Compute floor: all blocks of `model` resident, one graph for the whole step. And its kernel time.

        The step starts from the latents each time: walking on from the last hidden states would soon multiply
        infinities, and an H200 runs those 10 % faster than numbers.
        """
        denoiser = Denoiser(self.model)
        video, audio, context = random_work(denoiser, self.geometry, self.device, torch.bfloat16)
        workspace = denoiser.prepare(video, audio, [Pass(context)], self.sigmas).workspace
        workspace.set_step(0, video.latents, audio.latents)
        blocks = list(enumerate(self.model.transformer_blocks))

        def walk() -> None:
            workspace.launch_start()
            workspace.launch_blocks(blocks, call)
            workspace.launch_heads()

        walk()
        runner = GraphRunner(self.device)
        runner.run("walk", walk)
        runner.run("walk", walk)
        seconds = []
        for _ in range(loops):
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(8):
                runner.run("walk", walk)
            torch.cuda.synchronize()
            seconds.append((time.perf_counter() - started) / 8)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            runner.run("walk", walk)
            torch.cuda.synchronize()
        kernels_s = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
        return seconds, kernels_s


def free() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def streamer_for(model: Any, fill: Any, budget_nbytes: int, device: torch.device) -> tuple[BlockStreamer, Any]:
    blocks = list(model.transformer_blocks)
    plan = plan_residency([layout_of(block_tensors(block)).nbytes for block in blocks], budget_nbytes)
    ring = SlotRing(plan.slots, plan.slot_nbytes, device, CudaCopyEngine(device, SLOTS)) if plan.streamed else None
    return BlockStreamer(blocks, fill, plan, ring, cuda_memory(device), device), ring


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda")
    support = probe_fp8(device)
    bf16 = PUBLISHED_BF16_BLOCKS if arguments.published else ()
    model = build_transformer(support.path, bf16)
    materialize_rest(model, device)
    fill = random_fill(device)
    compiled: CallBlock = torch.compile(call_block, fullgraph=True, dynamic=False)
    block_nbytes = layout_of(block_tensors(model.transformer_blocks[len(model.transformer_blocks) // 2])).nbytes
    result: dict[str, Any] = {
        "machine": machine(device),
        "fp8": f"{support.path.value}: {support.reason}",
        "bf16_blocks": list(bf16),
        "copy_gb_s": round(copy_bandwidth(device, block_nbytes), 1),
        "sizes": {},
        "budgets": [],
    }
    started = time.perf_counter()
    streamer, _ = streamer_for(model, fill, 1 << 62, device)
    result["fill_all_resident_s"] = round(time.perf_counter() - started, 1)
    references = {}
    for name in arguments.sizes:
        work = Work(model, SIZES[name], device)
        eager, references[name] = work.timings(streamer, EagerRunner(), call_block, 1)
        started = time.perf_counter()
        compile_steps, _ = work.timings(streamer, EagerRunner(), compiled, 2)
        compile_s = time.perf_counter() - started
        floor, kernels_s = work.floor(arguments.loops, compiled)
        result["sizes"][name] = {
            "video_tokens": work.geometry.video_tokens,
            "audio_tokens": work.geometry.audio_tokens,
            "floor": summary(floor),
            "kernel_s": round(kernels_s, 5),
            "resident_eager": summary(eager),
            "resident_compiled": summary(compile_steps),
            "compile_s": round(compile_s, 1),
        }
        print(name, result["sizes"][name], flush=True)
    streamer.close()
    total = torch.cuda.get_device_properties(device).total_memory
    for budget in arguments.budgets:
        free()
        torch.cuda.set_per_process_memory_fraction(budget * GIB / total)
        budget_nbytes = int((budget - arguments.headroom) * GIB) - torch.cuda.memory_reserved()
        streamer, ring = streamer_for(model, fill, budget_nbytes, device)
        for name in arguments.sizes:
            rows = budget_rows(streamer, model, budget, name, arguments, result, references[name], compiled)
            result["budgets"].extend(rows)
            for row in rows:
                print(row, flush=True)
        streamer.close()
        if ring is not None:
            ring.close()
    torch.cuda.set_per_process_memory_fraction(1.0)
    return result


def run_peer(arguments: argparse.Namespace) -> dict[str, Any]:
    device, name = torch.device("cuda"), arguments.sizes[0]
    bf16 = PUBLISHED_BF16_BLOCKS if arguments.published else ()
    geometry = Work(None, SIZES[name], device).geometry
    seconds = group_offloading_steps(probe_fp8(device).path, bf16, geometry, device, 3)
    return {"machine": machine(device), "size": name, "seconds": seconds, **summary(seconds)}


def budget_rows(
    streamer: BlockStreamer,
    model: Any,
    budget: float,
    name: str,
    arguments: argparse.Namespace,
    result: dict[str, Any],
    reference: list[Tensor],
    compiled: CallBlock,
) -> list[dict[str, Any]]:
    """Every mode at one budget and size, with its ratio to max(compute floor, copy floor)."""
    device = torch.device("cuda")
    free()
    plan = streamer.plan
    copy_floor = plan.streamed_nbytes / (result["copy_gb_s"] * 1e9)
    limit = max(result["sizes"][name]["floor"]["median_s"], copy_floor)
    rows = []
    modes: dict[str, tuple[BlockRunner, CallBlock]] = {
        "eager": (EagerRunner(), call_block),
        "compile": (EagerRunner(), compiled),
        "eager graphs": (GraphRunner(device), call_block),
        "graphs": (GraphRunner(device), compiled),
    }
    first = budget == arguments.budgets[0] and name == arguments.sizes[0]
    for mode in arguments.modes if first else arguments.modes[-1:]:
        runner, call = modes[mode]
        torch.cuda.reset_peak_memory_stats()
        work = Work(model, SIZES[name], device)
        loops = 1 if mode == "eager" else arguments.loops
        seconds, latents = work.timings(streamer, runner, call, loops)
        errors = [
            float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(latents, reference, strict=True)
        ]
        rows.append(
            {
                "budget_gib": budget,
                "size": name,
                "mode": mode,
                "streamed": len(plan.streamed),
                "resident": len(plan.resident),
                **summary(seconds),
                "copy_floor_s": round(copy_floor, 5),
                "ratio_to_limit": round(summary(seconds)["median_s"] / limit, 4),
                "peak_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
                "error_to_resident_eager": [f"{error:.2e}" for error in errors],
            }
        )
        runner.forget()
        free()
    if arguments.two_pass and budget == arguments.budgets[0]:
        seconds, _ = Work(model, SIZES[name], device).timings(
            streamer, GraphRunner(device), compiled, arguments.loops, passes=2
        )
        rows.append({"budget_gib": budget, "size": name, "mode": "graphs, two passes", **summary(seconds)})
    return rows


def floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=floats, default=[24.0, 16.0, 12.0, 8.0], help="GiB, comma-separated")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=list(SIZES))
    parser.add_argument("--loops", type=int, default=10, help="8-step loops per measurement")
    parser.add_argument("--published", action="store_true", help="keep four blocks in bfloat16")
    parser.add_argument(
        "--modes",
        type=lambda text: text.split(","),
        default=["eager", "compile", "graphs"],
        help="all at the first budget and size, the last one everywhere",
    )
    parser.add_argument("--two-pass", action="store_true", help="also a step of two passes")
    parser.add_argument("--peer", action="store_true", help="also diffusers' group offloading")
    parser.add_argument("--only-peer", action="store_true", help="nothing but diffusers' group offloading")
    parser.add_argument("--headroom", type=float, default=3.0, help="GiB for activations")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or RESULTS
    suffix = "_published" if arguments.published else ""
    if not arguments.only_peer:
        print(write_json(f"weights{suffix}", run(arguments), out))
        free()
    if arguments.peer or arguments.only_peer:
        print(write_json(f"group_offloading{suffix}", run_peer(arguments), out))


if __name__ == "__main__":
    main()
