"""Copies from host to device, and the events that order them against compute."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from scope_streaming.weights.streams import streams_of


class CopyEngine(Protocol):
    """One copy queue for a fixed number of slots. Nothing here makes the host wait, except `drain`."""

    def start_copy(self, slot: int, destination: Tensor, source: Tensor) -> None:
        """Queue `source` -> `destination`, after the last `mark_free` of this slot."""

    def wait_landed(self, slot: int) -> None:
        """Work queued on the compute stream from now on sees the slot's latest copy."""

    def mark_free(self, slot: int) -> None:
        """Everything queued on the compute stream so far is the last that reads the slot's present content."""

    def drain(self) -> None:
        """Wait on the host until no copy is under way."""


class CudaCopyEngine:
    """A copy stream of its own. The compute stream is whichever is current when a method is called.

    Waits name *this slot's* event, never the tail of a stream: waiting for the tail would also wait for the
    copies queued behind, and a second slot would gain nothing.
    """

    def __init__(self, device: torch.device, slots: int) -> None:
        self._device = device
        self._stream = streams_of(device).lend(self)
        self._landed = [torch.cuda.Event() for _ in range(slots)]
        self._free = [torch.cuda.Event() for _ in range(slots)]
        for event in self._free:
            # The slots' memory may have been used by what is queued now.
            event.record(torch.cuda.current_stream(device))

    def start_copy(self, slot: int, destination: Tensor, source: Tensor) -> None:
        self._stream.wait_event(self._free[slot])
        with torch.cuda.stream(self._stream):
            destination.copy_(source, non_blocking=True)
        self._landed[slot].record(self._stream)

    def wait_landed(self, slot: int) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._landed[slot])

    def mark_free(self, slot: int) -> None:
        self._free[slot].record(torch.cuda.current_stream(self._device))

    def drain(self) -> None:
        self._stream.synchronize()


class CpuCopyEngine:
    """Synchronous: a copy has landed when `start_copy` returns. The path that the CPU runs and tests read."""

    def start_copy(self, slot: int, destination: Tensor, source: Tensor) -> None:
        destination.copy_(source)

    def wait_landed(self, slot: int) -> None:
        pass

    def mark_free(self, slot: int) -> None:
        pass

    def drain(self) -> None:
        pass
