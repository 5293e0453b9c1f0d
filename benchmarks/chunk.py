"""A whole chunk of the full-size model: text, denoising, decoding; the first frame; changes of the prompt.

    python -m benchmarks.chunk --budget 24 [--chunks 12] [--acceleration auto] [--out DIRECTORY]

Needs one NVIDIA GPU and diffusers; no model files, no network. The budget is enforced on the allocator.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_model import build_components
from benchmarks.full_size import PUBLISHED_BF16_BLOCKS
from benchmarks.report import RESULTS, machine, summary, write_json
from scope_ltx.config import LTX2Config
from scope_ltx.engine import GIB, EngineOptions
from scope_ltx.pipeline import Pipeline
from scope_ltx.request import ChunkRequest, ChunkStats
from scope_streaming.clock import SystemClock

PROMPT = "A red ball bounces along a beach at dusk while waves roll in, the sound of surf and laughter. Take {}."


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda")
    config = LTX2Config(height=arguments.height, width=arguments.width, num_frames=arguments.frames)
    media_s = config.num_frames / config.frame_rate
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(arguments.budget * GIB / total)
    started = time.perf_counter()
    bf16 = PUBLISHED_BF16_BLOCKS if arguments.published else ()
    engine = EngineOptions(arguments.budget, acceleration=arguments.acceleration)
    pipeline = Pipeline(build_components(device, engine, bf16), SystemClock())
    placed_s = time.perf_counter() - started
    print(pipeline.placement, f"({placed_s:.1f} s)", flush=True)

    def chunk(number: int, prompt: str) -> ChunkStats:
        started = time.perf_counter()
        stats = pipeline.generate(ChunkRequest(config, prompt, seed=number)).stats
        print(f"{number:3d} {time.perf_counter() - started:.3f} s {stats}", flush=True)
        return stats

    first = chunk(0, PROMPT.format(0))
    eager = chunk(1, PROMPT.format(0))
    waiting, number = time.perf_counter(), 2
    stats = eager
    while "compiled" not in stats.engine and time.perf_counter() - waiting < arguments.wait:
        stats = chunk(number, PROMPT.format(0))
        number += 1
    chunk(number, PROMPT.format(0))
    steady = [chunk(number + 1 + n, PROMPT.format(0)) for n in range(arguments.chunks)]
    changes = [chunk(number + 100 + n, PROMPT.format(number + n)) for n in range(arguments.chunks)]
    seconds = summary([one.total_s for one in steady])
    return {
        "machine": machine(device),
        "budget_gib": arguments.budget,
        "size": f"{config.width}x{config.height}x{config.num_frames}",
        "media_s": media_s,
        "placement": str(pipeline.placement),
        "first_chunk_s": round(first.total_s, 3),
        "eager_chunk_s": round(eager.total_s, 3),
        "compiled_after_s": round(time.perf_counter() - waiting, 1),
        "engine": steady[-1].engine,
        "chunk": seconds,
        "denoise": summary([one.denoise_s for one in steady]),
        "decode": summary([one.decode_s for one in steady]),
        "real_time_factor": round(media_s / seconds["median_s"], 2),
        "prompt_change_text": summary([one.text_s for one in changes]),
        "chunk_with_prompt_change": summary([one.total_s for one in changes]),
        "late_chunks_with_prompt_change": sum(one.total_s > media_s for one in changes),
        "peak_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=24.0, help="GiB")
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--acceleration", default="auto", choices=["auto", "off", "graphs", "compile"])
    parser.add_argument("--published", action="store_true", help="keep four blocks in bfloat16")
    parser.add_argument("--wait", type=float, default=90.0, help="seconds to wait for compiled blocks")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--frames", type=int, default=129)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = run(arguments)
    print(write_json(f"chunk_{arguments.budget:g}gib", result, arguments.out))


if __name__ == "__main__":
    main()
