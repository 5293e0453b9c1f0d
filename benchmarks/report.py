"""What every benchmark shares: medians, the machine's description, and a JSON file of the run."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"

PLACES = ("--out", "--json", "--sheet", "--model", "--bf16-weights")
"""Options that name a place on the machine."""


def summary(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile of a list of timings, rounded to 10 us."""
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"median_s": round(statistics.median(ordered), 5), "p95_s": round(p95, 5), "runs": len(ordered)}


def machine(device: torch.device) -> dict[str, Any]:
    """Device, versions and command line."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "device": gpu.name if gpu else platform.processor() or platform.machine(),
        "device_memory_gib": round(gpu.total_memory / 2**30, 1) if gpu else None,
        "cpu_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
        "command": " ".join(["python -m", _module(Path(sys.argv[0])), *without_out(sys.argv[1:])]),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def without_out(arguments: list[str], places: tuple[str, ...] = PLACES) -> list[str]:
    """The arguments but for those that name a place, which say nothing about what was measured."""
    kept, skipped = [], False
    for argument in arguments:
        if not skipped and argument.split("=")[0] not in places:
            kept.append(argument)
        # `--out DIRECTORY` is two arguments, `--out=DIRECTORY` one.
        skipped = argument in places
    return kept


def _module(script: Path) -> str:
    """What `python -m` was given: a module of this package, or a package of it."""
    return f"benchmarks.{script.parent.name if script.stem == '__main__' else script.stem}"


def write_json(name: str, result: dict[str, Any], directory: Path = RESULTS) -> Path:
    """`directory`/`name`.json; the directory is made when it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
