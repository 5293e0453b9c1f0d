"""The default request on the small model: seconds by stage, and how much faster than real time.

    python -m benchmarks.small [--runs 5] [--device cpu] [--threads 2] [--model DIR]

The first chunk warms up and is not counted. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import machine, summary
from scope_ltx.config import LTX2Config
from scope_ltx.freed_memory import own_memory
from scope_ltx.models.small import ensure_small_model
from scope_ltx.pipeline import load_pipeline
from scope_ltx.request import ChunkRequest, ChunkStats

PROMPT = "a red ball on a blue background"


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    own_memory(arguments.device)  # as `scope-ltx serve` and `generate` do
    if arguments.model is not None:
        result = measure(arguments.model, arguments.device, arguments.runs)
    else:
        with tempfile.TemporaryDirectory() as cache:
            result = measure(ensure_small_model(Path(cache)), arguments.device, arguments.runs)
    for stage in ("denoise", "decode", "total"):
        print(f"{stage:8} {result[stage]['median_s']:7.3f} s (p95 {result[stage]['p95_s']:.3f} s)")
    print(f"a new prompt's text costs {result['text_s']:.3f} s more")
    print(f"{result['media_s']} s of media at {result['size']}: {result['real_time_factor']} x real time")
    print(json.dumps(result))


def measure(model: Path, device: str, runs: int) -> dict[str, Any]:
    """Generate `runs` chunks of the default request after one that warms up."""
    pipeline = load_pipeline(model, device)
    config = LTX2Config()

    def chunk(seed: int) -> ChunkStats:
        return pipeline.generate(ChunkRequest(config, PROMPT, seed)).stats

    first = chunk(0)
    measured = [chunk(seed) for seed in range(1, runs + 1)]
    media_s = config.num_frames / config.frame_rate
    total = summary([stats.total_s for stats in measured])
    return {
        "benchmark": "small",
        "size": f"{config.height}x{config.width}x{config.num_frames}",
        "steps": first.steps,
        "media_s": media_s,
        "text_s": round(first.text_s, 5),
        "denoise": summary([stats.denoise_s for stats in measured]),
        "decode": summary([stats.decode_s for stats in measured]),
        "total": total,
        "real_time_factor": round(media_s / total["median_s"], 2),
        **machine(torch.device(device)),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Real-time factor of the small model at the default request")
    parser.add_argument("--runs", type=int, default=5, help="chunks to time")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:N]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--model", type=Path, default=None, help="a model directory instead of the small model")
    return parser.parse_args()


if __name__ == "__main__":
    main()
