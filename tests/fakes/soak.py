"""A show that goes on for long: a camera, prompts, viewers that come and go, and one viewer who watches it all.

    python -m tests.fakes.soak --seconds 1800

prints the table of docs/reliability.md. This process only watches, everything else is a process of its own: the
TLS context that an HTTP client makes takes 40 to 60 ms, and a viewer who made it would see that as a gap. The
machine is observed beside it (`machine`): a gap beside one of its own delays is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import fmean, median

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.machine import STALL_S, Machine, observed_machine
from tests.fakes.network_viewer import ROOT, Seen, Server, Viewer, joined, running_server

HEIGHT, WIDTH, FRAMES = 192, 320, 25
VISITOR_EVERY_S = 5.0
WARM_UP_S = 45.0
REST_S = 55.0
"""What a viewer holds that vanished, as one does that is stopped while it joins, is free again within 50 s."""
WINDOW_S = 10.0
"""Every so often the prompt changes and what was seen is read."""


@dataclass(frozen=True)
class Resources:
    """What the server held at one moment. `at_s` since the beginning."""

    at_s: float
    resident_nbytes: float
    threads: float
    tasks: float
    files: float


@dataclass
class Soak:
    """What was measured. Times in seconds of the event loop's clock; `skews_s` has the median and the worst of ten
    seconds: sound ahead of picture."""

    seconds: float
    begun_s: float = 0.0
    machine: Machine = field(default_factory=Machine)
    gaps_s: list[tuple[float, float]] = field(default_factory=list)
    skews_s: list[tuple[float, float]] = field(default_factory=list)
    idle: list[Resources] = field(default_factory=list)
    busy: list[Resources] = field(default_factory=list)
    frames: int = 0
    missing: int = 0
    prompts: int = 0
    visits: int = 0
    server_stalls: int = 0
    server_stall_s: float = 0.0

    @property
    def largest_gap_s(self) -> float:
        return max(gap for _, gap in self.gaps_s)

    @property
    def largest_skew_s(self) -> float:
        return max(abs(middle) for middle, _ in self.skews_s)

    @property
    def worst_skew_s(self) -> float:
        return max(abs(worst) for _, worst in self.skews_s)

    def memory_growth(self) -> float:
        """Mean of the last third against that of the middle third: the first is warm-up."""
        third = len(self.busy) // 3
        middle, last = self.busy[third : 2 * third], self.busy[2 * third :]
        before = fmean(held.resident_nbytes for held in middle)
        return fmean(held.resident_nbytes for held in last) / before - 1

    def stalls_s(self) -> list[float]:
        """Gaps of more than 150 ms."""
        return [gap for _, gap in self.gaps_s if gap > STALL_S]

    def own_stalls_s(self) -> list[float]:
        """Those beside which a process that only sleeps was woken in time."""
        return self.machine.stalls_of_others(self.gaps_s)

    def table(self) -> str:
        before, after = self.idle[0], self.idle[-1]
        rows = [
            ("duration", f"{self.seconds / 60:.0f} min"),
            ("pictures seen", f"{self.frames}, {self.missing} missing"),
            ("prompt changes, visitors", f"{self.prompts}, {self.visits}"),
            ("skew, largest median of ten seconds", f"{1000 * self.largest_skew_s:.1f} ms"),
            ("skew, worst single reading", f"{1000 * self.worst_skew_s:.1f} ms"),
            ("largest gap between two pictures", f"{1000 * self.largest_gap_s:.0f} ms"),
            (
                "gaps over 150 ms, of them without a delay of the machine's",
                f"{len(self.stalls_s())}, {len(self.own_stalls_s())}",
            ),
            ("stalls the server counted", f"{self.server_stalls}, {self.server_stall_s:.2f} s"),
            ("longest wake-up delay, machine or viewer", f"{1000 * self.machine.largest_delay_s:.0f} ms"),
            ("resident memory, last third against middle third", f"{100 * self.memory_growth():+.2f} %"),
            (
                "resident memory, before and after",
                f"{before.resident_nbytes / 1e6:.0f} MB, {after.resident_nbytes / 1e6:.0f} MB",
            ),
            ("threads, before and after", f"{before.threads:.0f}, {after.threads:.0f}"),
            ("tasks, before and after", f"{before.tasks:.0f}, {after.tasks:.0f}"),
            ("open files, before and after", f"{before.files:.0f}, {after.files:.0f}"),
        ]
        return "\n".join(f"| {name} | {value} |" for name, value in rows)


async def run_soak(seconds: float) -> Soak:
    """Raises AssertionError when a visitor saw nothing or the camera was lost."""
    soak = Soak(seconds)
    options = ("--height", str(HEIGHT), "--width", str(WIDTH), "--frames", str(FRAMES))
    with running_server(*options) as server:
        await _warm(server, soak)
        soak.idle.append(_resources(server.url, server.process.pid, 0.0))
        async with joined(server) as viewer, _camera(server):
            with _visitors(server, soak) as visitors:
                async with observed_machine() as soak.machine:
                    await _show(server, viewer, visitors, soak)
            status = await server.status()
            soak.server_stalls, soak.server_stall_s = status["stalls"], status["stall_s"]
        await asyncio.sleep(REST_S)
        soak.idle.append(_resources(server.url, server.process.pid, seconds))
    return soak


async def _warm(server: Server, soak: Soak) -> None:
    """Until what stays is there, which is no leak: codecs, threads, half a minute of camera pictures, and the room
    that viewers who overlap take up."""
    async with joined(server), _camera(server):
        with _visitors(server, soak, every_s=2.0):
            await asyncio.sleep(WARM_UP_S)
    await asyncio.sleep(REST_S)


async def _show(server: Server, viewer: Viewer, visitors: subprocess.Popen[str], soak: Soak) -> None:
    loop = asyncio.get_running_loop()
    soak.begun_s = begun_s = loop.time()
    elsewhere = ProcessPoolExecutor(1, get_context("spawn"))
    numbers: list[int] = []
    last_s: float | None = None
    try:
        # The sender reports that tell the skew come with the first seconds.
        while (now_s := loop.time() - begun_s) < soak.seconds:
            await asyncio.sleep(min(WINDOW_S, soak.seconds - now_s + 0.01))
            assert visitors.poll() is None, "a visitor has failed"
            seen = viewer.taken()
            for arrived_s, _, number in seen.video:
                if last_s is not None:
                    soak.gaps_s.append((arrived_s, arrived_s - last_s))
                last_s = arrived_s
                numbers.append(number)
            asked = (server.url, server.process.pid, f"scene {soak.prompts}", loop.time() - begun_s, seen)
            offsets, held = await loop.run_in_executor(elsewhere, _look, *asked)
            soak.prompts += 1
            soak.busy.append(held)
            if offsets:
                soak.skews_s.append((median(offsets), max(offsets, key=abs)))
    finally:
        elsewhere.shutdown()
    soak.frames = len(numbers)
    soak.missing = numbers[-1] - numbers[0] + 1 - len(set(numbers))


def _look(url: str, pid: int, prompt: str, at_s: float, seen: Seen) -> tuple[list[float], Resources]:
    """Once in a window: another prompt, the skews that were seen, and what the server holds."""
    answer = httpx.post(f"{url.rstrip('/')}/api/prompt", json={"prompt": prompt})
    assert answer.status_code == 200, answer.text
    return seen.lip_sync_s(), _resources(url, pid, at_s)


def _resources(url: str, pid: int, at_s: float) -> Resources:
    text = httpx.get(f"{url.rstrip('/')}/metrics").text
    found = {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    process = psutil.Process(pid)
    tasks = found["scope_ltx_tasks"]
    files = _least_files(process)
    return Resources(at_s, process.memory_info().rss, process.num_threads(), tasks, files)


def _least_files(process: psutil.Process, looks: int = 10, every_s: float = 0.05) -> int:
    """The server closes the connection over which it was asked for its metrics a moment after its answer: a single
    look counts it or not. What leaks stays."""
    found = []
    for _ in range(looks):
        found.append(process.num_fds())
        time.sleep(every_s)
    return min(found)


@asynccontextmanager
async def _camera(server: Server) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "tests.fakes.camera_sender", f"{server.url.rstrip('/')}/whip"]
    sender = await asyncio.create_subprocess_exec(*command, "--size", f"{HEIGHT}x{WIDTH}", cwd=ROOT)
    try:
        yield
        assert sender.returncode is None, "the camera was lost"
    finally:
        with suppress(ProcessLookupError):
            sender.terminate()
        await sender.wait()


@contextmanager
def _visitors(server: Server, soak: Soak, every_s: float = VISITOR_EVERY_S) -> Iterator[subprocess.Popen[str]]:
    """Each visit is a short line, of which a pipe holds those of a day."""
    command = [sys.executable, "-m", "tests.fakes.visitors", server.url, "--every", str(every_s)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            assert process.stdout is not None
            soak.visits = len(process.stdout.readlines())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    soak = asyncio.run(run_soak(parser.parse_args().seconds))
    sys.stdout.write(soak.table() + "\n")
    held = " ".join(f"{each.resident_nbytes / 1e6:.1f}" for each in soak.busy)
    sys.stdout.write(f"resident MB every {WINDOW_S:g} s: {held}\n")
    for at_s, gap_s in soak.gaps_s:
        if gap_s > STALL_S:
            late_ms = 1000 * soak.machine.late_at(at_s)
            after_s = at_s - soak.begun_s
            sys.stdout.write(f"gap of {1000 * gap_s:.0f} ms at {after_s:.1f} s, machine {late_ms:.0f} ms late\n")


if __name__ == "__main__":
    main()
