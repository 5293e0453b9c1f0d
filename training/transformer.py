"""Trains the connectors and the joint transformer by flow matching.

    python -m training.transformer --seconds 720

Needs training/out/video_vae.safetensors and audio_vae.safetensors. Leaves training/out/transformer.safetensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scope_ltx.conditioning.reference import VideoReference, reference_coords
from scope_ltx.conditioning.sound import voice_coords
from scope_ltx.config import LTX2Config
from scope_ltx.models.small.published import is_fp8_in_transformer
from scope_ltx.models.small.sizes import build_connectors, build_transformer
from scope_ltx.sampling.geometry import ChunkGeometry
from training.bank import SIZES, Bank
from training.clips import VOICE_TOKENS, audio_used_by
from training.conditions import Conditioner, noised, weighted_error
from training.graphs import GraphedStep
from training.initial import initialise
from training.joint import JointModel, Places
from training.masters import Masters
from training.stage import Stage, stage_arguments, stage_of
from training.text import CaptionEncoder

AUDIO_WEIGHT = 0.7
WARM_UP, DECAY_FROM = 300, 0.4
_BANDS = (0.6, 0.85, 0.97)
_MEAN_OF_LOG = 0.98


def build_model(seed: int, device: torch.device, *, compiled: bool, audio_used: int) -> JointModel:
    """At its start; bfloat16 on a GPU."""
    torch.manual_seed(seed)
    transformer, connectors = build_transformer(), build_connectors()
    initialise(transformer, audio_used)
    model = JointModel(transformer, connectors, compiled=compiled)
    return model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)


def masters_of(model: JointModel, mean_decay: float = 0.999) -> Masters:
    return Masters(dict(model.named_parameters()), muon=_by_muon, fp8=as_fp8, mean_decay=mean_decay)


def _by_muon(name: str, weight: Tensor) -> bool:
    return "transformer_blocks." in name and is_matrix(name, weight)


def is_matrix(name: str, weight: Tensor) -> bool:
    return name.endswith(".weight") and weight.ndim == 2 and "to_gate_logits" not in name


def as_fp8(name: str, weight: Tensor) -> bool:
    return name.startswith("transformer.") and is_fp8_in_transformer(name.removeprefix("transformer."), weight)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    scratch = path.with_suffix(".part")
    save_file({name: value.cpu().contiguous() for name, value in weights.items()}, scratch)
    scratch.replace(path)


def places_of(model: JointModel, config: LTX2Config, *, downscale: int = 0, voice: bool = False) -> Places:
    """downscale: of a guide behind the clip, 0 where there is none. voice: whether a voice is behind the sound."""
    rope, geometry = model.transformer.rope, ChunkGeometry.of(config)
    device = model.device
    rate = float(config.frame_rate)

    def coords(frames: int, height: int, width: int, frame_rate: float) -> Tensor:
        made: Tensor = rope.prepare_video_coords(1, frames, height, width, device, fps=frame_rate)
        return made

    video = coords(*geometry.grid, rate)
    audio = model.transformer.audio_rope.prepare_audio_coords(1, geometry.audio_tokens, device)
    if downscale:
        frames, height, width = geometry.grid
        grid = (frames, height // downscale, width // downscale)
        reference = VideoReference(torch.empty(1, 0, 0), grid, downscale=downscale)
        video = torch.cat([video, reference_coords(coords, reference, rate).to(video)], dim=2)
    if voice:
        before = voice_coords(torch.empty(1, VOICE_TOKENS, 0))
        audio = torch.cat([audio, before.to(audio)], dim=2)
    return model.places(video, audio)


@dataclass(frozen=True)
class Course:
    """What is trained on in one geometry. bank: where the clips come from; several courses may share one."""

    conditioner: Conditioner
    places: Places
    bank: Bank

    def pick_up(self) -> None:
        """Clips that have been made meanwhile."""
        self.bank.pick_up()
        if self.bank.clips is not None:
            self.conditioner.clips = self.bank.clips


class Trainable:
    """The model, its masters, and one graphed step for each geometry."""

    def __init__(
        self, model: JointModel, masters: Masters, courses: Sequence[Course], *, graphed: bool = True
    ) -> None:
        self.model, self.masters, self.courses = model, masters, list(courses)
        self._steps = [
            GraphedStep(lambda inputs, places=course.places: self._step(inputs, places), graphed=graphed)  # type: ignore[misc]
            for course in courses
        ]

    def step(self, which: int, rate: float) -> tuple[Tensor, Tensor]:
        """One update on a batch of a course: (errors (2, B) of picture and sound, sigmas (B,))."""
        conditioner = self.courses[which].conditioner
        self.masters.rate.fill_(rate)
        sigma = conditioner.sigmas()
        return self._steps[which](noised(conditioner.draw(), sigma)), sigma

    def _step(self, inputs: Mapping[str, Tensor], places: Places) -> Tensor:
        self.masters.place()
        contexts = self.model.contexts(inputs["features"], inputs["lengths"])
        velocities = self.model(inputs, places, contexts)
        errors = errors_of(velocities, inputs)
        loss = errors[0].mean() + AUDIO_WEIGHT * errors[1].mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.masters.update()
        return errors.detach()


def errors_of(velocities: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
    """(2, B) of picture and sound against the targets of `noised`."""
    parts = zip(("video", "audio"), velocities, strict=True)
    return torch.stack(
        [weighted_error(velocity, inputs[f"{name}_target"], inputs[f"{name}_weight"]) for name, velocity in parts]
    )


class Bands:
    """Running means of the errors by noise level, kept on the device.

    edges: the highest level of each band but the last, ascending."""

    def __init__(self, device: torch.device, edges: Sequence[float]) -> None:
        self.names = [f"{edge:g}" for edge in edges] + ["1"]
        self._edges = torch.tensor(edges, device=device)
        self._sums = torch.zeros(2, len(self.names), device=device)
        self._counts = torch.zeros(len(self.names), device=device)

    def add(self, errors: Tensor, sigma: Tensor) -> None:
        band = torch.bucketize(sigma, self._edges)
        self._sums.mul_(_MEAN_OF_LOG).index_add_(1, band, errors)
        self._counts.mul_(_MEAN_OF_LOG).index_add_(0, band, torch.ones_like(sigma))

    def figures(self) -> dict[str, float]:
        means = (self._sums / self._counts.clamp(min=1e-6)).tolist()
        return {
            f"{modality}_to_{name}": value
            for modality, row in zip(("video", "audio"), means, strict=True)
            for name, value in zip(self.names, row, strict=True)
        }


def record_and_pick_up(stage: Stage, bands: Bands, courses: Sequence[Course]) -> None:
    """Log errors and clips so far; then the courses take up the clips that have been made meanwhile."""
    clips = {course.bank: len(course.conditioner.clips) for course in courses}
    stage.record({**bands.figures(), "clips": sum(clips.values())})
    for course in courses:
        course.pick_up()


def rate_at(step: int, progress: float, warm_up: int = WARM_UP) -> float:
    """Share of the full rate: warm-up, then a linear decay to a hundredth."""
    left = min(1.0, (1.0 - progress) / (1.0 - DECAY_FROM))
    return min(1.0, (step + 1) / warm_up) * max(0.01, left)


def run(
    stage: Stage,
    trainable: Trainable,
    weights: Path,
    odds: Sequence[float],
    log_every: int,
    warm_up: int = WARM_UP,
    highest_rate: float = 1.0,
) -> None:
    bands = Bands(stage.device, _BANDS)
    while stage.running:
        which = stage.rng.choices(range(len(odds)), odds)[0]
        rate = highest_rate * rate_at(stage.step, stage.progress, warm_up)
        errors, sigma = trainable.step(which, rate)
        bands.add(errors, sigma)
        if stage.step == 0:
            stage.record({"first_step_s": stage.seconds})
        stage.step += 1
        if stage.step % log_every == 0:
            record_and_pick_up(stage, bands, trainable.courses)
            stage.save_now_and_then(trainable.masters.state)
        if stage.step % (10 * log_every) == 0:
            save_weights(weights, trainable.masters.mean())
    stage.save(trainable.masters.state())
    save_weights(weights, trainable.masters.mean())


def wait_for(banks: Sequence[Bank], least: int, timeout_s: float) -> None:
    """Until each has so many clips. Raises TimeoutError."""
    end = time.monotonic() + timeout_s
    for bank in banks:
        while len(bank) < least:
            if not bank.pick_up() and time.monotonic() > end:
                raise TimeoutError(
                    f"{len(bank)} clips after {timeout_s:.0f} s, {least} are needed: is the bank made?"
                )
            time.sleep(0.2)


def main() -> None:
    parser = stage_arguments("Trains the connectors and the transformer by flow matching")
    add_batches(parser)
    parser.add_argument("--start", type=Path, default=None, help="weights to begin with")
    parser.add_argument("--rate", type=float, default=1.0, help="highest share of the rate; below 1 with --start")
    arguments = parser.parse_args()
    stage = stage_of("transformer", arguments)
    weights = arguments.directory / "transformer.safetensors"
    audio_used = audio_used_by(arguments.directory / "audio_vae.safetensors")
    model = build_model(arguments.seed, stage.device, compiled=arguments.compile, audio_used=audio_used)
    masters = masters_of(model)
    empty = CaptionEncoder(stage.device).features([""])
    state = stage.resume()
    if state is not None:
        masters.restore(state)
    elif arguments.start is not None:
        masters.load(load_file(arguments.start))
    courses = base_courses(arguments, stage, model, empty)
    trainable = Trainable(model, masters, courses, graphed=arguments.graph)
    stage.start_clock()
    run(
        stage,
        trainable,
        weights,
        (1.0 - arguments.full_share, arguments.full_share),
        arguments.log_every,
        highest_rate=arguments.rate,
    )
    stage.plot(
        tuple(f"{name}_to_{edge}" for name in ("video", "audio") for edge in ("0.6", "0.85", "0.97", "1"))[:6]
    )


def add_batches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bank", type=Path, default=Path("training/out/bank"))
    parser.add_argument("--small-batch", type=int, default=32)
    parser.add_argument("--full-batch", type=int, default=12)
    parser.add_argument("--full-share", type=float, default=0.55, help="of the steps")
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--least-clips", type=int, default=256, help="of each size, to begin with")


def base_courses(
    arguments: argparse.Namespace, stage: Stage, model: JointModel, empty: tuple[Tensor, Tensor]
) -> list[Course]:
    """The base model's clips, as far as they have been made. Waits for the first."""
    banks = {size: Bank(arguments.bank, "base", size, stage.device) for size in SIZES}
    wait_for(list(banks.values()), arguments.least_clips, 300.0)
    batches = {"small": arguments.small_batch, "full": arguments.full_batch}
    courses = []
    for size, bank in banks.items():
        assert bank.clips is not None
        stage.record({"clips": len(bank), "after_s": stage.seconds})
        conditioner = Conditioner(bank.clips, batches[size], empty, stage.generator)
        courses.append(Course(conditioner, places_of(model, SIZES[size]), bank))
    return courses


if __name__ == "__main__":
    main()
