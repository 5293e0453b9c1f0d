"""Which way of running a step was fastest: options of the log with the fewest milliseconds.

python -m training.fastest OUT/rehearse--compile--graph.log ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

PLAIN = ("--no-compile", "--no-graph")


def milliseconds(log: Path) -> float:
    """Of one step in every geometry, by the last line of a rehearsal; infinite where it has failed."""
    lines = log.read_text().splitlines() if log.is_file() else []
    try:
        figures = json.loads(lines[-1])
    except (IndexError, ValueError):
        return float("inf")
    times = [value for name, value in figures.items() if name.startswith("ms_")]
    return sum(times) if times else float("inf")


def options(logs: Sequence[Path]) -> tuple[str, ...]:
    """As the fastest log's name says them; the plain way where all have failed."""
    best = min(logs, key=milliseconds, default=None)
    if best is None or milliseconds(best) == float("inf"):
        return PLAIN
    return tuple(f"--{name}" for name in best.stem.split("--")[1:])


if __name__ == "__main__":
    sys.stdout.write(" ".join(options([Path(argument) for argument in sys.argv[1:]])) + "\n")
