"""Sigma schedules against reference values and the properties every schedule has."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.config import LTX2Config
from scope_ltx.sampling.schedules import (
    DISTILLED_SIGMAS,
    SCHEDULES,
    linear_quadratic_sigmas,
    resolve_schedule,
    symmetric_beta_quantile,
)

REFERENCE = {
    ("linear", 4): (1, 0.75, 0.5, 0.25, 0),
    ("linear", 8): (1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0),
    ("cosine", 4): (1, 0.92388, 0.707107, 0.382683, 0),
    ("cosine", 8): (1, 0.980785, 0.92388, 0.83147, 0.707107, 0.55557, 0.382683, 0.19509, 0),
    ("linear_quadratic", 4): (1, 0.9875, 0.975, 0.725, 0),
    ("linear_quadratic", 8): (1, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0),
    ("beta", 4): (1, 0.82432, 0.5, 0.17568, 0),
    ("beta", 8): (1, 0.942844, 0.82432, 0.670619, 0.5, 0.329381, 0.17568, 0.057156, 0),
    ("distilled", 8): (1, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0),
}


@pytest.mark.parametrize(("name", "steps"), REFERENCE)
def test_reference_values(name: str, steps: int) -> None:
    resolved = resolve_schedule(LTX2Config.model_validate({"schedule": name, "num_steps": steps}))
    assert resolved.sigmas == pytest.approx(REFERENCE[name, steps], abs=6e-7)
    assert resolved.note is None


@settings(deadline=None)
@given(name=st.sampled_from(["distilled", *SCHEDULES]), steps=st.integers(1, 20))
def test_every_schedule_descends_from_1_to_exactly_0(name: str, steps: int) -> None:
    sigmas = resolve_schedule(LTX2Config.model_validate({"schedule": name, "num_steps": steps})).sigmas
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert all(high > low for high, low in pairwise(sigmas))
    assert all(type(sigma) is float for sigma in sigmas)


def test_distilled_at_another_step_count_becomes_linear_and_says_so() -> None:
    resolved = resolve_schedule(LTX2Config(num_steps=4))
    assert resolved.sigmas == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert resolved.note == "the distilled schedule has 8 steps: at 4 it becomes linear"


def test_own_sigmas_override_steps_and_schedule() -> None:
    resolved = resolve_schedule(LTX2Config(sigmas=(0.9, 0.4, 0.0), num_steps=4, schedule="beta"))
    assert resolved.sigmas == (0.9, 0.4, 0.0)
    assert resolved.note is None


def test_the_distilled_levels_are_linear_quadratic_with_8_steps() -> None:
    assert linear_quadratic_sigmas(8) == pytest.approx(DISTILLED_SIGMAS, abs=1e-15)


@pytest.mark.parametrize("formula", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_no_steps_is_no_schedule(formula: object) -> None:
    assert callable(formula)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        formula(0)


@settings(deadline=None)
@given(p=st.floats(0, 1))
def test_arcsine_quantiles_have_a_closed_form(p: float) -> None:
    """Beta(1/2, 1/2) is the arcsine law, whose quantile is sin^2(pi p / 2)."""
    assert symmetric_beta_quantile(p, 0.5) == pytest.approx(math.sin(math.pi * p / 2) ** 2, abs=1e-14, rel=1e-12)


@settings(deadline=None)
@given(p=st.floats(0, 1))
def test_uniform_quantiles_are_the_probability_itself(p: float) -> None:
    assert symmetric_beta_quantile(p, 1.0) == pytest.approx(p, abs=1e-15)


@settings(deadline=None)
@given(k=st.integers(0, 2**53), shape=st.floats(0.2, 3))
def test_quantiles_are_symmetric(k: int, shape: float) -> None:
    """p is a multiple of 2^-53, so that 1 - p is exact: near 0 the quantile of shape 3 moves like p^(1/3), which
    turns a rounding of 1 - p (1e-31 becomes 0) into 3e-11."""
    p = k / 2**53
    upper = symmetric_beta_quantile(1 - p, shape)
    assert symmetric_beta_quantile(p, shape) + upper == pytest.approx(1.0, abs=1e-12)


@settings(deadline=None)
@given(p=st.floats(0, 1))
def test_a_numeric_integral_of_the_density_gives_the_probability_back(p: float) -> None:
    """Beta(0.6, 0.6), with t = u^(5/3) in the integral so that the density's pole at 0 disappears."""
    x = min(symmetric_beta_quantile(p, 0.6), 1 - symmetric_beta_quantile(p, 0.6))
    upper = x**0.6
    norm = math.gamma(0.6) ** 2 / math.gamma(1.2)
    panels = 64
    heights = [(1 - (upper * i / panels) ** (5 / 3)) ** -0.4 / 0.6 for i in range(panels + 1)]
    simpson = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
    assert simpson * upper / panels / 3 / norm == pytest.approx(min(p, 1 - p), abs=1e-6)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_no_probability_no_quantile(p: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        symmetric_beta_quantile(p, 0.6)
