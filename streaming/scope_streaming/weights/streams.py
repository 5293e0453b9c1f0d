"""CUDA streams that are used again.

A stream on which matrices were multiplied keeps a workspace of cuBLAS until the process ends, 32 MiB on an H200,
and PyTorch makes a new `Stream` another one of 32 each time: a few loads and unloads would hold a gigabyte for
nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Generic, TypeVar

import torch

Stream = TypeVar("Stream")


class Streams(Generic[Stream]):
    """Thread-safe."""

    def __init__(self, make: Callable[[], Stream]) -> None:
        self._make = make
        self._free: list[Stream] = []
        self._spoiled: list[Stream] = []

    def lend(self, holder: object) -> Stream:
        """One that is lent to nobody else, for as long as `holder` lives. PyTorch has 32 in a pool: after as many
        were made, another part of the program may have the same one, and their work queues up."""
        try:
            stream = self._free.pop()
        except IndexError:
            stream = self._make()
        weakref.finalize(holder, self._take_back, stream).atexit = False
        return stream

    def spoil(self, stream: Stream) -> None:
        """It is not lent again."""
        self._spoiled.append(stream)

    def _take_back(self, stream: Stream) -> None:
        if stream not in self._spoiled:
            self._free.append(stream)


@cache
def streams_of(device: torch.device) -> Streams[torch.cuda.Stream]:
    """The same for every owner in this process, as the workspaces are."""
    return Streams(lambda: torch.cuda.Stream(device))


def own_stream(device: torch.device, holder: object) -> torch.cuda.Stream | None:
    """For as long as `holder` lives. None on the CPU, where work is done when it is asked for; to
    `torch.cuda.stream` that means to change nothing."""
    return streams_of(device).lend(holder) if device.type == "cuda" else None
