"""Two ways to run the model, over the same prompts: their figures side by side and the differences in points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.quality.figures import Bar, Figure, Row
from benchmarks.quality.judge import Marks
from benchmarks.quality.totals import OBJECT_MARKS, prompt_figures

Named = tuple[str, Sequence[Marks]]


def compared_row(name: str, first: Named, second: Named, bar: Bar | None, notes: tuple[str, ...] = ()) -> Row:
    """A figure for each prompt figure: how many points (per cent) the first is above the second. `bar` is about
    the difference's size. How many objects are right in one of the two alone stands beside it: a difference of a
    point is one object in a hundred, and says little where as many went the other way."""
    (first_name, first_marks), (second_name, second_marks) = first, second
    pairs = list(zip(prompt_figures(first_marks), prompt_figures(second_marks), strict=True))
    figures, details = [], dict[str, Any]()
    for one, other in pairs:
        details[one.name] = {first_name: one.as_json()["value"], second_name: other.as_json()["value"]}
        if one.value is None or other.value is None:
            figures.append(Figure(one.name, None, 0, one.counted))
            continue
        points = 100.0 * (one.value - other.value)
        named = f"{one.name}: {one.value:.3f} to {other.value:.3f}"
        figures.append(Figure(named, points, min(one.of, other.of), one.counted, "points", bar))
    alone = _right_alone(first_marks, second_marks)
    details["right in one alone"] = {
        mark: dict(zip((first_name, second_name), counts, strict=True)) for mark, counts in alone.items()
    }
    counted = ", ".join(f"{mark} {one} and {other}" for mark, (one, other) in alone.items())
    return Row(
        name,
        tuple(figures),
        details,
        (f"{first_name} to {second_name}", f"objects right in one alone: {counted}", *notes),
    )


def _right_alone(first: Sequence[Marks], second: Sequence[Marks]) -> dict[str, tuple[int, int]]:
    """For each mark of an object, how many objects have it in the first run only, and in the second only."""
    pairs = [
        pair
        for one, other in zip(first, second, strict=True)
        for pair in zip(one.objects, other.objects, strict=True)
    ]
    return {
        mark: (
            sum(getattr(one, mark) and not getattr(other, mark) for one, other in pairs),
            sum(getattr(other, mark) and not getattr(one, mark) for one, other in pairs),
        )
        for mark in OBJECT_MARKS
    }
