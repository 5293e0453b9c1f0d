"""What governs the next chunks: one prompt, several by weight, or the way from one to another. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scope_ltx.request import WeightedPrompt

MAX_PROMPT_CHARACTERS = 10_000
MAX_PROMPTS = 16

Mix = tuple[WeightedPrompt, ...]
"""Weights that sum to 1, the heaviest first as given; each text once."""


def checked_prompt(prompt: str) -> str:
    """`prompt` stripped. Raises ValueError when it is empty, too long or no valid text."""
    text = prompt.strip()
    if not text:
        raise ValueError("the prompt is empty: describe what the stream should show and sound like")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"the prompt has {len(text)} characters, at most {MAX_PROMPT_CHARACTERS} are taken")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the prompt is no valid text at character {error.start}: a lone surrogate") from error
    return text


def checked_mix(prompts: Sequence[WeightedPrompt]) -> Mix:
    """Texts checked, weights scaled to sum to 1; what has no weight is left out, equal texts count together.

    Raises ValueError as `checked_prompt`, and for weights that are negative, not finite, or all 0.
    """
    if len(prompts) > MAX_PROMPTS:
        raise ValueError(f"at most {MAX_PROMPTS} prompts are blended, got {len(prompts)}")
    weights: dict[str, float] = {}
    for one in prompts:
        if not math.isfinite(one.weight) or one.weight < 0:
            raise ValueError(f"a prompt's weight must be a number from 0, got {one.weight}")
        if one.weight:
            text = checked_prompt(one.text)
            weights[text] = weights.get(text, 0.0) + one.weight
    total = sum(weights.values())
    if not weights or not math.isfinite(total):
        raise ValueError(f"at least one prompt needs a weight above 0, got {[one.weight for one in prompts]}")
    return tuple(WeightedPrompt(text, weight / total) for text, weight in weights.items())


def between(start: Mix, end: Mix, progress: float) -> Mix:
    """`start` at 0, `end` at 1, every weight in proportion between."""
    if progress >= 1:
        return end
    weighed = [WeightedPrompt(one.text, one.weight * (1 - progress)) for one in start]
    return checked_mix([*weighed, *(WeightedPrompt(one.text, one.weight * progress) for one in end)])


def described(mix: Mix) -> str:
    """The prompt itself, or all of them with their shares."""
    if len(mix) == 1:
        return mix[0].text
    return " + ".join(f"{one.weight:.0%} {one.text}" for one in mix)


class Transition:
    """From one mix to another over a number of chunks. One thread at a time."""

    def __init__(self, end: Mix) -> None:
        self._start = self.end = end
        self._chunks = self._done = self._done_before = 0

    def turn(self, end: Mix, chunks: int) -> None:
        """Head for `end`, which the `chunks`-th chunk from now reaches and governs; 0 or 1: the next one.

        Raises ValueError for a negative number of chunks.
        """
        if chunks < 0:
            raise ValueError(f"a transition takes 0 or more chunks, got {chunks}")
        self._start, self.end = self._now(), end
        self._chunks, self._done, self._done_before = max(1, chunks), 0, 0

    def next(self) -> Mix:
        """What governs the next chunk."""
        self._done_before, self._done = self._done, min(self._done + 1, self._chunks)
        return self._now()

    def back(self) -> None:
        """The chunk that `next` was asked for has failed: the following one is governed by the same."""
        self._done = self._done_before

    def _now(self) -> Mix:
        return self.end if not self._chunks else between(self._start, self.end, self._done / self._chunks)
