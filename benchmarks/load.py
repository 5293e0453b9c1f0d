"""Files to the first frame: seconds, and how much host memory the loading takes.

    python -m benchmarks.load --model DIR [--write] [--budget 24] [--out DIRECTORY]

`--write` fills DIR with a full-size model of random values first (42 GB). Every file is read once before anything
is timed, so that it lies in the page cache. Run it on a machine with one NVIDIA GPU; the CPU will do for a small
model.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from benchmarks.full_files import write_full_model
from benchmarks.report import RESULTS, machine, write_json
from scope_ltx.config import LTX2Config
from scope_ltx.engine import GIB, EngineOptions
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.components import load_components
from scope_ltx.pipeline import Pipeline, hold_to_budget, resolve_device
from scope_ltx.request import ChunkRequest
from scope_streaming.clock import SystemClock

CHUNK_NBYTES = 16 * 2**20


class PeakMemory:
    """The most anonymous host memory of this process meanwhile: what is mapped from files costs nothing."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            self.nbytes = max(self.nbytes, anonymous_nbytes())


def anonymous_nbytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon: this benchmark needs Linux")


def read_once(paths: list[Path]) -> int:
    """Into the page cache; returns how many bytes."""
    total = 0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_NBYTES):
                total += len(chunk)
    return total


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    device = resolve_device(arguments.device)
    if device.type == "cuda":
        torch.zeros(1, device=device)  # the driver's own start, which every program pays, is not loading
    paths = ModelFiles.in_directory(arguments.model)
    files = [paths.transformer, paths.text_projection, paths.text_encoder, paths.video_vae, paths.audio_vae]
    nbytes = read_once(files)
    engine = EngineOptions(arguments.budget)
    config = LTX2Config(height=arguments.height, width=arguments.width, num_frames=arguments.frames)
    before = anonymous_nbytes()
    with PeakMemory() as peak:
        started = time.perf_counter()
        hold_to_budget(device, engine)
        components = load_components(paths, device, engine)
        opened = time.perf_counter()
        pipeline = Pipeline(components, SystemClock(), config)
        loaded = time.perf_counter()
    stats = pipeline.generate(ChunkRequest(config, "A red ball bounces along a beach.", seed=1)).stats
    first = time.perf_counter()
    return {
        "machine": machine(device),
        "budget_gib": arguments.budget,
        "files_gb": round(nbytes / 1e9, 2),
        "placement": str(pipeline.placement),
        "all_but_blocks_s": round(opened - started, 2),
        "blocks_s": round(loaded - opened, 2),
        "first_frame_s": round(first - started, 2),
        "first_chunk": {"text_s": stats.text_s, "denoise_s": stats.denoise_s, "decode_s": stats.decode_s},
        "host_peak_gib": round((peak.nbytes - before) / GIB, 2),
        "host_peak_to_files": round((peak.nbytes - before) / nbytes, 3),
        "pinned_gib": round(pipeline.placement.pinned_nbytes / GIB, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a model directory")
    parser.add_argument("--write", action="store_true", help="write a full-size random model there first")
    parser.add_argument("--layers", type=int, default=48, help="with --write: fewer for a quick check")
    parser.add_argument("--budget", type=float, default=None, help="GiB of device memory")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--frames", type=int, default=129)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.write:
        write_full_model(arguments.model, arguments.layers)
    result = run(arguments)
    print({key: value for key, value in result.items() if key != "machine"})
    print(write_json(f"load_{arguments.budget:g}gib" if arguments.budget else "load", result, arguments.out))


if __name__ == "__main__":
    main()
