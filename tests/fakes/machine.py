"""How late this machine wakes a process that only sleeps: what comes late beside that is its doing.

A gap of more than `STALL_S` between two pictures is one that a viewer sees. On a machine that other work shares,
or whose host takes its processors away for a moment, pictures come late whatever the server does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.sleepers import BEAT_S, LATE_S

STALL_S = 0.150
MACHINE_LATE_S = 0.05
SERVER_LATE_S = 0.2
SLEEPERS = Path(__file__).with_name("sleepers.py")


@dataclass
class Machine:
    """When a sleeping process was to be woken, on the event loop's clock, and how late it was, where that was over
    10 ms: both in seconds."""

    delays_s: list[tuple[float, float]] = field(default_factory=list)

    @property
    def largest_delay_s(self) -> float:
        return max((late for _, late in self.delays_s), default=0.0)

    def late_at(self, at_s: float, within_s: float = 1.0) -> float:
        """All delays around then, together: a processor that is taken away in slices delays each wake-up a little.
        Beside a gap of 140 ms were 23, 16 and 11 ms, on a machine that is otherwise in time for minutes."""
        return sum(late for when, late in self.delays_s if abs(when - at_s) <= within_s)

    def excuses(self, at_s: float) -> bool:
        return self.late_at(at_s) >= MACHINE_LATE_S

    def own_stalls(self, counted: int) -> int:
        """Of the stalls that a server has counted: none where a process that only sleeps was held up as well. It
        counts one when it is itself a quarter of a second late."""
        return 0 if self.largest_delay_s >= SERVER_LATE_S else counted

    def stalls_of_others(self, gaps_s: Iterable[tuple[float, float]], over_s: float = STALL_S) -> list[float]:
        """Of gaps, as when they ended and how long they were, those of more than `over_s` that are not its own."""
        return [gap for at, gap in gaps_s if gap > over_s and not self.excuses(at)]


@asynccontextmanager
async def observed_machine() -> AsyncIterator[Machine]:
    """The process that sleeps runs beside what is inside, and so does a task of this loop: where the loop that
    looks is held up, what it sees comes late to it alone. Complete once that is left."""
    child = await asyncio.create_subprocess_exec(sys.executable, str(SLEEPERS), stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    machine = Machine()
    reading = asyncio.create_task(_read(child.stdout, machine))
    beating = asyncio.create_task(_beat(machine))
    try:
        yield machine
    finally:
        beating.cancel()
        # Not killed: it finishes the sleep that it is in, and so writes down a delay that is not over yet.
        child.terminate()
        await child.wait()
        await reading


async def _read(lines: asyncio.StreamReader, machine: Machine) -> None:
    while (line := await lines.readline()).endswith(b"\n"):
        asked_s, late_s = map(float, line.split())
        machine.delays_s.append((asked_s, late_s))


async def _beat(machine: Machine) -> None:
    """As `sleepers.sleep_on`, for this loop."""
    loop = asyncio.get_running_loop()
    now_s = loop.time()
    while True:
        asked_s = now_s + BEAT_S
        await asyncio.sleep(BEAT_S)
        now_s = loop.time()
        if now_s - asked_s > LATE_S:
            machine.delays_s.append((asked_s, now_s - asked_s))
