"""Row `steps`: the 8 published steps against 30, over the same prompts and seeds.

30 steps follow the `dev` schedule: it is the only one that takes so many, and its shift of e^2.05 = 7.8 is the one
that the small model's noise levels were drawn with in training.
"""

from __future__ import annotations

from benchmarks.quality.bench import Bench
from benchmarks.quality.compared import compared_row
from benchmarks.quality.figures import Row
from benchmarks.quality.prompt_run import prompt_marks

_STEPS = 30


def make_row(bench: Bench) -> Row:
    cases = bench.published.cases[: bench.compared]
    many = prompt_marks(bench.maker, bench.judging, cases, schedule="dev", num_steps=_STEPS)
    published = bench.published.marks()[: len(cases)]
    return compared_row("steps", ("8 steps", published), (f"{_STEPS} steps", many), bar=None)
