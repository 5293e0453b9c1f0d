"""Streaming against keeping everything resident, with copies that land as late as they may."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from scope_streaming.weights.engine import CpuCopyEngine
from scope_streaming.weights.filling import filled
from scope_streaming.weights.host import HostMemory, PinningError, pageable_memory
from scope_streaming.weights.layout import ALIGNMENT, block_tensors, layout_of, views
from scope_streaming.weights.plan import SLOTS, ResidencyPlan, plan_residency
from scope_streaming.weights.ring import SlotRing
from scope_streaming.weights.streamer import RUN_BLOCKS, BlockStreamer, BlockWalk, ResidentWalk, runs
from tests.fakes.copies import RecordingEngine

CPU = torch.device("cpu")


class Block(nn.Module):
    """A layer with what real blocks have: odd sizes, a scalar, a table, a low-precision buffer."""

    def __init__(self, seed: int, width: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Linear(7, 7)
        for parameter in self.linear.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.extra = nn.Parameter(torch.randn(width, generator=generator), requires_grad=False)
        self.register_buffer("scale", torch.tensor(0.5 + seed))
        self.register_buffer("low", torch.randn(3, generator=generator).to(torch.float8_e4m3fn))

    def forward(self, x: Tensor) -> Tensor:
        scale, low = self.get_buffer("scale"), self.get_buffer("low")
        return self.linear(x) * scale + self.extra.sum() + low.float().sum()


def blocks_of(widths: list[int]) -> list[Block]:
    return [Block(seed, width).requires_grad_(False) for seed, width in enumerate(widths)]


def sizes_of(blocks: list[Block]) -> list[int]:
    return [layout_of(block_tensors(block)).nbytes for block in blocks]


def streamer_of(
    blocks: list[Block], plan: ResidencyPlan, engine: RecordingEngine | CpuCopyEngine
) -> BlockStreamer:
    values = [{name: tensor.clone() for name, tensor in block_tensors(block).items()} for block in blocks]

    def fill(index: int, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            tensor.copy_(values[index][name])

    ring = SlotRing(plan.slots, plan.slot_nbytes, CPU, engine) if plan.streamed else None
    return BlockStreamer(blocks, fill, plan, ring, pageable_memory(), CPU)


def walk(walk_over: BlockWalk, x: Tensor) -> Tensor:
    for run in walk_over:
        for _, block in run:
            x = torch.tanh(block(x))
    return x


def test_a_block_is_packed_at_aligned_places_and_read_back_as_it_was() -> None:
    tensors = block_tensors(Block(3))
    layout = layout_of(tensors)
    assert all(place.offset % ALIGNMENT == 0 for place in layout.places)
    buffer = torch.empty(layout.nbytes, dtype=torch.uint8)
    for name, view in views(buffer, layout).items():
        view.copy_(tensors[name])
    for name, view in views(buffer, layout).items():
        assert view.dtype == tensors[name].dtype
        assert torch.equal(view.float(), tensors[name].float())


def test_a_buffer_too_small_for_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a 1-D uint8 buffer"):
        views(torch.empty(10, dtype=torch.uint8), layout_of(block_tensors(Block(0))))


@given(
    st.lists(st.sampled_from([5, 90, 400]), min_size=1, max_size=9),
    st.floats(0, 1.2),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_streamed_equals_resident_bit_for_bit_whatever_was_abandoned(
    widths: list[int], share: float, stops: list[int]
) -> None:
    resident, streamed = blocks_of(widths), blocks_of(widths)
    sizes = sizes_of(resident)
    plan = plan_residency(sizes, max(SLOTS * max(sizes), int(share * sum(sizes))))
    engine = RecordingEngine()
    x = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), streamer_of(streamed, plan, engine) as streamer:
        streamer.prefetch()
        for stop in stops:
            for run in streamer:
                if stop in [index for index, _ in run]:
                    break
                run[0][1](x)
            assert torch.equal(walk(streamer, x), walk(ResidentWalk(resident), x))
        assert not engine.reading


def test_steady_state_copies_each_streamed_block_once_and_ahead_of_its_use() -> None:
    blocks = blocks_of([5] * 8)
    sizes = sizes_of(blocks)
    plan = plan_residency(sizes, 6 * sizes[0])
    engine = RecordingEngine()
    with streamer_of(blocks, plan, engine) as streamer:
        streamer.prefetch()
        for _ in range(3):
            list(streamer)
        engine.log.clear()
        list(streamer)
    copies = [slot for what, slot in engine.log if what == "copy"]
    assert len(copies) == len(plan.streamed) == 4
    # Each wait finds its copy already queued: the copy for the next round follows `free` at once.
    assert engine.log == [(what, slot) for slot in (0, 1, 0, 1) for what in ("wait", "free", "copy")]


def test_an_exception_inside_a_block_leaves_the_streamer_usable() -> None:
    blocks = blocks_of([5] * 6)
    reference = blocks_of([5] * 6)
    plan = plan_residency(sizes_of(blocks), 4 * sizes_of(blocks)[0])
    engine = RecordingEngine()
    x = torch.ones(1, 7)
    with torch.inference_mode(), streamer_of(blocks, plan, engine) as streamer:
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            walk(streamer, torch.ones(1, 3))
        assert torch.equal(walk(streamer, x), walk(ResidentWalk(reference), x))


def test_two_models_share_one_ring() -> None:
    first, second = blocks_of([5] * 4), blocks_of([400] * 3)
    sizes = [*sizes_of(first), *sizes_of(second)]
    engine = RecordingEngine()
    ring = SlotRing(SLOTS, max(sizes), CPU, engine)
    all_streamed = [
        ResidencyPlan(tuple(sizes_of(m)), tuple(range(len(m))), SLOTS, max(sizes)) for m in (first, second)
    ]

    def fill_from(values: list[dict[str, Tensor]]):  # type: ignore[no-untyped-def]
        return lambda index, tensors: [tensors[name].copy_(values[index][name]) for name in tensors]

    streamers = []
    for model, plan in zip((first, second), all_streamed, strict=True):
        values = [{n: t.clone() for n, t in block_tensors(block).items()} for block in model]
        streamers.append(BlockStreamer(model, fill_from(values), plan, ring, pageable_memory(), CPU))
    x = torch.ones(1, 7)
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(walk(streamers[0], x), walk(ResidentWalk(blocks_of([5] * 4)), x))
            assert torch.equal(walk(streamers[1], x), walk(ResidentWalk(blocks_of([400] * 3)), x))


def test_closing_frees_the_blocks_and_unlocks_host_memory() -> None:
    locked: set[int] = set()
    memory = HostMemory(lambda address, nbytes: locked.add(address), locked.remove)
    blocks = blocks_of([5] * 4)
    plan = plan_residency(sizes_of(blocks), 2 * sizes_of(blocks)[0])
    ring = SlotRing(plan.slots, plan.slot_nbytes, CPU, CpuCopyEngine())
    streamer = BlockStreamer(blocks, lambda index, tensors: None, plan, ring, memory, CPU)
    assert len(locked) == 4
    assert memory.pinned_nbytes == sum(sizes_of(blocks))
    streamer.close()
    assert not locked
    assert all(tensor.is_meta for block in blocks for tensor in block_tensors(block).values())


def test_host_memory_that_is_dropped_unlocks_before_its_buffers_can_be_used_again() -> None:
    locked: set[int] = set()
    memory = HostMemory(lambda address, nbytes: locked.add(address), locked.remove)
    buffer = memory.allocate(100)
    assert not locked
    memory.lock(buffer)
    assert locked == {buffer.data_ptr()}
    alive = weakref.ref(buffer)
    del buffer
    assert alive() is not None, "a locked address must not be given back to the system"
    del memory
    gc.collect()
    assert not locked
    assert alive() is None


def test_failing_to_lock_memory_names_the_limit() -> None:
    def refuse(address: int, nbytes: int) -> None:
        raise RuntimeError("out of memory")

    memory = HostMemory(refuse, lambda address: None)
    with pytest.raises(PinningError, match=r"could not page-lock 1 MiB.*ulimit -l"):
        memory.lock(memory.allocate(2**20))
    assert memory.pinned_nbytes == 0


def test_locked_memory_is_counted_while_another_thread_locks_more() -> None:
    memory = HostMemory(lambda address, nbytes: None, lambda address: None)
    first, second = memory.allocate(100), memory.allocate(20)

    class Counted(Tensor):
        counting = False

        def numel(self) -> int:
            if self.counting:
                memory.lock(second)  # as another thread would, between two buffers
            return 100

    memory.lock(first.as_subclass(Counted))
    Counted.counting = True
    assert memory.pinned_nbytes == 100
    assert memory.pinned_nbytes == 120


@given(st.integers(0, 20), st.integers(1, 6))
def test_buffers_come_filled_and_in_order_and_never_more_than_so_many_at_a_time(count: int, ahead: int) -> None:
    held: list[int] = []

    def buffers() -> Iterator[tuple[int, list[int]]]:
        for index in range(count):
            held.append(index)
            assert len(held) <= ahead
            yield index, []

    def fill(index: int, buffer: list[int]) -> None:
        buffer.append(index)

    done = []
    for index, buffer in filled(buffers(), fill, ahead):
        held.remove(index)
        done.append((index, buffer))
    assert done == [(index, [index]) for index in range(count)]


def test_a_block_that_cannot_be_read_ends_the_filling() -> None:
    def fill(index: int, buffer: None) -> None:
        if index == 3:
            raise OSError("disk error")

    reading = filled(((index, None) for index in range(9)), fill)
    assert [next(reading)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk error"):
        next(reading)


Wish = tuple[str, int, int]
"""What happens, to which block, with which values."""

NAMES = ("linear.weight", "linear.bias", "extra", "scale", "low")
WISHES = st.tuples(
    st.sampled_from(["walk", "abandon", "prefetch", "refill"]), st.integers(0, 8), st.integers(0, 31)
)


def drawn(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensors[name].shape, generator=generator).to(tensors[name].dtype) for name in tensors
    }


@given(
    st.lists(st.sampled_from([5, 90, 400]), min_size=1, max_size=9),
    st.floats(0, 1.2),
    st.lists(WISHES, min_size=1, max_size=12),
)
def test_refilled_blocks_hold_the_new_values_at_the_old_addresses(
    widths: list[int], share: float, wishes: list[Wish]
) -> None:
    resident, streamed = blocks_of(widths), blocks_of(widths)
    sizes = sizes_of(resident)
    plan = plan_residency(sizes, max(SLOTS * max(sizes), int(share * sum(sizes))))
    engine = RecordingEngine()
    x = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))

    def refill(streamer: BlockStreamer, first: int, seed: int) -> None:
        """Block `first` and the one after the next; the bits of the seed say which of their tensors."""
        wanted = [name for bit, name in enumerate(NAMES) if seed >> bit & 1]
        names = {index: wanted for index in (first, first + 2) if index < len(widths)}

        def fill(index: int, tensors: dict[str, Tensor]) -> None:
            assert not engine.pending, "a copy reads what is being written"
            assert sorted(tensors) == sorted(wanted)
            for name, value in drawn(tensors, seed + index).items():
                tensors[name].copy_(value)

        streamer.refill(names, fill)
        for index in names:
            tensors = {name: block_tensors(resident[index])[name] for name in wanted}
            for name, value in drawn(tensors, seed + index).items():
                tensors[name].detach().copy_(value)

    with streamer_of(streamed, plan, engine) as streamer, torch.inference_mode():
        addresses = [tensor.data_ptr() for block in streamed for tensor in block_tensors(block).values()]
        for what, first, seed in wishes:
            if what == "refill":
                refill(streamer, first, seed)
            elif what == "prefetch":
                streamer.prefetch()
            elif what == "walk":
                assert torch.equal(walk(streamer, x), walk(ResidentWalk(resident), x))
            else:
                for run in streamer:
                    run[0][1](x)
                    if first in [index for index, _ in run]:
                        break
        assert torch.equal(walk(streamer, x), walk(ResidentWalk(resident), x))
        assert addresses == [tensor.data_ptr() for block in streamed for tensor in block_tensors(block).values()]


def test_a_refill_that_fails_can_be_made_good_and_never_happens_inside_a_walk() -> None:
    blocks, reference = blocks_of([5] * 6), blocks_of([5] * 6)
    plan = plan_residency(sizes_of(blocks), 4 * sizes_of(blocks)[0])
    pristine = [{name: tensor.clone() for name, tensor in block_tensors(block).items()} for block in reference]
    x = torch.ones(1, 7)

    def breaks(index: int, tensors: dict[str, Tensor]) -> None:
        tensors["extra"].fill_(9)
        if index == 3:
            raise OSError("disk error")

    def mends(index: int, tensors: dict[str, Tensor]) -> None:
        tensors["extra"].copy_(pristine[index]["extra"])

    names = {index: ["extra"] for index in range(6)}
    with streamer_of(blocks, plan, RecordingEngine()) as streamer, torch.inference_mode():
        with pytest.raises(OSError, match="disk error"):
            streamer.refill(names, breaks)
        assert not torch.equal(walk(streamer, x), walk(ResidentWalk(reference), x))
        streamer.refill(names, mends)
        assert torch.equal(walk(streamer, x), walk(ResidentWalk(reference), x))
        with pytest.raises(KeyError, match="nothing"):
            streamer.refill({0: ["nothing"]}, mends)
        for run in streamer:
            with pytest.raises(RuntimeError, match=f"between walks, and block {run[0][0]} is in use"):
                streamer.refill(names, mends)
        streamer.refill({}, breaks)


def test_a_slot_in_use_is_not_overwritten() -> None:
    ring = SlotRing(2, 16, CPU, CpuCopyEngine())
    source = torch.zeros(16, dtype=torch.uint8)
    ring.acquire(0, "a", source)
    with pytest.raises(RuntimeError, match="slot 0 is in use by a: b cannot"):
        ring.fetch(0, "b", source)


@given(st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_runs_cover_every_block_once_and_leave_streamed_ones_alone(count: int, alone: set[int]) -> None:
    alone = {index for index in alone if index < count}
    cut = runs(count, frozenset(alone))
    assert [index for run in cut for index in run] == list(range(count))
    assert all(len(run) == 1 for run in cut if alone & set(run))
    assert all(1 <= len(run) <= RUN_BLOCKS for run in cut)
