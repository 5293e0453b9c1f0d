"""Row `prompts`: what the prompt says is there, in the published 8 steps without guidance."""

from __future__ import annotations

from benchmarks.quality.bench import Bench
from benchmarks.quality.figures import Row
from benchmarks.quality.totals import breakdown, prompt_figures


def make_row(bench: Bench) -> Row:
    marks = bench.published.marks()
    return Row("prompts", prompt_figures(marks), breakdown(marks))
