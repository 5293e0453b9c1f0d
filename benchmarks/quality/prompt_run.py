"""Held-out prompts through a maker, judged as they come; one run serves all rows that need it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.quality.cases import Case, held_cases
from benchmarks.quality.judge import Marks, judge_clip
from benchmarks.quality.judging import Judging
from benchmarks.quality.maker import Clip, Maker
from benchmarks.quality.sheet import Strip, shown_cases, strip_of
from training.world.scene import Scene


def prompt_cases(count: int) -> list[Case]:
    return held_cases("prompts", count)


def prompt_marks(
    maker: Maker,
    judging: Judging,
    cases: list[Case],
    look_at: Callable[[int, Case, Clip], None] = lambda *_: None,
    **parameters: Any,
) -> list[Marks]:
    """Marks of every case; `look_at` is given each clip as it is made."""

    def made() -> Iterator[tuple[Scene, Clip, float]]:
        for place, case in enumerate(cases):
            clip = maker.clip(case.prompt, case.seed, **parameters)
            look_at(place, case, clip)
            yield case.scene, clip, maker.fps

    return list(judging.each(judged, made()))


def judged(made: tuple[Scene, Clip, float]) -> Marks:
    """`judge_clip`, as one argument for another process."""
    return judge_clip(*made)


class PublishedRun:
    """The model as it is published, in its 8 steps without guidance: made when it is first asked for."""

    def __init__(self, maker: Maker, judging: Judging, count: int, strips: int) -> None:
        """strips: how many the contact sheet shall have."""
        self._maker, self._judging = maker, judging
        self._wanted = strips
        self._marks: list[Marks] | None = None
        self.cases = prompt_cases(count)
        self.strips: list[Strip] = []

    def marks(self) -> list[Marks]:
        if self._marks is None:
            shown = shown_cases(self.cases, self._wanted)

            def keep(place: int, case: Case, clip: Clip) -> None:
                if place in shown:
                    self.strips.append(strip_of(case.prompt, clip))

            self._marks = prompt_marks(self._maker, self._judging, self.cases, keep)
        return self._marks
