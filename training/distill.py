"""Distils the guided transformer to the 8 published steps without guidance.

    python -m training.distill --seconds 240

The student walks its own way through the 8 levels (`walk`). Wherever it is, the teacher, which is the transformer
as flow matching left it, goes on to the next level in three guided steps, and the student learns to get there in
one. Samples of a batch are at all levels at once, so that every update sees each of them. They count the more, the
further it is from their level to the next (`level_weights`).

Needs training/out/transformer.safetensors. Leaves training/out/distilled.safetensors: same names, and connectors
as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scope_ltx.sampling.schedules import DISTILLED_SIGMAS
from training.conditions import token_shares, weighted_error
from training.graphs import GraphedStep
from training.joint import JointModel, Places
from training.masters import Masters
from training.stage import Stage, stage_arguments, stage_of
from training.text import CaptionEncoder
from training.transformer import (
    AUDIO_WEIGHT,
    Bands,
    Course,
    add_batches,
    as_fp8,
    base_courses,
    build_model,
    record_and_pick_up,
    save_weights,
)
from training.walk import Walk, ends_of, moved_along, velocities_of

GUIDANCE = 2.5
SUBSTEPS = 3
RATE = 0.2
"""Of Adam's: 3e-4."""
WARM_UP, DECAY_FROM = 50, 0.5
SPAN_POWER = 0.5
"""Of the levels' weights. 0: all the same."""

_LEVELS = sorted(DISTILLED_SIGMAS[:-1])


def level_weights(sigma: Tensor, next_sigma: Tensor, power: float) -> Tensor:
    """(B,) -> (B,): how much a sample counts, by the span to its next level; 1 in the mean of the 8 levels.

    An error of the velocity moves a sample by as much as the span is long: .006 at the four upper levels, .42 at
    the last. The upper ones' errors are the largest: with equal weights most of the gradient is theirs."""
    spans = torch.tensor(DISTILLED_SIGMAS).diff().neg().pow(power)
    return (sigma - next_sigma).pow(power) / float(spans.mean())


class Distiller:
    """One update of the student on a batch of a course, as one graph for each."""

    def __init__(
        self,
        student: JointModel,
        teacher: JointModel,
        masters: Masters,
        courses: Sequence[Course],
        empty: tuple[Tensor, Tensor],
        *,
        guidance: float = GUIDANCE,
        span_power: float = SPAN_POWER,
        graphed: bool = True,
    ) -> None:
        self._student, self._teacher, self.masters = student, teacher.requires_grad_(False), masters
        self._empty, self._guidance, self._span_power = empty, guidance, span_power
        self.courses = list(courses)
        self._walks = [Walk(course.conditioner, student.device) for course in courses]
        self._steps = [
            GraphedStep(lambda inputs, places=course.places: self._step(inputs, places), graphed=graphed)  # type: ignore[misc]
            for course in courses
        ]

    def step(self, which: int, rate: float) -> tuple[Tensor, Tensor]:
        """One update: (errors (2, B) of picture and sound, not weighted, levels (B,))."""
        self.masters.rate.fill_(rate)
        walk = self._walks[which]
        now = walk.now()
        errors, video, audio = self._steps[which](now)
        result: Tensor = errors.clone()
        walk.advance(video.clone(), audio.clone())
        return result, now["sigma"]

    def _step(self, inputs: Mapping[str, Tensor], places: Places) -> tuple[Tensor, Tensor, Tensor]:
        self.masters.place()
        with torch.no_grad():
            contexts = self._teacher.contexts(inputs["features"], inputs["lengths"])
            targets = self._targets(inputs, places, contexts)
        velocities = velocities_of(self._student, inputs, places, contexts)
        errors = []
        for name, velocity, target in zip(("video", "audio"), velocities, targets, strict=True):
            # Tokens that are pinned in part follow a rule of their own; they are learnt by flow matching alone.
            whole = (token_shares(dict(inputs), name) == 1.0).float()
            errors.append(weighted_error(velocity, target, whole))
        weights = level_weights(inputs["sigma"], inputs["next_sigma"], self._span_power)
        loss = (weights * (errors[0] + AUDIO_WEIGHT * errors[1])).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.masters.update()
        return torch.stack(errors).detach(), *ends_of(inputs, velocities)

    def _targets(
        self, inputs: Mapping[str, Tensor], places: Places, contexts: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """Mean velocities on the teacher's way to the next level."""
        batch = len(inputs["sigma"])
        none = self._teacher.contexts(*self._empty)
        both = [torch.cat([one, zero.expand_as(one)]) for one, zero in zip(contexts, none, strict=True)]
        at = {"video": inputs["video"], "audio": inputs["audio"]}
        sigma, step = inputs["sigma"], (inputs["next_sigma"] - inputs["sigma"]) / SUBSTEPS
        for _ in range(SUBSTEPS):
            now = {**inputs, **at, "sigma": sigma}
            doubled = {name: torch.cat([now[name], now[name]]) for name in _READ}
            made = velocities_of(self._teacher, doubled, places, (both[0], both[1]))
            for name, velocity in zip(("video", "audio"), made, strict=True):
                with_text, without = velocity[..., : at[name].shape[-1]].float().split(batch)  # type: ignore[no-untyped-call]
                guided = without + self._guidance * (with_text - without)
                at[name] = moved_along(name, inputs, at[name], guided, sigma, sigma + step)
            sigma = sigma + step
        span = (inputs["next_sigma"] - inputs["sigma"])[:, None, None]
        return [(at[name] - inputs[name]) / span for name in ("video", "audio")]


_READ = (
    "video",
    "audio",
    "sigma",
    "driven",
    "video_share_of",
    "audio_share_of",
    "video_shares",
    "audio_shares",
)


def rate_at(step: int, progress: float) -> float:
    left = min(1.0, (1.0 - progress) / (1.0 - DECAY_FROM))
    return RATE * min(1.0, (step + 1) / WARM_UP) * max(0.02, left)


def student_masters(student: nn.Module) -> Masters:
    """The transformer alone is trained: the connectors' contexts are the teacher's."""
    named = {name: one for name, one in student.named_parameters() if name.startswith("transformer.")}
    masters = Masters(named, muon=lambda *_: False, fp8=as_fp8, mean_decay=0.995)
    masters.rounding.fill_(1.0)
    return masters


def load_model(path: Path, seed: int, device: torch.device, *, compiled: bool) -> JointModel:
    """A trained model from a file of `save_weights`."""
    model = build_model(seed, device, compiled=compiled, audio_used=0)
    state: dict[str, Any] = load_file(path)
    model.load_state_dict({name: value.to(model.dtype) for name, value in state.items()})
    return model


def run(stage: Stage, distiller: Distiller, weights: Path, teacher: JointModel, share: float, every: int) -> None:
    connectors = {name: value for name, value in teacher.state_dict().items() if name.startswith("connectors.")}
    bands = Bands(stage.device, _LEVELS[:-1])
    while stage.running:
        which = int(stage.rng.random() < share)
        errors, sigma = distiller.step(which, rate_at(stage.step, stage.progress))
        bands.add(errors, sigma)
        if stage.step == 0:
            stage.record({"first_step_s": stage.seconds})
        stage.step += 1
        if stage.step % every == 0:
            record_and_pick_up(stage, bands, distiller.courses)
            stage.save_now_and_then(distiller.masters.state)
        if stage.step % (5 * every) == 0:
            save_weights(weights, connectors | distiller.masters.mean())
    stage.save(distiller.masters.state())
    save_weights(weights, connectors | distiller.masters.mean())


def main() -> None:
    parser = stage_arguments("Distils the transformer to 8 steps without guidance")
    add_batches(parser)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--span-power", type=float, default=SPAN_POWER, help="0: every level counts the same")
    arguments = parser.parse_args()
    stage = stage_of("distill", arguments)
    start = arguments.directory / "transformer.safetensors"
    teacher, student = (
        load_model(start, arguments.seed, stage.device, compiled=arguments.compile) for _ in range(2)
    )
    masters = student_masters(student)
    state = stage.resume()
    if state is not None:
        masters.restore(state)
    empty = CaptionEncoder(stage.device).features([""])
    courses = base_courses(arguments, stage, student, empty)
    distiller = Distiller(
        student,
        teacher,
        masters,
        courses,
        empty,
        guidance=arguments.guidance,
        span_power=arguments.span_power,
        graphed=arguments.graph,
    )
    stage.start_clock()
    weights = arguments.directory / "distilled.safetensors"
    run(stage, distiller, weights, teacher, arguments.full_share, arguments.log_every)
    stage.plot(tuple(f"{name}_to_{level:g}" for name in ("video", "audio") for level in _LEVELS[:3]))


if __name__ == "__main__":
    main()
