"""What a row of the evaluation comes to: named figures, the bars they must clear, and the printed table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Unit = str
"""share: 0..1 of what was counted. r: correlation. dB, levels (0..255), Hz, points (of a share, in per cent)."""


@dataclass(frozen=True)
class Bar:
    """What a figure must reach. above: it must be more than `least`, not only as much."""

    least: float | None = None
    most: float | None = None
    above: bool = False

    def holds(self, value: float) -> bool:
        if self.most is not None and value > self.most:
            return False
        return self.least is None or (value > self.least if self.above else value >= self.least)

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None:
            return f"{'>' if self.above else '>='} {self.least:g}"
        return "" if self.most is None else f"<= {self.most:g}"


@dataclass(frozen=True)
class Figure:
    """value: None where there was nothing to measure it on. of: how many `counted` things it is a mean or share
    of."""

    name: str
    value: float | None
    of: int
    counted: str = "clips"
    unit: Unit = "share"
    bar: Bar | None = None

    @property
    def passes(self) -> bool | None:
        """None without a bar, or without a value."""
        return None if self.bar is None or self.value is None else self.bar.holds(self.value)

    def as_json(self) -> dict[str, Any]:
        value = None if self.value is None else round(self.value, 4)
        bar = None if self.bar is None else str(self.bar)
        named = {name: found for name, found in asdict(self).items() if name in ("name", "of", "counted", "unit")}
        return {**named, "value": value, "bar": bar, "passes": self.passes}


@dataclass(frozen=True)
class Row:
    """One row of the evaluation. details: what else belongs into the JSON. notes: sentences for the reader."""

    name: str
    figures: tuple[Figure, ...]
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "figures": [one.as_json() for one in self.figures],
            **({"details": self.details} if self.details else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def mean_figure(name: str, values: Iterable[float | None], **more: Any) -> Figure:
    """The mean of what was measured; None counts as not measured."""
    known = [float(value) for value in values if value is not None]
    return Figure(name, sum(known) / len(known) if known else None, len(known), **more)


def difference(name: str, first: Figure, second: Figure, **more: Any) -> Figure:
    """first - second, None where one of them is."""
    both = first.value is not None and second.value is not None
    value = first.value - second.value if first.value is not None and second.value is not None else None
    return Figure(name, value, min(first.of, second.of) if both else 0, **more)


def table(rows: Sequence[Row]) -> list[str]:
    """Lines for a terminal; a figure that fails its bar is marked."""
    cells = [("row", "figure", "value", "of", "bar", "")]
    for row in rows:
        for index, one in enumerate(row.figures):
            verdict = {True: "pass", False: "FAIL", None: ""}[one.passes]
            name = row.name if index == 0 else ""
            cells.append((name, one.name, _value(one), f"{one.of} {one.counted}", str(one.bar or ""), verdict))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    notes = [f"{row.name}: {note}" for row in rows for note in row.notes]
    return [*lines, *notes]


def _value(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    digits = {"dB": 1, "levels": 2, "Hz": 0, "points": 1}.get(figure.unit, 3)
    suffix = "" if figure.unit in ("share", "r", "ratio") else f" {figure.unit}"
    return f"{figure.value:.{digits}f}{suffix}"
