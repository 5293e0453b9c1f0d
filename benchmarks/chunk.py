"""A whole chunk of the full-size model: text, denoising, decoding; the first frame; changes of the prompt.

    python -m benchmarks.chunk --budget 24 [--chunks 12] [--acceleration auto] [--out DIRECTORY]

Needs one NVIDIA GPU and diffusers; no model files, no network. The budget is enforced on the allocator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_model import build_components
from benchmarks.full_size import PUBLISHED_BF16_BLOCKS
from benchmarks.play import play
from benchmarks.report import RESULTS, machine, summary, write_json
from scope_ltx.config import LTX2Config
from scope_ltx.engine import GIB, EngineOptions
from scope_ltx.pipeline import Pipeline, hold_to_budget
from scope_ltx.request import ChunkRequest, ChunkStats
from scope_streaming.clock import SystemClock

PROMPT = "A red ball bounces along a beach at dusk while waves roll in, the sound of surf and laughter. Take {}."


class Stream:
    """Chunks one after another as the chunk loop of a slow machine makes them: the next one is begun as soon as
    the device is free, while the last may still be decoded."""

    def __init__(self, pipeline: Pipeline, config: LTX2Config) -> None:
        self._pipeline = pipeline
        self._config = config
        self._number = 0
        self._finished = [time.perf_counter()]
        self.stats: list[ChunkStats] = []

    def run(self, count: int, prompt: Callable[[int], str]) -> list[float]:
        """Seconds from one finished chunk to the next; the first counts from the last of the run before."""
        self._finished[:] = [time.perf_counter()]
        for _ in range(count):
            request = ChunkRequest(self._config, prompt(self._number), seed=self._number)
            chunk = self._pipeline.submit(request)
            chunk.add_done_callback(lambda _: self._finished.append(time.perf_counter()))
            self._number += 1
        self.stats.append(chunk.result().stats)
        while len(self._finished) <= count:
            time.sleep(0.001)  # a future's result is there a moment before its callbacks have run
        print(f"{self._number:3d} {self.stats[-1]}", flush=True)
        return [later - earlier for earlier, later in pairwise(self._finished)]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cuda")
    config = LTX2Config(height=arguments.height, width=arguments.width, num_frames=arguments.frames)
    media_s = config.num_frames / config.frame_rate
    bf16 = PUBLISHED_BF16_BLOCKS if arguments.published else ()
    engine = EngineOptions(arguments.budget, acceleration=arguments.acceleration)
    hold_to_budget(device, engine)
    started = time.perf_counter()
    pipeline = Pipeline(build_components(device, engine, bf16), SystemClock())
    placed_s = time.perf_counter() - started
    print(pipeline.placement, f"({placed_s:.1f} s)", flush=True)

    stream = Stream(pipeline, config)
    waiting = time.perf_counter()
    starting = stream.run(1, lambda _: PROMPT.format(0))
    first, engines = stream.stats[-1], [stream.stats[-1].engine]
    while ("compiled" not in engines[-1] or pipeline.compiling) and time.perf_counter() - waiting < arguments.wait:
        starting += stream.run(1, lambda _: PROMPT.format(0))
        # As a stream would: the next chunk waits until there is room for it. A compiler tunes its kernels on the
        # device, so back to back it takes three times as long.
        time.sleep(max(0.0, media_s - starting[-1]))
        engines.append(stream.stats[-1].engine)
    compiled_s = time.perf_counter() - waiting
    # The first compiled chunk ran its kernels one by one, the next ones captured them: the blocks', the decoders'.
    starting += stream.run(3, lambda _: PROMPT.format(0))
    steady = stream.run(arguments.chunks, lambda _: PROMPT.format(0))[1:]
    last = stream.stats[-1]
    changing = stream.run(arguments.chunks, PROMPT.format)[1:]
    played = play(pipeline, config, arguments.play, PROMPT.format) if arguments.play else None
    texts = [pipeline.generate(ChunkRequest(config, f"Change {n}.", seed=n)).stats for n in range(3)]
    return {
        "machine": machine(device),
        "budget_gib": arguments.budget,
        "size": f"{config.width}x{config.height}x{config.num_frames}",
        "media_s": media_s,
        "placement": str(pipeline.placement),
        "first_chunk": asdict(first),
        "starting_chunks_s": [round(seconds, 3) for seconds in starting],
        "late_starting_chunks": sum(seconds > media_s for seconds in starting[1:]),
        "compiled_after_s": round(compiled_s, 1) if "compiled" in engines[-1] else None,
        "engine": last.engine,
        "decoded_beside_the_next": last.overlapped,
        "chunk": summary(steady),
        "denoise_s": round(last.denoise_s, 4),
        "decode_s": round(last.decode_s, 4),
        "real_time_factor": round(media_s / summary(steady)["median_s"], 2),
        "chunk_with_prompt_change": summary(changing),
        "late_chunks_with_prompt_change": sum(seconds > media_s for seconds in changing),
        "played_with_a_new_prompt_every_chunk": played,
        "prompt_change_text": summary([one.text_s for one in texts]),
        "peak_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=24.0, help="GiB")
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--acceleration", default="auto", choices=["auto", "off", "graphs", "compile"])
    parser.add_argument("--published", action="store_true", help="keep four blocks in bfloat16")
    parser.add_argument("--wait", type=float, default=150.0, help="seconds to wait for compiled blocks")
    parser.add_argument("--play", type=float, default=60.0, help="seconds of a paced stream; 0: none")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--frames", type=int, default=129)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = run(arguments)
    print(write_json(f"chunk_{arguments.budget:g}gib", result, arguments.out))


if __name__ == "__main__":
    main()
