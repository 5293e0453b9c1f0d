"""How far the host may queue kernels ahead of the device.

Graphs are queued in microseconds and run for milliseconds: unbounded, the host would have queued a whole chunk by
the time it is told to give it up, and the device would work through a second of kernels that nobody wants.
"""

from __future__ import annotations

from typing import Protocol

import torch


class RunAhead(Protocol):
    def queued(self) -> None:
        """Another run of blocks is queued. Waits on the host while too many are."""


class Unbounded:
    """For the CPU, where work is done when it is asked for."""

    def queued(self) -> None:
        pass


class OneRunAhead:
    """One run may wait while another runs, so that the device never does. Belongs to the thread that launches."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Blocking: the thread sleeps, and leaves its core to the host's event loop.
        self._done = [torch.cuda.Event(blocking=True) for _ in range(2)]

    def queued(self) -> None:
        before, latest = self._done
        latest.record(torch.cuda.current_stream(self._device))
        before.synchronize()
        self._done = [latest, before]
