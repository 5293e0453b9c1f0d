"""Which noise levels the denoising loop visits: n + 1 Python floats that descend to exactly 0.

Plain floats, so that no step has to ask the device for its sigma and no sigma is rounded to bfloat16
(which moves the first four distilled steps by 25 to 37 percent). Nothing here imports torch or numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scope_ltx.config import LTX2Config

Sigmas = tuple[float, ...]

DISTILLED_STEPS = 8
DISTILLED_SIGMAS: Sigmas = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
"""The levels the distilled checkpoint was trained on."""

BETA_SHAPE = 0.6
"""Both parameters of the beta schedule's distribution."""

LINEAR_QUADRATIC_THRESHOLD = 0.025
"""How much noise the linear half of `linear_quadratic` removes."""

DEV_SHIFT = 2.05
"""What Lightricks' pipelines use at every size, although the scheduler can take it from the number of tokens
(decision D11): the value for 4,096 tokens."""

DEV_LAST_SIGMA = 0.1
"""The dev schedule's last level that is not 0."""


@dataclass(frozen=True)
class ResolvedSchedule:
    """What a configuration asks the loop to do.

    sigmas: strictly descending, last 0. note: a sentence for the user when that is not the schedule they chose.
    """

    sigmas: Sigmas
    note: str | None = None


def resolve_schedule(config: LTX2Config) -> ResolvedSchedule:
    """The sigmas of a configuration. Its own list wins over `num_steps` and `schedule`."""
    if config.sigmas is not None:
        return ResolvedSchedule(config.sigmas)
    if config.schedule == "distilled":
        if config.num_steps == DISTILLED_STEPS:
            return ResolvedSchedule(DISTILLED_SIGMAS)
        note = f"the distilled schedule has {DISTILLED_STEPS} steps: at {config.num_steps} it becomes linear"
        return ResolvedSchedule(linear_sigmas(config.num_steps), note)
    return ResolvedSchedule(SCHEDULES[config.schedule](config.num_steps))


def linear_sigmas(steps: int) -> Sigmas:
    """1 - i/n."""
    _require_a_step(steps)
    return tuple((steps - i) / steps for i in range(steps + 1))


def cosine_sigmas(steps: int) -> Sigmas:
    """cos(i pi / 2n), with the last value exactly 0."""
    _require_a_step(steps)
    return (*(math.cos(i * math.pi / (2 * steps)) for i in range(steps)), 0.0)


def linear_quadratic_sigmas(steps: int) -> Sigmas:
    """A slow linear half down to 1 - threshold, then a parabola that joins it smoothly and ends in 0.

    With 8 steps this is the distilled schedule. One step goes straight from 1 to 0.
    """
    _require_a_step(steps)
    if steps == 1:
        return (1.0, 0.0)
    linear = steps // 2
    quadratic = steps - linear
    slope = LINEAR_QUADRATIC_THRESHOLD / linear
    curve = (1 - LINEAR_QUADRATIC_THRESHOLD - slope * quadratic) / quadratic**2
    head = (1 - slope * i for i in range(linear))
    tail = (1 - LINEAR_QUADRATIC_THRESHOLD - slope * j - curve * j * j for j in range(quadratic))
    return (*head, *tail, 0.0)


def beta_sigmas(steps: int) -> Sigmas:
    """Quantiles of Beta(0.6, 0.6) at 1 - i/n: dense near 1 and near 0.

    An earlier plugin for this model sums a series for the distribution function that is not the one of the
    beta distribution: its values for four steps are 1, 0.53, 0.36, 0.15, 0, where symmetry alone already
    demands 0.5 in the middle. These are the true quantiles.
    """
    _require_a_step(steps)
    upper = (symmetric_beta_quantile((steps - i) / steps, BETA_SHAPE) for i in range(steps))
    return (*upper, 0.0)


def dev_sigmas(steps: int) -> Sigmas:
    """For the dev checkpoint: evenly spaced levels s become e^h / (e^h + 1/s - 1) with the shift h, then are
    stretched about 1 so that the last one is 0.1. One step goes straight from 1 to 0.

    Source: Lightricks/LTX-2, ltx-core schedulers, `LTX2Scheduler`.
    """
    _require_a_step(steps)
    if steps == 1:
        return (1.0, 0.0)
    shift = math.exp(DEV_SHIFT)
    shifted = [shift / (shift + (steps / (steps - i) - 1)) for i in range(steps)]
    stretch = (1 - DEV_LAST_SIGMA) / (1 - shifted[-1])
    return (*(1 - (1 - sigma) * stretch for sigma in shifted), 0.0)


SCHEDULES: Mapping[str, Callable[[int], Sigmas]] = {
    "linear": linear_sigmas,
    "cosine": cosine_sigmas,
    "linear_quadratic": linear_quadratic_sigmas,
    "beta": beta_sigmas,
    "dev": dev_sigmas,
}
"""Every schedule that has a formula for any number of steps."""


def symmetric_beta_quantile(p: float, shape: float) -> float:
    """The x at which Beta(shape, shape) has accumulated p, by bisection to the last bit.

    Only the lower half is searched: the upper one is its mirror image, and a double resolves more near 0 than
    near 1. Raises ValueError unless 0 <= p <= 1.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"a probability lies in [0, 1], got {p}")
    if p > 0.5:
        return 1.0 - symmetric_beta_quantile(1.0 - p, shape)
    low, high = 0.0, 0.5
    while low < (middle := (low + high) / 2) < high:
        if _lower_half_cdf(middle, shape) < p:
            low = middle
        else:
            high = middle
    return high if p else 0.0


def _lower_half_cdf(x: float, shape: float) -> float:
    """Regularised incomplete beta function I_x(shape, shape) for 0 < x <= 1/2 (DLMF 8.17.22).

    The continued fraction 1/(1 + d1/(1 + d2/(1 + ...))) is evaluated from its far end. For x up to 1/2 every
    term shrinks what is left about sixfold, so 32 terms reach the limit of a double and need no test of
    convergence.
    """
    value = 1.0
    for n in range(32, 0, -1):
        m, odd = divmod(n, 2)
        if odd:
            term = -(shape + m) * (2 * shape + m) / ((shape + 2 * m) * (shape + 2 * m + 1))
        else:
            term = m * (shape - m) / ((shape + 2 * m - 1) * (shape + 2 * m))
        value = 1.0 + term * x / value
    log_beta = 2 * math.lgamma(shape) - math.lgamma(2 * shape)
    return math.exp(shape * (math.log(x) + math.log1p(-x)) - log_beta) / (shape * value)


def _require_a_step(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 step, got {steps}")
