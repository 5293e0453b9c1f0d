"""Row `fp8`: the published FP8 transformer against bfloat16 weights, over the same prompts and seeds.

What it means depends on where it runs and on what it is given:

    CPU, no --bf16-weights     FP8 weights are expanded before an ordinary product, so both are the same arithmetic
                               but for the scale's rounding to bfloat16
    GPU with FP8 products      activations are quantised as well: that is what the difference shows
    --bf16-weights FILE        also what rounding the weights costs
"""

from __future__ import annotations

from contextlib import closing

from benchmarks.quality.bench import Bench
from benchmarks.quality.bf16_model import write_dequantised, write_unquantised
from benchmarks.quality.compared import compared_row
from benchmarks.quality.figures import Bar, Row
from benchmarks.quality.maker import Maker
from benchmarks.quality.prompt_run import prompt_marks

_BAR = Bar(least=-2.0, most=2.0)


def make_row(bench: Bench) -> Row:
    maker, folder = bench.maker, bench.folder("bf16")
    # The product quantises a bfloat16 file on a GPU that multiplies FP8, unless it holds an FP8 layer already.
    keep_one = maker.device != "cpu"
    if bench.bf16_weights is None:
        write_dequantised(maker.model, folder, keep_one=keep_one)
        note = "no --bf16-weights: both have the same weights, so this measures only the arithmetic"
    else:
        write_unquantised(maker.model, bench.bf16_weights, folder, keep_one=keep_one)
        note = "bf16 is the training weights that were named, never rounded to FP8"
    cases = bench.published.cases[: bench.compared]
    published = bench.published.marks()[: len(cases)]
    with closing(Maker(folder, maker.device, bench.size)) as other:
        unquantised = prompt_marks(other, bench.judging, cases)
    notes = (note, "one FP8 layer is kept in the bf16 model, or it would be quantised") if keep_one else (note,)
    return compared_row("fp8", ("fp8", published), ("bf16", unquantised), _BAR, notes)
