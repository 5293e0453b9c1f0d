"""What a viewer's late picture is blamed on: the tests that watch on the network stand on it."""

from __future__ import annotations

import asyncio
import os
import time

import psutil
import pytest

from tests.fakes.machine import Machine, observed_machine
from tests.fakes.network_viewer import Seen, SenderClock
from tests.fakes.sleepers import MOST_PROCESSORS

ARRIVALS_S = [100.0, 100.04, 100.24, 100.28, 103.0, 103.04, 103.6]
GAPS_MS = {200, 2720, 560}


def blamed_ms(machine: Machine, over_s: float = 0.15, since_s: float = 0.0) -> set[int]:
    seen = Seen(SenderClock(), [(at_s, 0, 0) for at_s in ARRIVALS_S])
    return {round(1000 * gap_s) for gap_s in seen.stalls_s(machine, over_s, since_s)}


def test_on_a_machine_in_time_every_gap_is_the_servers() -> None:
    assert blamed_ms(Machine()) == GAPS_MS
    assert blamed_ms(Machine([(100.2, 0.049)])) == GAPS_MS
    assert blamed_ms(Machine(), over_s=0.4) == GAPS_MS - {200}
    assert blamed_ms(Machine(), since_s=103.0) == {560}


def test_a_gap_beside_a_delay_is_the_machines_and_no_other_is() -> None:
    assert blamed_ms(Machine([(100.1, 0.2)])) == GAPS_MS - {200}
    assert blamed_ms(Machine([(102.7, 0.05)])) == GAPS_MS - {2720, 560}
    assert blamed_ms(Machine([(100.1, 0.02), (100.2, 0.02), (100.3, 0.015)])) == GAPS_MS - {200}
    assert blamed_ms(Machine([(90.0, 5.0)])) == GAPS_MS


async def test_what_held_up_a_process_that_sleeps_is_written_down() -> None:
    before = set(psutil.Process().children())
    async with observed_machine() as machine:
        (sleeper,) = set(psutil.Process().children()) - before
        stopped_s = asyncio.get_running_loop().time()
        sleeper.suspend()
        await asyncio.sleep(0.2)
        sleeper.resume()
    assert machine.excuses(stopped_s)
    assert machine.largest_delay_s > 0.1
    assert not sleeper.is_running()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be bound to processors here")
async def test_every_processor_has_a_sleeper_of_its_own() -> None:
    """A host takes them away one by one."""
    before = set(psutil.Process().children())
    async with observed_machine():
        (sleeper,) = set(psutil.Process().children()) - before
        bound = [os.sched_getaffinity(thread.id) for thread in sleeper.threads()]
    for processor in sorted(os.sched_getaffinity(0))[:MOST_PROCESSORS]:
        assert {processor} in bound


async def test_what_held_up_the_loop_that_looks_is_written_down() -> None:
    async with observed_machine() as machine:
        await asyncio.sleep(0.05)
        held_s = asyncio.get_running_loop().time()
        time.sleep(0.2)  # noqa: ASYNC251 - it is what the test is about
        await asyncio.sleep(0.05)
    assert machine.excuses(held_s)
    assert machine.largest_delay_s > 0.1
