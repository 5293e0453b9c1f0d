"""Marks of many clips as figures, and where the mistakes lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.quality.figures import Bar, Figure, mean_figure
from benchmarks.quality.judge import Marks, ObjectMarks

BARS = {
    "colour": Bar(least=0.97),
    "motion": Bar(least=0.95),
    "shape": Bar(least=0.90),
    "order of two": Bar(least=0.90),
    "onsets at events": Bar(least=0.80),
    "pitch follows height": Bar(least=0.8),
}
OBJECT_MARKS = ("colour", "shape", "motion", "style")


def prompt_figures(marks: Sequence[Marks]) -> tuple[Figure, ...]:
    """The same figures for any list of clips."""
    objects = [one for clip in marks for one in clip.objects]
    moving = [clip.camera for clip in marks if clip.asked_camera != "static"]
    voiced = [clip.speaker for clip in marks if clip.asked_speaker is not None]
    events, onsets = sum(clip.events for clip in marks), sum(clip.onsets for clip in marks)
    found = [
        *(mean_figure(name, [getattr(one, name) for one in objects], counted="objects") for name in OBJECT_MARKS),
        mean_figure("background", [clip.background for clip in marks]),
        mean_figure("camera", [clip.camera for clip in marks]),
        mean_figure("camera, where it moves", moving),
        mean_figure("order of two", [clip.order for clip in marks]),
        mean_figure("speaker", [clip.speaker for clip in marks]),
        mean_figure("speaker, where one is named", voiced),
        _share("onsets at events", sum(clip.heard for clip in marks), events, "events"),
        _share("onsets explained by events", sum(clip.explained for clip in marks), onsets, "onsets"),
        mean_figure("pitch follows height", [clip.pitch for clip in marks], unit="r"),
    ]
    return tuple(Figure(one.name, one.value, one.of, one.counted, one.unit, BARS.get(one.name)) for one in found)


def breakdown(marks: Sequence[Marks]) -> dict[str, Any]:
    """Shares right by what was asked: {by what: {of it: {count, colour, shape, motion, style}}}."""
    groups: dict[str, Callable[[Marks, ObjectMarks], str]] = {
        "motion": lambda _, one: one.asked.motion,
        "shape": lambda _, one: one.asked.shape,
        "size": lambda _, one: one.asked.size,
        "colour": lambda _, one: one.asked.colour,
        "style": lambda clip, _: clip.asked_style,
        "objects": lambda clip, _: str(len(clip.objects)),
        "pair": lambda _, one: f"{one.asked.colour} {one.asked.shape}",
    }
    return {name: _grouped(marks, key) for name, key in groups.items()}


def _grouped(marks: Sequence[Marks], key: Callable[[Marks, ObjectMarks], str]) -> dict[str, Any]:
    found: dict[str, list[ObjectMarks]] = defaultdict(list)
    for clip in marks:
        for one in clip.objects:
            found[key(clip, one)].append(one)
    return {
        name: {
            "objects": len(group),
            **{mark: round(sum(getattr(one, mark) for one in group) / len(group), 3) for mark in OBJECT_MARKS},
        }
        for name, group in sorted(found.items())
    }


def _share(name: str, right: int, of: int, counted: str) -> Figure:
    return Figure(name, right / of if of else None, of, counted)
