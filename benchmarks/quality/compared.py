"""Two ways to run the model, over the same prompts: their figures side by side and the differences in points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.quality.figures import Bar, Figure, Row
from benchmarks.quality.judge import Marks
from benchmarks.quality.totals import prompt_figures

Named = tuple[str, Sequence[Marks]]


def compared_row(name: str, first: Named, second: Named, bar: Bar | None, notes: tuple[str, ...] = ()) -> Row:
    """A figure for each prompt figure: how many points (per cent) the first is above the second. `bar` is about
    the difference's size."""
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
    return Row(name, tuple(figures), details, (f"{first_name} to {second_name}", *notes))
