"""Values as a client sent them: compared and shown without trusting them."""

from __future__ import annotations

from collections.abc import Hashable

from pydantic_core import ErrorDetails

from scope_ltx.config import describe_problem

DEPTH, ITEMS, SHOWN = 8, 4096, 60


def frozen(value: object, depth: int = DEPTH) -> Hashable:
    """Equal for equal JSON, also where it holds NaN; what JSON does not have is told apart by its identity.
    Looks at 8 levels, and at 4096 items on each."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        # True == 1 == 1.0, and NaN is not even itself.
        return (type(value).__name__, repr(value) if isinstance(value, float) else value)
    if depth and isinstance(value, list | tuple):
        return ("list", len(value), *(frozen(item, depth - 1) for item in value[:ITEMS]))
    if depth and isinstance(value, dict):
        items = list(value.items())[:ITEMS]
        return ("dict", len(value), *((str(key), frozen(item, depth - 1)) for key, item in items))
    return (type(value).__name__, id(value))


def shown(value: object) -> str:
    """At most 60 characters of it, in ASCII. What is not JSON is named by its type alone."""
    if value is None or isinstance(value, bool | float | str | bytes):
        text = ascii(value if not isinstance(value, str | bytes) else value[: SHOWN + 1])
    elif isinstance(value, int):
        text = str(value) if value.bit_length() < 256 else f"a number of {value.bit_length()} bits"
    elif isinstance(value, list | tuple | dict):
        text = f"{type(value).__name__} of {len(value)}"
    else:
        text = type(value).__name__
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def described(problem: ErrorDetails) -> str:
    """One problem of a ValidationError. Its value may be a tensor, or a number too long to be written."""
    return describe_problem({**problem, "input": _Shown(problem["input"])})


class _Shown:
    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return shown(self._value)
