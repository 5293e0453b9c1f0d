"""A copy engine that copies only when it is told to, and writes down everything."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class RecordingEngine:
    """Copies land lazily: at `wait_landed`, or when the slot is next touched. Compute that does not wait sees
    the slot's old bytes, and a copy that starts before `mark_free` is an error, as it would be on a device."""

    log: list[tuple[str, int]] = field(default_factory=list)
    pending: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    reading: set[int] = field(default_factory=set)

    def start_copy(self, slot: int, destination: Tensor, source: Tensor) -> None:
        assert slot not in self.reading, f"slot {slot} is overwritten while compute reads it"
        self._land(slot)
        self.log.append(("copy", slot))
        self.pending[slot] = (destination, source)

    def wait_landed(self, slot: int) -> None:
        self._land(slot)
        self.log.append(("wait", slot))
        self.reading.add(slot)

    def mark_free(self, slot: int) -> None:
        self.log.append(("free", slot))
        self.reading.discard(slot)

    def drain(self) -> None:
        for slot in list(self.pending):
            self._land(slot)

    def _land(self, slot: int) -> None:
        if slot in self.pending:
            destination, source = self.pending.pop(slot)
            destination.copy_(source)
