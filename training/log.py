"""Figures of a run as JSON lines, and a plot of them as a plain SVG."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

_WIDTH, _HEIGHT, _MARGIN = 720, 360, 48
_STROKES = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")


class Log:
    """One object a line, appended, so that a resumed run goes on in the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, figures: Mapping[str, float]) -> None:
        line = json.dumps({name: _short(value) for name, value in figures.items()})
        with self.path.open("a") as file:
            file.write(line + "\n")
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def plot(log: Path, target: Path, columns: tuple[str, ...]) -> None:
    """Columns of a log over its steps, each on a logarithmic scale of its own range. Values of 0 or less, and
    lines without the column, are left out."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    last = max((row["step"] for row in rows), default=1) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">steps, 0 to {last}</text>',
    ]
    for index, column in enumerate(columns):
        points = [(row["step"] / last, row[column]) for row in rows if row.get(column, 0) > 0]
        if points:
            parts += _curve(points, column, index)
    target.write_text("\n".join([*parts, "</svg>\n"]))


def _curve(points: list[tuple[float, float]], column: str, index: int) -> list[str]:
    stroke = _STROKES[index % len(_STROKES)]
    lowest, highest = (math.log(bound(value for _, value in points)) for bound in (min, max))
    span = max(highest - lowest, 1e-9)
    path = " ".join(
        f"{_MARGIN + x * (_WIDTH - 2 * _MARGIN):.1f},"
        f"{_HEIGHT - _MARGIN - (math.log(y) - lowest) / span * (_HEIGHT - 2 * _MARGIN):.1f}"
        for x, y in points
    )
    label = f"{column}: {points[0][1]:.3g} to {points[-1][1]:.3g}"
    return [
        f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.5"/>',
        f'<text x="{_WIDTH - _MARGIN}" y="{20 + 16 * index}" text-anchor="end" fill="{stroke}">{label}</text>',
    ]
