"""Stages of training: when they end, what they keep, and that a cut-off one goes on as if it had not been."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.fakes.training_stage import CutOffError, CutOffStage, stage_in
from training.log import Log, plot
from training.optim import Trainer
from training.stage import Budget, Stage


@given(steps=st.integers(1, 1000), seconds=st.floats(1.0, 1e4), step=st.integers(0, 2000), now=st.floats(0.0, 2e4))
def test_a_budget_is_done_by_whichever_comes_first(steps: int, seconds: float, step: int, now: float) -> None:
    done = Budget(steps, seconds).fraction(step, now)
    assert done == max(Budget(steps=steps).fraction(step, now), Budget(seconds=seconds).fraction(step, now))
    assert (done >= 1.0) == (step >= steps or now >= seconds)


def test_a_budget_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="steps or of seconds"):
        Budget().fraction(0, 0.0)


def test_setting_up_does_not_count_and_a_time_of_day_ends_the_stage(tmp_path: Path) -> None:
    now = [100.0]
    stage = Stage("part", tmp_path, torch.device("cpu"), Budget(seconds=10.0), clock=lambda: now[0])
    now[0] += 60.0
    stage.start_clock()
    assert stage.progress == 0.0
    now[0] += 5.0
    assert stage.progress == pytest.approx(0.5)
    late = Stage("part", tmp_path, torch.device("cpu"), Budget(), clock=lambda: now[0], until=time.time() - 1.0)
    late.start_clock()
    now[0] += 1.0
    assert not late.running


def fit(stage: Stage) -> tuple[nn.Module, list[float]]:
    """A line through random points, drawn with both of the stage's generators."""
    module = nn.Linear(3, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    trainer = Trainer(module, 1e-2, warm_up=2)
    if (state := stage.resume()) is not None:
        trainer.restore(state)
    losses = []
    while stage.running:
        x = torch.randn(8, 3, generator=stage.generator) * stage.rng.uniform(0.5, 1.5)
        trainer.prepare(stage.step, stage.progress)
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        trainer.step(loss)
        losses.append(float(loss.detach()))
        stage.step += 1
        stage.save_now_and_then(trainer.state)
    trainer.use_mean()
    return module, losses


def test_a_stage_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, losses = fit(stage_in(tmp_path / "whole", Stage))
    with pytest.raises(CutOffError):
        fit(stage_in(tmp_path / "cut", CutOffStage))
    rest, later = fit(stage_in(tmp_path / "cut", Stage))
    assert later == losses[2:]
    for ours, theirs in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_rates_rise_then_fall_and_the_mean_follows_the_weights() -> None:
    module = nn.Linear(2, 2)
    trainer = Trainer(module, 1e-3, warm_up=10, decay_from=0.5)
    rates = [trainer.rate_at(step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[20] == rates[50] == pytest.approx(1e-3)
    assert rates[75] == pytest.approx(5e-4)
    assert rates[100] == pytest.approx(1e-5)
    first = module.weight.detach().clone()
    for step in range(50):
        trainer.prepare(step, 0.1)
        trainer.step(module(torch.ones(1, 2)).sum())
    last = module.weight.detach().clone()
    trainer.use_mean()
    kept = module.weight.detach()
    assert ((kept - last).abs() > 0).all()
    assert ((kept - last).abs() < 0.5 * (first - last).abs()).all()


def test_a_log_is_lines_of_json_and_its_plot_names_the_columns_that_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(tmp_path / "part.jsonl")
    for step in range(0, 100, 10):
        log.append({"step": step, "loss": 1.23456789 / (step + 1)})
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert rows[0] == {"step": 0, "loss": 1.2346}
    assert capsys.readouterr().out == log.path.read_text()
    plot(log.path, tmp_path / "part.svg", ("loss", "absent"))
    drawing = (tmp_path / "part.svg").read_text()
    assert "steps, 0 to 90" in drawing
    assert "loss: 1.23 to 0.0136" in drawing
    assert "absent" not in drawing
