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

STALL_S = 0.150
MACHINE_LATE_S = 0.05
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
        """The longest delay around then."""
        return max((late for when, late in self.delays_s if abs(when - at_s) <= within_s), default=0.0)

    def excuses(self, at_s: float) -> bool:
        return self.late_at(at_s) >= MACHINE_LATE_S

    def stalls_of_others(self, gaps_s: Iterable[tuple[float, float]], over_s: float = STALL_S) -> list[float]:
        """Of gaps, as when they ended and how long they were, those of more than `over_s` that are not its own."""
        return [gap for at, gap in gaps_s if gap > over_s and not self.excuses(at)]


@asynccontextmanager
async def observed_machine() -> AsyncIterator[Machine]:
    """The process that sleeps runs beside what is inside. Complete once that is left."""
    child = await asyncio.create_subprocess_exec(sys.executable, str(SLEEPERS), stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    machine = Machine()
    reading = asyncio.create_task(_read(child.stdout, machine))
    try:
        yield machine
    finally:
        # Not killed: it finishes the sleep that it is in, and so writes down a delay that is not over yet.
        child.terminate()
        await child.wait()
        await reading


async def _read(lines: asyncio.StreamReader, machine: Machine) -> None:
    while (line := await lines.readline()).endswith(b"\n"):
        asked_s, late_s = map(float, line.split())
        machine.delays_s.append((asked_s, late_s))
