"""Rows `control`, `colorizer`, `cameraman`: how far a reference video steers what is generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.quality.bench import Bench
from benchmarks.quality.cases import Case, held_cases
from benchmarks.quality.figures import Bar, Figure, Row, mean_figure
from benchmarks.quality.files import write_folder, write_video
from benchmarks.quality.judge import judge_clip
from benchmarks.quality.maker import Clip
from benchmarks.quality.pictures import object_share, overlap, path_distance
from benchmarks.quality.truth import guide_frames, true_frames
from scope_ltx.catalog import load_catalog
from training.world.detect import look
from training.world.scene import Scene

MakeReference = Callable[[Bench, Path, Case], dict[str, Any]]
"""Writes the reference of a case; returns the parameters that name it."""


@dataclass(frozen=True)
class GuidedMarks:
    """overlap: shared over joint area of the objects with those of the reference, over all frames. distance: of
    their middles, in frames. colours: objects with the prompt's colour, of how many."""

    overlap: float
    distance: float | None
    colours: tuple[int, int]


def make_control(bench: Bench) -> Row:
    """union-control: outlines as a directory of images, or a video of which the product draws the edges."""
    return _guided(bench, "control", "union-control", _outlines_or_edges)


def make_colorizer(bench: Bench) -> Row:
    return _guided(bench, "colorizer", "colorizer", _grey)


def make_cameraman(bench: Bench) -> Row:
    """The camera's move, which the prompt does not name."""
    missing = _missing(bench, "cameraman", "cameraman")
    if missing is not None:
        return missing
    folder = bench.folder("cameraman")
    cases = held_cases("cameraman", bench.modes, moving_camera=1.0, name_camera=False)

    def made(strength: float) -> Iterator[tuple[Scene, Clip, float]]:
        for case in cases:
            path = folder / f"{case.seed}.mp4"
            if not path.exists():
                write_video(path, guide_frames(case.scene, "camera", bench.size), bench.fps)
            parameters = {"reference_video": str(path), "control_strength": strength}
            loras = [{"path": "cameraman"}]
            yield case.scene, bench.maker.clip(case.prompt, case.seed, loras=loras, **parameters), bench.fps

    right = {strength: list(bench.judging.each(judge_camera, made(strength))) for strength in (0.0, 1.0)}
    moves = {
        name: sum(one for one, case in zip(right[1.0], cases, strict=True) if case.scene.camera == name)
        for name in sorted({case.scene.camera for case in cases})
    }
    return Row(
        "cameraman",
        (
            mean_figure("the reference's move, strength 1", right[1.0]),
            mean_figure("the same at strength 0", right[0.0]),
        ),
        {"right at strength 1": moves},
    )


def judge_camera(made: tuple[Scene, Clip, float]) -> bool:
    scene, clip, fps = made
    return look(clip.frames, fps, len(scene.objects)).camera == scene.camera


def judge_guided(made: tuple[Scene, Tensor, Clip, float]) -> GuidedMarks:
    """(scene, the true clip's `object_share`, clip, frame rate)."""
    scene, wanted, clip, fps = made
    found = object_share(clip.frames, len(scene.objects))
    marks = judge_clip(scene, clip, fps).objects
    colours = sum(one.colour for one in marks), len(marks)
    return GuidedMarks(overlap(found, wanted), path_distance(found, wanted), colours)


def _guided(bench: Bench, name: str, lora: str, reference: MakeReference) -> Row:
    missing = _missing(bench, name, lora)
    if missing is not None:
        return missing
    cases = held_cases(name, bench.modes, outline=0.0, moving_camera=0.0)
    folder = bench.folder(name)

    def made() -> Iterator[tuple[Scene, Tensor, Clip, float]]:
        for case in cases:
            truth = object_share(true_frames(case.scene, bench.size), len(case.scene.objects))
            parameters = {**reference(bench, folder, case), "loras": [{"path": lora}]}
            for strength in bench.strengths:
                clip = bench.maker.clip(case.prompt, case.seed, control_strength=strength, **parameters)
                yield case.scene, truth, clip, bench.fps

    marks = list(bench.judging.each(judge_guided, made()))
    strengths = bench.strengths
    at = {strength: marks[place :: len(strengths)] for place, strength in enumerate(strengths)}
    overlaps = [mean_figure(f"overlap at {one:g}", [mark.overlap for mark in at[one]]) for one in strengths]
    right, of = (sum(mark.colours[place] for mark in at[1.0]) for place in (0, 1))
    return Row(
        name,
        (
            *overlaps,
            _least_rise(overlaps),
            mean_figure("distance of middles at 0", [mark.distance for mark in at[0.0]], unit="frames"),
            mean_figure("distance of middles at 1", [mark.distance for mark in at[1.0]], unit="frames"),
            Figure("colour at 1", right / of if of else None, of, "objects", bar=Bar(least=0.97)),
        ),
        {"overlaps": [[round(mark.overlap, 3) for mark in at[one]] for one in strengths]},
    )


def _least_rise(means: list[Figure]) -> Figure:
    """How much more the next strength gives, where that is least: above 0 if agreement rises all the way."""
    values = [one.value for one in means if one.value is not None]
    rises = [later - earlier for earlier, later in pairwise(values)]
    return Figure("least rise from strength to strength", min(rises), means[0].of, bar=Bar(least=0.0, above=True))


def _missing(bench: Bench, name: str, lora: str) -> Row | None:
    file = load_catalog().find(lora).file
    if bench.maker.has_lora(file):
        return None
    return Row(name, (), notes=(f"not measured: the model directory has no {file}",))


def _outlines_or_edges(bench: Bench, folder: Path, case: Case) -> dict[str, Any]:
    if case.seed % 2:
        path = write_video(folder / f"{case.seed}.mp4", true_frames(case.scene, bench.size), bench.fps)
        return {"reference_video": str(path), "control_group": "canny"}
    drawn = guide_frames(case.scene, "outline", bench.size)
    return {"reference_video": str(write_folder(folder / str(case.seed), drawn)), "control_group": "none"}


def _grey(bench: Bench, folder: Path, case: Case) -> dict[str, Any]:
    path = folder / f"{case.seed}.mp4"
    return {"reference_video": str(write_video(path, guide_frames(case.scene, "grey", bench.size), bench.fps))}
