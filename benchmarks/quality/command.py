"""The command line of the evaluation, checked before anything slow is done."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.report import RESULTS
from scope_ltx.config import LTX2Config
from training.clips import FPS

_SIZE = re.compile(r"(\d+)x(\d+)x(\d+)")


def parse(arguments: Sequence[str], rows: Collection[str]) -> argparse.Namespace:
    """Exits with a message for what cannot be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="model directory; the small model that ships")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:N]")
    parser.add_argument("--rows", type=lambda text: _rows(text, rows), default=list(rows), help=",".join(rows))
    parser.add_argument("--count", type=_positive, default=200, help="held-out prompts of the row prompts")
    parser.add_argument("--mode-count", type=_positive, default=24, help="cases of each mode")
    parser.add_argument("--compare-count", type=_positive, default=None, help="prompts of fp8 and steps; --count")
    parser.add_argument("--size", type=_size, default="384x320x129", help="height x width x frames")
    parser.add_argument("--threads", type=_positive, default=2, help="CPU threads of the generator")
    parser.add_argument("--processes", type=int, default=0, help="that judge; 0: judged between the clips")
    parser.add_argument("--bf16-weights", type=Path, default=None, help="unquantised training weights for fp8")
    parser.add_argument("--sheet", type=Path, default=None, help="PNG to write the contact sheet to")
    parser.add_argument("--sheet-count", type=_positive, default=8, help="prompts on the contact sheet")
    parser.add_argument("--json", type=Path, default=RESULTS / "quality.json", help="results, row by row")
    parsed = parser.parse_args(arguments)
    if parsed.sheet is not None and "prompts" not in parsed.rows:
        parser.error("--sheet shows clips of the row prompts: add it to --rows")
    for path in (parsed.model, parsed.bf16_weights):
        if path is not None and not path.exists():
            parser.error(f"{path} is not there")
    parsed.compare_count = min(parsed.count, parsed.compare_count or parsed.count)
    return parsed


def geometry(parsed: argparse.Namespace) -> LTX2Config:
    height, width, frames = parsed.size
    return LTX2Config(height=height, width=width, num_frames=frames, frame_rate=FPS)


def _rows(text: str, known: Collection[str]) -> list[str]:
    asked = [name for name in text.split(",") if name]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise argparse.ArgumentTypeError(f"rows are some of {','.join(known)}, got {text!r}")
    return asked


def _size(text: str) -> tuple[int, int, int]:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"a size is HEIGHTxWIDTHxFRAMES, got {text!r}")
    height, width, frames = map(int, found.groups())
    return height, width, frames


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return value
