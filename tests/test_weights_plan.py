from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_streaming.weights.plan import BudgetError, plan_residency, spread

MIB = 2**20
FP8, BF16 = 369 * MIB, 738 * MIB
PUBLISHED = [BF16, BF16, *[FP8] * 44, BF16, BF16]
"""The published file keeps about four blocks in bfloat16."""


@pytest.mark.parametrize(
    ("sizes", "budget_mib", "streamed", "slot_mib"),
    [
        ([10 * MIB] * 4, 40, (), 0),
        ([10 * MIB] * 4, 39, (0, 1, 2, 3), 10),
        ([10 * MIB] * 8, 60, (1, 3, 5, 7), 10),
        ([10 * MIB] * 8, 20, tuple(range(8)), 10),
        ([10 * MIB] * 7, 20, tuple(range(7)), 10),
        ([20 * MIB, 10 * MIB, 10 * MIB, 10 * MIB, 10 * MIB, 20 * MIB], 70, (1, 2, 3, 4), 10),
        ([20 * MIB, 10 * MIB, 10 * MIB, 20 * MIB], 40, (0, 1, 2, 3), 20),
    ],
)
def test_split_by_table(sizes: list[int], budget_mib: int, streamed: tuple[int, ...], slot_mib: int) -> None:
    plan = plan_residency(sizes, budget_mib * MIB)
    assert plan.streamed == streamed
    assert plan.slot_nbytes == slot_mib * MIB
    assert plan.device_nbytes <= budget_mib * MIB


def test_large_published_blocks_stay_resident_while_they_can() -> None:
    plan = plan_residency(PUBLISHED, 12 * 2**30)
    assert {0, 1, 46, 47} <= set(plan.resident)
    assert plan.slot_nbytes == FP8


def test_a_hopeless_budget_names_the_least_that_would_do() -> None:
    with pytest.raises(BudgetError, match=r"512\.0 MiB are left.*2 slots of 738\.0 MiB need at least 1\.44 GiB"):
        plan_residency(PUBLISHED, 2**29)
    assert plan_residency(PUBLISHED, 2 * BF16).streamed == tuple(range(48))


@given(
    st.lists(st.sampled_from([FP8, BF16, 100 * MIB]), min_size=1, max_size=60),
    st.integers(0, 40 * 1024),
    st.integers(2, 4),
)
def test_every_plan_fits_and_no_smaller_copy_would(sizes: list[int], budget_mib: int, slots: int) -> None:
    budget = budget_mib * MIB
    try:
        plan = plan_residency(sizes, budget, slots)
    except BudgetError as error:
        assert error.least_nbytes > budget
        assert plan_residency(sizes, error.least_nbytes, slots).device_nbytes <= error.least_nbytes
        return
    assert plan.device_nbytes <= budget
    assert sorted(plan.streamed + plan.resident) == list(range(len(sizes)))
    assert list(plan.streamed) == sorted(set(plan.streamed))
    assert all(sizes[block] <= plan.slot_nbytes for block in plan.streamed)
    assert len(plan.streamed) % slots == 0 if len(plan.streamed) < len(sizes) and plan.streamed else True
    if budget >= sum(sizes):
        assert not plan.streamed


def test_slots_shared_with_another_model_count_even_when_nothing_is_streamed() -> None:
    sizes = [10 * MIB] * 4
    assert plan_residency(sizes, 70 * MIB, least_slot_nbytes=15 * MIB).streamed == ()
    shared = plan_residency(sizes, 69 * MIB, least_slot_nbytes=15 * MIB)
    assert shared.slot_nbytes == 15 * MIB
    assert len(shared.streamed) == 2
    assert shared.device_nbytes == 50 * MIB


@given(st.integers(1, 200), st.data())
def test_streamed_blocks_are_spread_evenly_around_the_cycle(places: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, places))
    chosen = spread(count, places)
    gaps = [(b - a) % places or places for a, b in zip(chosen, chosen[1:] + chosen[:1], strict=True)]
    assert len(set(chosen)) == count
    assert sum(gaps) == places
    assert max(gaps) - min(gaps) <= 1
