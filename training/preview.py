"""What a model directory draws for prompts that it was never trained on: a few figures and a contact sheet.

    python -m training.preview --model scope_ltx/models/small/weights --count 32

A quick look beside training, no evaluation.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from scope_ltx.config import LTX2Config
from scope_ltx.engine import EngineOptions
from scope_ltx.pipeline import load_pipeline
from scope_ltx.request import ChunkRequest
from training.bank import SIZES, SizeName
from training.clips import FPS
from training.world.detect import listen, look, matched, pitch_follows, seen_events
from training.world.grammar import caption
from training.world.scene import Scene, sample_scene

Frames = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]

_COLUMNS = 6
_WIDTH = 120
_WITHIN_S = 2.0 / FPS


@dataclass(frozen=True)
class Made:
    scene: Scene
    frames: Frames
    samples: Samples


def judge(made: Made) -> dict[str, float]:
    """1 for what is as asked, 0 for what is not, and the correlation of pitch and height."""
    scene, wanted = made.scene, made.scene.objects
    seen = look(made.frames, FPS, len(wanted))
    found = list(seen.objects)
    marks: dict[str, float] = {
        "background": seen.background == scene.background,
        "camera": seen.camera == scene.camera,
        "colour": {one.colour for one in found} == {one.colour for one in wanted},
    }
    if len(wanted) == 2:
        marks["order"] = [one.colour for one in found] == [one.colour for one in wanted]
    by_colour = {one.colour: one for one in found}
    pairs = [(by_colour.get(one.colour), one) for one in wanted]
    marks["shape"] = float(np.mean([got is not None and got.shape == one.shape for got, one in pairs]))
    marks["motion"] = float(np.mean([got is not None and got.motion == one.motion for got, one in pairs]))
    marks["style"] = float(np.mean([got is not None and got.style == scene.style for got, _ in pairs]))
    heard = listen(made.samples)
    marks["speaker"] = heard.speaker == scene.speaker
    first = pairs[0][0]
    if first is not None:
        events = seen_events(first, FPS)
        if events:
            marks["onsets"] = matched(heard.onsets, events, _WITHIN_S) / len(events)
        follows = pitch_follows(heard, first, FPS)
        if follows is not None:
            marks["pitch"] = follows
    return {name: float(value) for name, value in marks.items()}


def contact_sheet(clips: Sequence[Frames]) -> Image.Image:
    """A row of frames for each clip."""
    rows = []
    for frames in clips:
        picked = frames[np.linspace(0, len(frames) - 1, _COLUMNS).astype(int)]
        height = round(_WIDTH * frames.shape[1] / frames.shape[2])
        rows.append(np.hstack([np.asarray(Image.fromarray(one).resize((_WIDTH, height))) for one in picked]))
    return Image.fromarray(np.vstack(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="Generates held-out prompts and judges them")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--sheet", type=Path, default=None)
    parser.add_argument("--processes", type=int, default=8)
    arguments = parser.parse_args()
    size: SizeName = arguments.size
    config = LTX2Config(height=SIZES[size].height, width=SIZES[size].width, num_frames=SIZES[size].num_frames)
    rng = random.Random("preview")
    pipeline = load_pipeline(arguments.model, arguments.device, EngineOptions(acceleration="off"))
    clips = []
    for seed in range(arguments.count):
        scene = sample_scene(rng, split="held")
        chunk = pipeline.generate(ChunkRequest(config, caption(scene, rng), seed))
        clips.append(Made(scene, chunk.frames, chunk.samples))
    totals: dict[str, list[float]] = defaultdict(list)
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        for marks in pool.map(judge, clips):
            for name, value in marks.items():
                totals[name].append(value)
    figures = {name: f"{np.mean(values):.3f} of {len(values)}" for name, values in totals.items()}
    print(json.dumps(figures), flush=True)  # noqa: T201 - the result of a command
    if arguments.sheet is not None:
        contact_sheet([one.frames for one in clips[:16]]).save(arguments.sheet)


if __name__ == "__main__":
    main()
