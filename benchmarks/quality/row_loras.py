"""Rows `style` and `chime`: what a LoRA adds at strengths 0, 0.5 and 1, and that at 0 it adds nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.quality.bench import Bench
from benchmarks.quality.cases import Case, held_cases
from benchmarks.quality.chimes import bells, swellings
from benchmarks.quality.figures import Bar, Figure, Row, difference
from benchmarks.quality.maker import Clip
from training.package import OWN
from training.world.detect import look
from training.world.scene import Scene

STRENGTHS = (0.0, 0.5, 1.0)
_ACTS = Bar(least=0.5)
_EVENTFUL = ("bounces steadily", "blinks slowly")

Counted = tuple[int, int]
"""(how many show what the LoRA adds, of how many)."""
Judge = Callable[[tuple[Scene, Clip, float]], dict[str, Counted]]


def make_style(bench: Bench) -> Row:
    """Objects that are drawn in stripes."""
    cases = held_cases("style", bench.modes, outline=0.0)
    return _row(bench, "style", OWN["striped"], cases, judge_stripes, "objects")


def make_chime(bench: Bench) -> Row:
    """Seconds in which the objects swell, and with a bell, in scenes that have no clicks of their own."""
    cases = held_cases(
        "chime",
        bench.modes,
        wanted=lambda scene: scene.objects[0].motion not in _EVENTFUL,
        moving_camera=0.0,
        # A voice's harmonics lie where the bell's do: what is struck is heard best beside a plain tone.
        speaker=0.0,
    )
    return _row(bench, "chime", OWN["chime"], cases, judge_chime, "seconds")


def judge_stripes(made: tuple[Scene, Clip, float]) -> dict[str, Counted]:
    scene, clip, fps = made
    seen = look(clip.frames, fps, len(scene.objects))
    return {"striped": (sum(one.style == "striped" for one in seen.objects), len(scene.objects))}


def judge_chime(made: tuple[Scene, Clip, float]) -> dict[str, Counted]:
    scene, clip, fps = made
    seconds = len(clip.frames) / fps
    return {
        "swelling": swellings(clip.frames, fps, len(scene.objects)),
        "bell": bells(clip.samples, fps, seconds),
    }


def _row(bench: Bench, name: str, file: str, cases: list[Case], judge: Judge, counted: str) -> Row:
    if not bench.maker.has_lora(file):
        return Row(name, (), notes=(f"not measured: the model directory has no {file}",))
    figures: list[Figure] = []
    unchanged = 0
    at_strength: dict[float, list[dict[str, Counted]]] = {}
    for strength in STRENGTHS:
        same: list[bool] = []
        clips = _clips(bench, cases, file, strength, same)
        at_strength[strength] = list(bench.judging.each(judge, clips))
        unchanged += sum(same)
    for what in at_strength[STRENGTHS[0]][0] if cases else ():
        shares = [_share(f"{what} at {one:g}", what, at_strength[one], counted) for one in STRENGTHS]
        figures += [*shares, difference(f"{what}: what strength 1 adds", shares[-1], shares[0], bar=_ACTS)]
    identical = Figure(
        "same bytes at 0 as without", unchanged / max(1, len(cases)), len(cases), bar=Bar(least=1.0)
    )
    return Row(name, (*figures, identical))


def _clips(
    bench: Bench, cases: list[Case], file: str, strength: float, same: list[bool]
) -> Iterator[tuple[Scene, Clip, float]]:
    """Clips with the LoRA. At strength 0 each is also made without it, and `same` told whether it is the same."""
    for case in cases:
        make = partial(bench.maker.clip, case.prompt, case.seed)
        clip = make(loras=[{"path": file, "strength": strength}])
        if strength == 0.0:
            same.append(same_bytes(clip, make()))
        yield case.scene, clip, bench.fps


def same_bytes(first: Clip, second: Clip) -> bool:
    return np.array_equal(first.frames, second.frames) and np.array_equal(first.samples, second.samples)


def _share(name: str, what: str, found: list[dict[str, Counted]], counted: str) -> Figure:
    right, of = (sum(one[what][place] for one in found) for place in (0, 1))
    return Figure(name, right / of if of else None, of, counted)
