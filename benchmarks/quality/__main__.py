"""Held-out evaluation: obedience to prompts, every mode, FP8 against bfloat16, 8 steps against 30.

    python -m benchmarks.quality --count 200 --sheet docs/screenshots/quality.png

Prints a table with the bars; writes JSON after each row, so that an interrupted run keeps what it has.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import (
    command,
    row_ceiling,
    row_continuity,
    row_control,
    row_driving,
    row_i2v,
    row_id_lora,
    row_loras,
    row_prompts,
    row_steps,
    row_weights,
)
from benchmarks.quality.bench import Bench, MakeRow
from benchmarks.quality.figures import Row, table
from benchmarks.quality.judging import Judging
from benchmarks.quality.maker import Maker
from benchmarks.quality.prompt_run import PublishedRun
from benchmarks.quality.sheet import write_sheet
from benchmarks.report import machine, write_json
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.small import ensure_small_model

ROWS: Mapping[str, MakeRow] = {
    "prompts": row_prompts.make_row,
    "ceiling": row_ceiling.make_row,
    "i2v": row_i2v.make_row,
    "control": row_control.make_control,
    "colorizer": row_control.make_colorizer,
    "cameraman": row_control.make_cameraman,
    "id_lora": row_id_lora.make_row,
    "driving": row_driving.make_row,
    "style": row_loras.make_style,
    "chime": row_loras.make_chime,
    "continuity": row_continuity.make_row,
    "fp8": row_weights.make_row,
    "steps": row_steps.make_row,
}


def main() -> None:
    arguments = command.parse(sys.argv[1:], ROWS)
    torch.set_num_threads(arguments.threads)
    # Or cuDNN adds up the vocoder's convolutions in any order: 7e-8 between two clips of one seed on an H200.
    torch.backends.cudnn.deterministic = True
    with tempfile.TemporaryDirectory() as folder, Judging(arguments.processes) as judging:
        scratch = Path(folder)
        model = arguments.model or ensure_small_model(scratch / "model")
        with closing(Maker(model, arguments.device, command.geometry(arguments))) as maker:
            strips = arguments.sheet_count if arguments.sheet else 0
            published = PublishedRun(maker, judging, arguments.count, strips)
            bench = Bench(
                maker,
                judging,
                published,
                arguments.mode_count,
                arguments.compare_count,
                scratch,
                arguments.bf16_weights,
            )
            rows = _measure(bench, arguments.rows, arguments.json)
        if arguments.sheet is not None:
            write_sheet(arguments.sheet, published.strips)
    print("\n".join(table(rows)))


def _measure(bench: Bench, names: list[str], path: Path) -> list[Row]:
    """The rows, each put into the JSON file as soon as it is there."""
    rows: list[Row] = []
    result: dict[str, Any] = {"benchmark": "quality", **_described(bench), "rows": {}}
    for name in names:
        started = time.perf_counter()
        row = ROWS[name](bench)
        rows.append(row)
        seconds = round(time.perf_counter() - started, 1)
        result["rows"][name] = {"seconds": seconds, **row.as_json()}
        result["product_notes"] = sorted(bench.maker.notes)
        write_json(path.stem, result, path.parent)
        print("\n".join(table([row])), f"({seconds} s)", sep="\n", flush=True)
    return rows


def _described(bench: Bench) -> dict[str, Any]:
    size = bench.size
    transformer = ModelFiles.in_directory(bench.maker.model).transformer
    with transformer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "size": f"{size.height}x{size.width}x{size.num_frames}",
        "steps": size.num_steps,
        "transformer_sha256": digest,
        **machine(torch.device(bench.maker.device)),
    }


if __name__ == "__main__":
    main()
