"""Row `continuity`: what happens between two chunks of a stream, cut against extend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from benchmarks.quality.bench import Bench
from benchmarks.quality.borders import BorderMarks, judge_border
from benchmarks.quality.cases import Case, held_cases
from benchmarks.quality.figures import Bar, Figure, Row, mean_figure
from benchmarks.quality.maker import Clip
from training.world.scene import Scene

_ENDLESS = {"bounces steadily", "circles around", "blinks slowly", "stays still", "slides right", "slides left"}
"""Growing ends and a climb leaves the frame within two chunks: what comes after that is no matter of borders."""
_LESS = Bar(most=0.5)
"""Of what a cut has."""


def make_row(bench: Bench) -> Row:
    cases = held_cases("continuity", bench.modes, wanted=_goes_on, moving_camera=0.0)
    marks = {
        mode: list(bench.judging.each(judged_border, _made(bench, cases, mode))) for mode in ("cut", "extend")
    }
    steps = {mode: _relative_step(found) for mode, found in marks.items()}
    figures: list[Figure] = []
    for mode, found in marks.items():
        figures += [
            Figure(f"{mode}: step of the picture over usual", steps[mode], len(cases), "borders", "ratio"),
            _mean(f"{mode}: leap of the object", [one.leap for one in found], "frames"),
            _mean(f"{mode}: motion across the border", [float(one.motion) for one in found], "share"),
            _mean(f"{mode}: crack in the sound over usual", [one.crack for one in found], "ratio"),
            _mean(f"{mode}: step of the tone", [one.pitch_hz for one in found], "Hz"),
        ]
    less = steps["extend"] / steps["cut"]
    figures.append(Figure("extend's step of the picture over cut's", less, len(cases), "borders", "ratio", _LESS))
    details = {mode: [asdict(one) for one in found] for mode, found in marks.items()}
    return Row("continuity", tuple(figures), details)


def judged_border(made: tuple[Scene, Clip, Clip, float]) -> BorderMarks:
    """`judge_border`, as one argument for another process."""
    return judge_border(*made)


def _made(bench: Bench, cases: list[Case], mode: str) -> Iterator[tuple[Scene, Clip, Clip, float]]:
    for case in cases:
        before, after = bench.maker.chunks(case.prompt, case.seed, 2, continuity=mode)
        yield case.scene, before, after, bench.fps


def _goes_on(scene: Scene) -> bool:
    return all(thing.motion in _ENDLESS for thing in scene.objects)


def _relative_step(marks: Sequence[BorderMarks]) -> float:
    """Means first: a still picture's usual difference is next to nothing."""
    return sum(one.step for one in marks) / max(sum(one.usual for one in marks), 1e-9)


def _mean(name: str, values: Sequence[float | None], unit: str) -> Figure:
    return mean_figure(name, values, counted="borders", unit=unit)
