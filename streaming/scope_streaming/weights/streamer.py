"""One model's blocks behind plain iteration: `for run in walk: for index, block in run: x = block(x)`.

A run is a stretch of neighbouring blocks that are all on the device, or one block that is streamed: nothing
has to be waited for inside it, so its kernels can be launched as one graph.

Binding happens once. A resident block's tensors are views of a device buffer of its own; a streamed block's
are views of its slot, so every block has fixed addresses and can be captured in a CUDA graph. Iterating only
orders copies against compute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from scope_streaming.weights.backend import run_ahead
from scope_streaming.weights.filling import AHEAD, filled
from scope_streaming.weights.host import HostMemory, PinningError
from scope_streaming.weights.layout import BlockLayout, bind, block_tensors, layout_of, views
from scope_streaming.weights.plan import ResidencyPlan
from scope_streaming.weights.ring import SlotRing

logger = logging.getLogger(__name__)

Fill = Callable[[int, dict[str, Tensor]], None]
"""Writes the values of block `index` into the given tensors: from a file, or from another module. Several blocks
are filled side by side."""


Run = Sequence[tuple[int, Any]]
"""Consecutive blocks with their indices."""

RUN_BLOCKS = 4
"""Longest run on a device that captures graphs. One for a whole model would save nothing more, and a cancelled
chunk is abandoned between runs."""


class BlockWalk(Protocol):
    def __iter__(self) -> Iterator[Run]:
        """All blocks once, in order; a run's blocks are usable until the next run is asked for."""


class ResidentWalk:
    """Blocks that are where they are used."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self._runs = runs(len(blocks), frozenset())
        self._blocks = list(blocks)

    def __iter__(self) -> Iterator[Run]:
        for run in self._runs:
            yield [(index, self._blocks[index]) for index in run]


class NoWalk:
    """Stands for blocks that have no place: a walk over nothing would leave the noise as it is."""

    def __iter__(self) -> Iterator[Run]:
        raise RuntimeError("the model's blocks have no place on the device")


def runs(count: int, alone: frozenset[int], longest: int = RUN_BLOCKS) -> list[range]:
    """Blocks 0...count-1 cut into runs of at most `longest`; the blocks of `alone` are runs of their own."""
    cut: list[range] = []
    start = 0
    for index in range(count):
        if index in alone or index - start == longest:
            if start < index:
                cut.append(range(start, index))
            start = index
        if index in alone:
            cut.append(range(index, index + 1))
            start = index + 1
    if start < count:
        cut.append(range(start, count))
    return cut


class BlockStreamer:
    """Owns where the weights of `blocks` are. A context manager: leaving frees device and page-locked memory.

    `fill(index, tensors)` supplies the values of a block, on the host; it is called once per block while this
    is made, and `refill` writes some of them again later. Resident blocks pass through a few page-locked buffers:
    the host never holds more than what is streamed and those. The blocks may be on `meta`.
    Belongs to the thread that launches compute.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        fill: Fill,
        plan: ResidencyPlan,
        ring: SlotRing | None,
        host: HostMemory,
        device: torch.device,
        cyclic: bool = True,
    ) -> None:
        """`cyclic`: the walk is followed by another, so the last blocks prefetch the first again.

        Raises ValueError for a plan or ring of another size, PinningError, and what `fill` raises; the blocks are
        on `meta` then, and what was locked for streamed ones is unlocked.
        """
        if plan.streamed and (ring is None or ring.slots < plan.slots):
            raise ValueError(f"the plan streams through {plan.slots} slots: a ring with as many is needed")
        self._blocks = list(blocks)
        self._plan = plan
        self._ring = ring
        self._host = host
        self._device = device
        self._cyclic = cyclic
        self._in_use: set[int] = set()
        self._sources: dict[int, Tensor] = {}
        self._place = {block: place for place, block in enumerate(plan.streamed)}
        # Where nothing is captured, a run has no use.
        self._runs = runs(len(self._blocks), frozenset(plan.streamed), 1 if device.type == "cpu" else RUN_BLOCKS)
        self._ahead = run_ahead(device)
        layouts = [layout_of(block_tensors(block)) for block in self._blocks]
        self._check(layouts)
        try:
            self._load(layouts, fill)
        except BaseException:
            self.close()
            raise

    @property
    def plan(self) -> ResidencyPlan:
        return self._plan

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Run]:
        """Stopping early is safe: what was used is released."""
        for run in self._runs:
            self.acquire(run[0])
            try:
                yield [(index, self._blocks[index]) for index in run]
            finally:
                self.release(run[0])
            self._ahead.queued()

    def acquire(self, index: int) -> None:
        """Compute queued from now on may use block `index`."""
        self._in_use.add(index)
        place = self._place.get(index)
        if place is not None and self._ring is not None:
            self._ring.acquire(place % self._plan.slots, self._key(index), self._sources[index])

    def release(self, index: int) -> None:
        """Compute on block `index` is queued: its slot goes to the block that needs it next, in a cycle."""
        self._in_use.discard(index)
        place = self._place.get(index)
        if place is None or self._ring is None:
            return
        slot = place % self._plan.slots
        self._ring.release(slot)
        following = self._next_in_slot(place)
        if following > place or self._cyclic:
            block = self._plan.streamed[following]
            self._ring.fetch(slot, self._key(block), self._sources[block])

    def prefetch(self) -> None:
        """Start the copies of the first streamed blocks, so that a walk does not begin by waiting."""
        if self._ring is not None:
            for slot, block in enumerate(self._plan.streamed[: self._plan.slots]):
                self._ring.fetch(slot, self._key(block), self._sources[block])

    def refill(self, names: Mapping[int, Collection[str]], fill: Fill) -> None:
        """Write the named tensors of some blocks again, where they are: no address changes, so what was captured
        or compiled stays valid. `fill` is given these tensors alone.

        Between walks only. Copies under way are waited for, and slots that hold a block as it was get it anew
        when it is next used. After an error any of the named tensors may be old, new or neither: write them again.

        Raises RuntimeError while a block is in use, KeyError for a name that the block does not have, and what
        `fill` raises.
        """
        if self._in_use:
            used = ", ".join(map(str, sorted(self._in_use)))
            raise RuntimeError(f"weights are written between walks, and block {used} is in use")
        # Other threads fill: what is handed to them must be writable outside of inference mode too.
        with torch.inference_mode(False):
            self._write(names, fill)

    def close(self) -> None:
        """Wait for copies under way; unlock host memory; leave the blocks on `meta`."""
        if self._ring is not None:
            self._ring.drain()
            for index in self._sources:
                self._ring.forget(self._key(index))
        for block in self._blocks:
            bind(block, {name: tensor.to("meta") for name, tensor in block_tensors(block).items()})
        for source in self._sources.values():
            self._host.release(source)
        self._sources.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_in_slot(self, place: int) -> int:
        """The streamed place that uses this slot next: `slots` further, or the slot's first again.

        Counting on modulo the number of streamed blocks would change slots where that number is odd.
        """
        following = place + self._plan.slots
        return following if following < len(self._plan.streamed) else place % self._plan.slots

    def _key(self, index: int) -> tuple[int, int]:
        return (id(self), index)

    def _check(self, layouts: list[BlockLayout]) -> None:
        planned = self._plan.block_nbytes
        found = tuple(layout.nbytes for layout in layouts)
        if planned != found:
            raise ValueError(f"the plan is for blocks of {planned[:3]}... bytes, these have {found[:3]}...")

    def _write(self, names: Mapping[int, Collection[str]], fill: Fill) -> None:
        homes = {index: self._homes(index, wanted) for index, wanted in names.items() if wanted}
        if self._ring is not None:
            # A copy that is under way reads what is written here; compute reads the slots, which stay.
            self._ring.drain()
            for index in homes:
                self._ring.forget(self._key(index))
        with self._staging(homes) as staged:
            targets = ((index, staged(index)) for index in homes)
            for index, tensors in filled(targets, fill):
                if tensors is not homes[index]:
                    for name, tensor in homes[index].items():
                        tensor.copy_(tensors[name])

    def _homes(self, index: int, names: Collection[str]) -> dict[str, Tensor]:
        """The tensors of a block where their values are kept: of a streamed one on the host."""
        tensors = block_tensors(self._blocks[index])
        if index in self._place:
            tensors = views(self._sources[index], layout_of(tensors))
        return {name: tensors[name].detach() for name in names}

    @contextmanager
    def _staging(self, homes: Mapping[int, dict[str, Tensor]]) -> Iterator[Callable[[int], dict[str, Tensor]]]:
        """Gives the tensors to fill for a block: its homes where they are on the host, else others that are."""
        away = [] if self._device.type == "cpu" else [index for index in homes if index not in self._place]
        layouts = {index: layout_of(homes[index]) for index in away}
        turns = {index: turn for turn, index in enumerate(away)}
        buffers: list[Tensor] = []

        def staged(index: int) -> dict[str, Tensor]:
            if index not in turns:
                return homes[index]
            # No more than AHEAD blocks are being filled at a time, so the one that many turns before is done.
            if turns[index] < AHEAD:
                buffers.append(self._staging_buffer(max(layout.nbytes for layout in layouts.values())))
            return views(buffers[turns[index] % AHEAD], layouts[index])

        try:
            yield staged
        finally:
            for buffer in buffers:
                self._host.release(buffer)

    def _staging_buffer(self, nbytes: int) -> Tensor:
        buffer = self._host.allocate(nbytes)
        try:
            self._host.lock(buffer)
        except PinningError as error:
            logger.warning("weights are written through pageable memory, which is slower: %s", error)
        return buffer

    def _load(self, layouts: list[BlockLayout], fill: Fill) -> None:
        device = self._device
        spare: list[Tensor] = []
        buffers = ((index, self._buffer_for(index, layouts, device, spare)) for index in range(len(layouts)))
        for index, buffer in filled(buffers, lambda i, buffer: fill(i, views(buffer, layouts[i]))):
            home = buffer
            if index in self._place:
                assert self._ring is not None
                self._host.lock(buffer)
                self._sources[index] = buffer
                home = self._ring.buffer(self._place[index] % self._plan.slots)
            elif device.type != "cpu":
                home = buffer[: layouts[index].nbytes].to(device)
                spare.append(buffer)
            bind(self._blocks[index], views(home, layouts[index]))
        for buffer in spare:
            self._host.release(buffer)

    def _buffer_for(
        self, index: int, layouts: list[BlockLayout], device: torch.device, spare: list[Tensor]
    ) -> Tensor:
        """Host memory to fill: the streamed block's own, or one that takes resident blocks to their device."""
        if index in self._place:
            return self._host.allocate(layouts[index].nbytes)
        if device.type == "cpu":
            return torch.empty(layouts[index].nbytes, dtype=torch.uint8)
        if spare:
            return spare.pop()
        buffer = self._host.allocate(max(layouts[index].nbytes for index in self._plan.resident))
        self._host.lock(buffer)
        return buffer
