"""Prompts as the host sends them: a list with weights on any scale, plain strings, nothing at all. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scope_ltx.hosts.scope.values import shown
from scope_ltx.prompt_mix import MAX_PROMPTS, Mix, checked_mix, checked_prompt
from scope_ltx.request import WeightedPrompt

Report = Callable[[str], None]

DEFAULT_TRANSITION_CHUNKS = 4
"""The host's own default for a transition without a number of steps."""
MAX_TRANSITION_CHUNKS = 100


@dataclass(frozen=True)
class TransitionAsked:
    target: Mix
    chunks: int


def mix_of(value: object, name: str, report: Report) -> Mix | None:
    """The prompts in `value`, None when it holds none that can be used. Says what is left out."""
    items = value if isinstance(value, list | tuple) else () if value is None else (value,)
    usable = [one for one in (_prompt(item, name, report) for item in items) if one is not None]
    if len(usable) > MAX_PROMPTS:
        report(f"{name}: at most {MAX_PROMPTS} prompts are blended, got {len(usable)}: the first ones are used")
    if not usable:
        return None
    try:
        return checked_mix(usable[:MAX_PROMPTS])
    except ValueError as error:
        report(f"{name}: {error}")
        return None


def transition_of(value: object, report: Report) -> TransitionAsked | None:
    """None when it cannot be used. Says why."""
    if not isinstance(value, Mapping):
        report(f"transition: expected an object with target_prompts, got {shown(value)}: it is left out")
        return None
    target = mix_of(value.get("target_prompts"), "transition.target_prompts", report)
    if target is None:
        report("transition: it names no prompt to go to, so the present one stays")
        return None
    steps = value.get("num_steps", DEFAULT_TRANSITION_CHUNKS)
    if isinstance(steps, float) and steps.is_integer():
        steps = int(steps)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= MAX_TRANSITION_CHUNKS:
        report(
            f"transition.num_steps: expected chunks, 0 to {MAX_TRANSITION_CHUNKS}, got {shown(steps)}: "
            f"{DEFAULT_TRANSITION_CHUNKS} are used"
        )
        steps = DEFAULT_TRANSITION_CHUNKS
    return TransitionAsked(target, steps)


def _prompt(item: object, name: str, report: Report) -> WeightedPrompt | None:
    text, weight = (item.get("text"), item.get("weight", 1.0)) if isinstance(item, Mapping) else (item, 1.0)
    if not isinstance(text, str):
        report(f"{name}: expected a text, or an object with text and weight, got {shown(text)}: it is left out")
        return None
    if not text.strip():
        return None
    number = _weight(weight)
    if number is None:
        report(f"{name}: a weight is a number from 0, got {shown(weight)}: {shown(text)} is left out")
        return None
    try:
        return WeightedPrompt(checked_prompt(text), number) if number else None
    except ValueError as error:
        report(f"{name}: {error}")
        return None


def _weight(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
