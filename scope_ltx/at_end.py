"""Where a song or a clip goes on when something else is to follow its end from now on."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeVar

Place = TypeVar("Place", int, Fraction)


def continued(at: Place, end: Place | None, before: str, now: str) -> Place:
    """What the place `at` is called from now on: within the round of a loop; the beginning where it had ended and
    is to loop. `end` is None before it is known."""
    if now == before or end is None or at < end:
        return at
    if before == "loop":
        return at % end
    return at - at if now == "loop" else at
