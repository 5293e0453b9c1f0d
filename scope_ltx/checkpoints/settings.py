"""A section of a file's settings, read strictly.

Sizes must be there. A setting that the product's code holds as a constant may be absent, but if it is there
it must agree: the reference code's defaults for absent keys are those of older models, so nothing is ever
guessed from absence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scope_ltx.errors import CheckpointError

ADVICE = "Use the LTX-2.3 files that plugin.toml names; other generations of the model have other settings"


class Section:
    """One JSON object of the settings. `name` is its dotted place, for messages."""

    def __init__(self, path: Path, name: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self.name = name
        self._values = values

    def section(self, *keys: str) -> Section:
        """The object below `keys`, which must be there."""
        found = self
        for key in keys:
            value = found._required(key)
            if not isinstance(value, dict):
                raise found.mismatch(key, "an object", value)
            found = Section(self.path, f"{found.name}.{key}", value)
        return found

    def has(self, key: str) -> bool:
        return key in self._values

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive whole number. Absent: `default`, or an error if there is none."""
        value = self._required(key) if default is None else self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value <= 0:
            raise self.mismatch(key, "a positive whole number", value)
        return int(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of positive whole numbers, not empty."""
        value = self._required(key)
        if not _are_positive(value):
            raise self.mismatch(key, "a list of positive whole numbers", value)
        return tuple(value)

    def integer_lists(self, key: str) -> tuple[tuple[int, ...], ...]:
        """A list of such lists."""
        value = self._required(key)
        if not isinstance(value, list) or not value or not all(_are_positive(row) for row in value):
            raise self.mismatch(key, "a list of lists of positive whole numbers", value)
        return tuple(tuple(row) for row in value)

    def blocks(self, key: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """A list of [block name, settings]; a bare number of settings stands for `num_layers`."""
        value = self._required(key)
        if not isinstance(value, list) or not value:
            raise self.mismatch(key, "a list of blocks", value)
        blocks = []
        for block in value:
            match block:
                case [str(name), dict(settings)]:
                    blocks.append((name, settings))
                case [str(name), int(layers)]:
                    blocks.append((name, {"num_layers": layers}))
                case _:
                    raise self.mismatch(key, "blocks of the form [name, settings]", block)
        return tuple(blocks)

    def constants(self, expected: Mapping[str, Any]) -> None:
        """Every key that is present must have the value given here; lists compare as lists."""
        for key, constant in expected.items():
            if key in self._values and not _same(self._values[key], constant):
                raise self.mismatch(key, repr(constant), self._values[key])

    def _required(self, key: str) -> Any:
        if key not in self._values:
            problem = f"its settings have no `{self.name}.{key}`"
            raise CheckpointError(self.path, problem, advice=ADVICE)
        return self._values[key]

    def mismatch(self, key: str, expected: str, got: Any) -> CheckpointError:
        """The error for a setting that has the wrong value."""
        problem = f"its setting `{self.name}.{key}` is {got!r}, expected {expected}"
        return CheckpointError(self.path, problem, advice=ADVICE)


def _are_positive(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in value)
    )


def _same(got: Any, constant: Any) -> bool:
    """Equal, with True never equal to 1; None stands for an empty list too."""
    if constant == ():
        return got is None or got in ([], {})
    if isinstance(got, bool) != isinstance(constant, bool):
        return False
    return bool(got == (list(constant) if isinstance(constant, tuple) else constant))
