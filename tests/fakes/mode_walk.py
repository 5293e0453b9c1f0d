"""A walk of one loaded pipeline through modes, sizes and sets of LoRAs, held against pipelines that only ever had
one set each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from scope_ltx.config import LTX2Config
from scope_ltx.inputs import ChunkInputs, DrivingSound, PinnedImage, Tail
from scope_ltx.lora.file import linear_shapes
from scope_ltx.mode_parameters import LoraChoice
from scope_ltx.pipeline import Pipeline
from scope_ltx.request import Chunk, ChunkRequest
from scope_ltx.sampling.geometry import SAMPLE_RATE, ChunkGeometry
from scope_ltx.sound_in.lengths import model_samples_for
from scope_streaming.media.timeline import exact_frame_rate, segment_samples
from tests.fakes.loras import draw_factors, layers_of, write_lora

CHUNKS = 50
MODES = ("text", "pin", "tail", "reference", "driving", "voice", "two stages")
SETS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "none": (),
    "one": (("picture", 0.7),),
    "both": (("picture", 0.7), ("everything", -0.4)),
}
SIZES = ((64, 64), (64, 128))

Step = tuple[str, str, tuple[int, int]]
STEP = st.tuples(st.sampled_from(MODES), st.sampled_from(sorted(SETS)), st.sampled_from(SIZES))


def write_sets(directory: Path, pipeline: Pipeline) -> dict[str, Path]:
    """The two LoRAs of `SETS`, which overlap: one inside the blocks, one in every linear layer but the text's."""
    parts = pipeline._components
    shapes = linear_shapes(parts.transformer, parts.connectors)
    kinds = {"picture": layers_of("standard", shapes), "everything": layers_of("audio_video", shapes)}
    return {
        name: write_lora(directory / f"{name}.safetensors", draw_factors(shapes, layers, seed=at, gain=0.05))
        for at, (name, layers) in enumerate(kinds.items())
    }


def request_of(step: Step, files: Mapping[str, Path]) -> ChunkRequest:
    mode, chosen, (height, width) = step
    loras = [
        # In the second of two stages only the later ones, and weaker.
        LoraChoice(path=str(files[name]), strength=strength, stage_two_strength=at * strength / 2)
        for at, (name, strength) in enumerate(SETS[chosen])
    ]
    if mode == "reference":
        loras.append(LoraChoice(path="union-control", strength=1.0))
    sound: dict[str, Any] = {}
    if mode in ("driving", "voice"):
        # Its content is in the inputs; the name says only that there is one.
        sound = {"audio_input": "given.wav", "audio_mode": "driving" if mode == "driving" else "id_lora"}
    config = LTX2Config(
        height=height,
        width=width,
        num_frames=9,
        num_steps=4,
        loras=tuple(loras),
        two_stage=mode == "two stages",
        **sound,
    )
    return ChunkRequest(config, "a red ball on a blue ground", 7, inputs_of(mode, config))


def inputs_of(mode: str, config: LTX2Config) -> ChunkInputs:
    numbers = np.random.default_rng(MODES.index(mode))
    size = (config.height, config.width, 3)

    def pixels(*shape: int) -> np.ndarray[Any, Any]:
        return numbers.integers(0, 256, shape, dtype=np.uint8)

    def sound(count: int) -> np.ndarray[Any, Any]:
        return numbers.uniform(-0.5, 0.5, (2, count)).astype(np.float32)

    shown = segment_samples(config.num_frames, exact_frame_rate(config.frame_rate), SAMPLE_RATE)
    given = {
        "pin": lambda: ChunkInputs(pins=(PinnedImage(pixels(*size), 8, 0.8),)),
        "tail": lambda: ChunkInputs(tail=Tail(pixels(1, *size), sound(SAMPLE_RATE // 24))),
        "reference": lambda: ChunkInputs(reference=pixels(config.num_frames, *size)),
        "driving": lambda: ChunkInputs(
            driving=DrivingSound(sound(shown), sound(model_samples_for(ChunkGeometry.of(config).audio_tokens)))
        ),
        "voice": lambda: ChunkInputs(voice=sound(16_000)),
    }
    return given[mode]() if mode in given else ChunkInputs()


def digest(chunk: Chunk) -> str:
    return hashlib.sha256(chunk.frames.tobytes() + chunk.samples.tobytes()).hexdigest()


@dataclass
class Alone:
    """What a step gives in a pipeline that never had another set of LoRAs."""

    load: Callable[[], Pipeline]
    files: Mapping[str, Path]
    loaded: dict[str, Pipeline] = field(default_factory=dict)
    known: dict[Step, str] = field(default_factory=dict)

    def __call__(self, step: Step) -> str:
        if step not in self.known:
            mode, chosen, _ = step
            # A mode with a LoRA of its own, or with other ones in a second stage, is a set of its own.
            key = f"{chosen} {mode if mode in ('reference', 'voice', 'two stages') else ''}"
            if key not in self.loaded:
                self.loaded[key] = self.load()
            self.known[step] = digest(self.loaded[key].generate(request_of(step, self.files)))
        return self.known[step]

    def close(self) -> None:
        for pipeline in self.loaded.values():
            pipeline.close()


def walk(
    pipeline: Pipeline, alone: Alone, steps: Sequence[Step], after_each: Callable[[Step], None] = lambda _: None
) -> None:
    """Every chunk is bit for bit the one that its step gives alone: nothing of an earlier set is left."""
    for step in steps:
        assert digest(pipeline.generate(request_of(step, alone.files))) == alone(step), step
        after_each(step)
