"""A set of LoRAs with strengths, and what changes between two sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from scope_ltx.lora.file import LoraFile
from scope_ltx.lora.kinds import LoraFacts
from scope_quant.merge import LowRank

MAX_STRENGTH = 10.0
"""Ten times what a LoRA was trained for. Published ones are used from 0.3 to 1.4; negative ones turn it around."""


@dataclass(frozen=True)
class LoraSet:
    """Files with strengths, in no particular order: two sets with the same ones are equal.

    A strength of 0 is as good as the file not being there, and is kept out of `active`.
    """

    entries: tuple[tuple[LoraFile, float], ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for a file that is listed twice and a strength that is none."""
        files = [file for file, _ in self.entries]
        for file, strength in self.entries:
            if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
                problem = f"expected a strength from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}"
                raise ValueError(f"{file.path}: {problem}, got {strength}")
            if files.count(file) > 1:
                raise ValueError(f"{file.path} is listed twice: list it once, with the sum of its strengths")
        # In one order, so that the sum is the same to the last bit however the set was written.
        ordered = sorted(self.entries, key=lambda entry: str(entry[0].identity))
        object.__setattr__(self, "entries", tuple(ordered))

    @classmethod
    def of(cls, entries: Mapping[LoraFile, float] | Iterable[tuple[LoraFile, float]]) -> LoraSet:
        return cls(tuple(entries.items() if isinstance(entries, Mapping) else entries))

    @cached_property
    def active(self) -> tuple[tuple[LoraFile, float], ...]:
        return tuple((file, strength) for file, strength in self.entries if strength)

    @cached_property
    def modules(self) -> frozenset[str]:
        """Every layer that is changed."""
        return frozenset(module for file, _ in self.active for module in file.layers)

    @property
    def facts(self) -> tuple[LoraFacts, ...]:
        """Of the active ones, as `compatibility.require_compatible` takes them."""
        return tuple(file.facts for file, _ in self.active)

    def acting_on(self, module: str) -> tuple[tuple[LoraFile, float], ...]:
        return tuple((file, strength) for file, strength in self.active if module in file.layers)

    def changes(self, module: str, rows: slice) -> list[LowRank]:
        """The low-rank changes of these rows of a layer, as stored on the CPU. Raises LoraError."""
        found = []
        for file, strength in self.acting_on(module):
            down, up = file.factors(module)
            found.append(LowRank(down, up[rows], strength * file.layers[module].scale))
        return found


NO_LORAS = LoraSet()


def changed_modules(before: LoraSet, after: LoraSet) -> frozenset[str]:
    """The layers whose weights differ between two sets: only these need to be merged again."""
    either = before.modules | after.modules
    return frozenset(module for module in either if before.acting_on(module) != after.acting_on(module))
