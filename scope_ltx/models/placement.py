"""Where the model's weights live: which blocks stay on the device, and which pass through the shared slots.

Two walks share one ring of slots: the transformer's blocks, once per denoising step, and everything that a
prompt goes through (Gemma's layers, the text projections, the connectors), once per new prompt. The rest of
the model (embeddings of timesteps, autoencoders, vocoder) is small and stays on the device; Gemma's table of
words, 2 GB of which a prompt needs a few rows, stays in the file's memory map on the host.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from scope_ltx.engine import GIB
from scope_ltx.lora.merging import ReadTensor, tensor_names
from scope_streaming.weights.backend import slot_ring
from scope_streaming.weights.hooks import StreamedForward
from scope_streaming.weights.host import HostMemory
from scope_streaming.weights.layout import block_tensors, layout_of
from scope_streaming.weights.plan import SLOTS, ResidencyPlan, plan_residency
from scope_streaming.weights.streamer import BlockStreamer

logger = logging.getLogger(__name__)

READERS = 8
"""Threads that read one block's tensors from the page cache; one alone reaches a fifth of the memory's speed."""


@dataclass(frozen=True)
class Block:
    """A module on `meta` whose tensors are read when it gets a place.

    path: what layers are called in here, so that LoRAs can change them; None where none can.
    """

    module: nn.Module
    read: ReadTensor
    path: str | None = None

    @property
    def nbytes(self) -> int:
        return layout_of(block_tensors(self.module)).nbytes

    def tensors_of(self, layers: Collection[str]) -> tuple[str, ...]:
        """The tensors that have to be read again when these layers have changed."""
        return () if self.path is None else tensor_names(layers, self.path, block_tensors(self.module))

    def holds(self, layer: str) -> bool:
        """Whether a layer, or a part of its rows, lies in here."""
        return self.path is not None and f"{layer}.".startswith(f"{self.path}.")


class Placement:
    """The places of one model's blocks. `close` gives all of them back and leaves the blocks on `meta`."""

    def __init__(
        self,
        transformer: Sequence[Block],
        text: Sequence[Block],
        device: torch.device,
        plans: tuple[ResidencyPlan, ResidencyPlan],
        host: HostMemory,
    ) -> None:
        """`plans` as `plan_both` makes them. `host` is closed with this. Raises PinningError; then, as after every
        other error, all is given back as by `close`."""
        self.plan, self.text_plan = plans
        self._blocks = (transformer, text)
        self._host = host
        # Not left to the collector: whoever has the error has its frames too, and what they hold counts against
        # the limits that the next attempt meets.
        with ExitStack() as undo, ThreadPoolExecutor(READERS, thread_name_prefix="weights-reader") as pool:
            undo.callback(host.close)
            self._ring = slot_ring(self.plan, device)
            if self._ring is not None:
                undo.callback(self._ring.close)
            streamer = partial(BlockStreamer, ring=self._ring, host=host, device=device)
            modules = [[block.module for block in blocks] for blocks in self._blocks]
            self.walk = streamer(modules[0], partial(_fill, pool, transformer), self.plan)
            undo.callback(self.walk.close)
            self._text = streamer(modules[1], partial(_fill, pool, text), self.text_plan, cyclic=False)
            undo.callback(self._text.close)
            undo.callback(StreamedForward(self._text, modules[1]).close)
            self._parts = undo.pop_all()
        logger.info("%s", self)

    @property
    def pinned_nbytes(self) -> int:
        return self._host.pinned_nbytes

    @property
    def copied_nbytes(self) -> int:
        """Bytes of blocks copied through the slots so far."""
        return 0 if self._ring is None else self._ring.copied_nbytes

    def read_again(self, layers: Collection[str]) -> frozenset[str]:
        """Read the weights of these layers once more, into the places where they are; between chunks only.

        Returns the layers that lie in no block. Raises what reading raises; some are old then and some new, until
        all of them are read again.
        """
        with ThreadPoolExecutor(READERS, thread_name_prefix="weights-reader") as pool:
            for streamer, blocks in zip((self.walk, self._text), self._blocks, strict=True):
                names = {index: block.tensors_of(layers) for index, block in enumerate(blocks)}
                streamer.refill(names, partial(_fill, pool, blocks))
        every = [block for blocks in self._blocks for block in blocks]
        return frozenset(layer for layer in layers if not any(block.holds(layer) for block in every))

    def __str__(self) -> str:
        plan = self.plan
        return (
            f"{len(plan.resident)} of {len(plan.block_nbytes)} transformer blocks on the device "
            f"({plan.resident_nbytes / GIB:.2f} GiB), {len(plan.streamed)} streamed "
            f"({plan.streamed_nbytes / GIB:.2f} GiB a step) through {plan.slots} slots; "
            f"{self.pinned_nbytes / GIB:.2f} GiB of host memory locked"
        )

    def close(self) -> None:
        self._parts.close()


def plan_both(
    transformer: Sequence[int], text: Sequence[int], budget_nbytes: int
) -> tuple[ResidencyPlan, ResidencyPlan]:
    """Plans of the transformer's and the text path's blocks, of these sizes in bytes.

    All stay where everything fits. Otherwise the whole text path is streamed, because it runs once per prompt
    and not once per step, and the transformer gets what is left beside slots that fit both.
    """
    if sum(transformer) + sum(text) <= budget_nbytes:
        return plan_residency(transformer, budget_nbytes), plan_residency(text, budget_nbytes)
    plan = plan_residency(transformer, budget_nbytes, least_slot_nbytes=max(text))
    return plan, ResidencyPlan(tuple(text), tuple(range(len(text))), SLOTS, plan.slot_nbytes)


def _fill(pool: ThreadPoolExecutor, blocks: Sequence[Block], index: int, tensors: dict[str, Tensor]) -> None:
    list(pool.map(blocks[index].read, tensors.keys(), tensors.values()))
