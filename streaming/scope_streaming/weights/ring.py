"""The device slots through which blocks pass. One ring serves every model that streams."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from scope_streaming.weights.engine import CopyEngine

BlockKey = Hashable
"""Who is in a slot: anything that tells one block of one model from every other."""


class SlotRing:
    """`slots` device buffers of `slot_nbytes`, what each holds or is about to hold, and the copies into them.

    A block is asked for with `fetch` (early, so that the copy overlaps compute), used between `acquire` and
    `release`. Belongs to one thread, the one that launches compute. Allocates everything when it is made.
    """

    def __init__(self, slots: int, slot_nbytes: int, device: torch.device, engine: CopyEngine) -> None:
        self._engine = engine
        self._buffers = [torch.empty(slot_nbytes, dtype=torch.uint8, device=device) for _ in range(slots)]
        self._holds: list[BlockKey | None] = [None] * slots
        self._in_use = [False] * slots
        self._copied_nbytes = 0

    @property
    def copied_nbytes(self) -> int:
        """Bytes that were asked to be copied so far."""
        return self._copied_nbytes

    @property
    def slots(self) -> int:
        return len(self._buffers)

    def buffer(self, slot: int) -> Tensor:
        return self._buffers[slot]

    def fetch(self, slot: int, key: BlockKey, source: Tensor) -> None:
        """Start copying block `key` from its host buffer, unless the slot has it already.

        Raises RuntimeError while the slot is acquired: its content would change under the compute.
        """
        if self._holds[slot] == key:
            return
        if self._in_use[slot]:
            raise RuntimeError(f"slot {slot} is in use by {self._holds[slot]}: {key} cannot be copied into it")
        # If the copy cannot be queued, the slot must not be taken for holding either block.
        self._holds[slot] = None
        self._engine.start_copy(slot, self._buffers[slot][: source.numel()], source)
        self._holds[slot] = key
        self._copied_nbytes += source.numel()

    def acquire(self, slot: int, key: BlockKey, source: Tensor) -> None:
        """The compute queued from now on may read block `key` in the slot."""
        self.fetch(slot, key, source)
        self._engine.wait_landed(slot)
        self._in_use[slot] = True

    def release(self, slot: int) -> None:
        """The compute queued so far was the last to read the slot."""
        self._engine.mark_free(slot)
        self._in_use[slot] = False

    def forget(self, key: BlockKey) -> None:
        """The host's copy of block `key` has changed: whatever slot holds it is stale."""
        self._holds = [None if held == key else held for held in self._holds]

    def drain(self) -> None:
        self._engine.drain()

    def close(self) -> None:
        """Wait for copies under way and give the device memory back."""
        self._engine.drain()
        self._buffers.clear()
        self._holds.clear()
        self._in_use.clear()
