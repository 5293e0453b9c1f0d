"""Which blocks stay on the device: a budget in bytes in, an evenly interleaved split out. Pure arithmetic.

Blocks are used in a cycle, so a least-recently-used cache would never hit: a fixed subset is pinned instead.
The streamed blocks are spread evenly among the resident ones, so that copies run during the whole step; a
contiguous streamed tail would leave the bus idle while the head computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SLOTS = 2
"""One slot computes while the other is filled. Evenly spread blocks gain nothing from a third."""


class BudgetError(ValueError):
    """The budget cannot hold even the slots; `least_nbytes` is what would do."""

    def __init__(self, budget_nbytes: int, least_nbytes: int, why: str) -> None:
        self.budget_nbytes = budget_nbytes
        self.least_nbytes = least_nbytes
        super().__init__(
            f"{_size(budget_nbytes)} are left for the model's blocks, but {why} need at least "
            f"{_size(least_nbytes)}. Raise the memory budget by {_size(least_nbytes - budget_nbytes)} "
            "or lower the size of the request."
        )


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GiB" if abs(nbytes) >= 2**30 else f"{nbytes / 2**20:.1f} MiB"


@dataclass(frozen=True)
class ResidencyPlan:
    """`streamed` in order of use; the k-th of them always uses slot k mod `slots`.

    device_nbytes: resident blocks and slots together.
    """

    block_nbytes: tuple[int, ...]
    streamed: tuple[int, ...]
    slots: int
    slot_nbytes: int

    @property
    def resident(self) -> tuple[int, ...]:
        streamed = set(self.streamed)
        return tuple(block for block in range(len(self.block_nbytes)) if block not in streamed)

    @property
    def resident_nbytes(self) -> int:
        return sum(self.block_nbytes[block] for block in self.resident)

    @property
    def streamed_nbytes(self) -> int:
        """Bytes that cross the bus in one walk over the blocks."""
        return sum(self.block_nbytes[block] for block in self.streamed)

    @property
    def device_nbytes(self) -> int:
        return self.resident_nbytes + self.slots * self.slot_nbytes


def plan_residency(
    block_nbytes: Sequence[int], budget_nbytes: int, slots: int = SLOTS, least_slot_nbytes: int = 0
) -> ResidencyPlan:
    """The plan within `budget_nbytes` that streams the fewest bytes.

    `least_slot_nbytes` is what another model needs of the slots that it shares: they are then part of the
    budget even where all blocks of this one stay resident.

    Large blocks stay resident where they can, because a slot must be as large as the largest streamed block.
    The number of streamed blocks is a multiple of `slots` (unless all are streamed), so that a block keeps its
    slot from step to step and its kernels their addresses.

    Raises BudgetError naming the least that would do, ValueError for no blocks or fewer than 2 slots.
    """
    sizes = tuple(block_nbytes)
    if not sizes or min(sizes) <= 0:
        raise ValueError(f"every block needs a positive size, got {sizes[:5]}")
    if slots < 2:
        raise ValueError(f"streaming needs at least 2 slots to copy beside compute, got {slots}")
    all_resident = ResidencyPlan(sizes, (), slots if least_slot_nbytes else 0, least_slot_nbytes)
    if all_resident.device_nbytes <= budget_nbytes:
        return all_resident
    plans = [
        plan
        for largest in sorted(set(sizes))
        for plan in _plans_with_slot(sizes, largest, slots, least_slot_nbytes)
        if plan.device_nbytes <= budget_nbytes
    ]
    if not plans:
        slot_nbytes = max(*sizes, least_slot_nbytes)
        least = min(all_resident.device_nbytes, slots * slot_nbytes)
        raise BudgetError(budget_nbytes, least, f"{slots} slots of {_size(slot_nbytes)}")
    return min(plans, key=lambda plan: (plan.streamed_nbytes, plan.device_nbytes))


def _plans_with_slot(
    sizes: tuple[int, ...], largest: int, slots: int, least_slot_nbytes: int
) -> list[ResidencyPlan]:
    """Every count of streamed blocks among those of at most `largest` bytes."""
    candidates = [block for block, nbytes in enumerate(sizes) if nbytes <= largest]
    slot_nbytes = max(largest, least_slot_nbytes)
    counts = list(range(slots, len(candidates) + 1, slots))
    if len(candidates) == len(sizes) and len(sizes) % slots:
        counts.append(len(sizes))
    return [
        ResidencyPlan(sizes, tuple(candidates[i] for i in spread(count, len(candidates))), slots, slot_nbytes)
        for count in counts
    ]


def spread(count: int, places: int) -> tuple[int, ...]:
    """`count` of `places` indices as evenly as whole numbers allow, around a cycle: gaps differ by at most 1."""
    return tuple((2 * i + 1) * places // (2 * count) for i in range(count))
