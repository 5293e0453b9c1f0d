"""Faults of time, in virtual time: a generator that is too slow, a viewer that stops reading, clocks that jump."""

from __future__ import annotations

import ast
import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scope_streaming.media.broadcast import Broadcaster
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.playout import BLOCK_TICKS
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND
from tests.fakes.clock import FakeClock, InlineExecutor, in_virtual_time
from tests.fakes.virtual_play import Reader, Supply, feed

ROOT = Path(__file__).parents[1]


def test_a_generator_ten_times_too_slow_gives_stalls_and_no_drift() -> None:
    """Half a minute of it: sound never stops, picture and sound move together, the buffer is told to be empty."""
    clock = FakeClock()

    async def scenario() -> tuple[list[int], list[int], Any]:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor())
        sound, picture = Reader(broadcaster, "audio", clock), Reader(broadcaster, "H264", clock)
        playing = asyncio.create_task(broadcaster.run())
        feeding = asyncio.create_task(feed(handoff, Supply(), each_takes_s=3.75))
        await asyncio.sleep(37.5)
        report = broadcaster.report
        feeding.cancel()
        handoff.close()
        await playing
        await asyncio.gather(sound.task, picture.task)
        return [p.ticks for _, p in sound.seen], [p.ticks for _, p in picture.seen], report

    sound, picture, report = in_virtual_time(clock, scenario())
    assert set(np.diff(sound)) == {BLOCK_TICKS}
    # All that was made is shown: of a segment nine frames, every 3.75 s, in its own rhythm.
    assert len(picture) >= 9 * (37.5 / 3.75 - 2)
    gaps = np.diff(picture) / TICKS_PER_SECOND
    assert report.stalls == pytest.approx(37.5 / 3.75, abs=2)
    assert (gaps > 0.1).sum() == pytest.approx(report.stalls, abs=2)
    assert np.median(gaps) == pytest.approx(1 / 24, abs=1e-3)
    assert report.stall_s == pytest.approx(report.stalls * (3.75 - 0.375), rel=0.05)
    assert report.buffer_s < 0.4


def test_a_viewer_that_stops_reading_costs_one_second_of_memory_and_nobody_else() -> None:
    clock = FakeClock()

    async def scenario() -> None:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor())
        other, lazy = Reader(broadcaster, "H264", clock), Reader(broadcaster, "H264", clock)
        playing = asyncio.create_task(broadcaster.run())
        feeding = asyncio.create_task(feed(handoff, Supply(), each_takes_s=0.1))
        await asyncio.sleep(10)
        lazy.reading.clear()
        await asyncio.sleep(10)
        other.seen.clear()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await asyncio.sleep(30)
        gaps = np.diff([at for at, _ in other.seen])
        assert gaps.max() < 0.05
        other.seen.clear()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 2e6
        assert lazy.subscription.skipped > 24 * 30
        lazy.seen.clear()
        lazy.reading.set()
        await asyncio.sleep(0.5)
        _, first = lazy.seen[0]
        assert first.keyframe
        shown_s = max(packet.ticks for _, packet in other.seen) / TICKS_PER_SECOND
        assert shown_s - first.ticks / TICKS_PER_SECOND < 2.0
        feeding.cancel()
        handoff.close()
        await playing
        await asyncio.gather(other.task, lazy.task)

    in_virtual_time(clock, scenario())


@pytest.mark.parametrize("jump_s", [0.2, 3.0, 3600.0])
def test_a_clock_that_jumps_costs_one_stall_and_no_burst(jump_s: float) -> None:
    """As after a laptop's sleep. What was due meanwhile is not made up for: the stream goes on where it was."""
    clock = FakeClock()

    async def scenario() -> tuple[Reader, Reader, Any]:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor())
        sound, picture = Reader(broadcaster, "audio", clock), Reader(broadcaster, "H264", clock)
        playing = asyncio.create_task(broadcaster.run())
        feeding = asyncio.create_task(feed(handoff, Supply(), each_takes_s=0.05))
        await asyncio.sleep(5)
        sound.seen.clear()
        picture.seen.clear()
        clock.advance(jump_s)
        await asyncio.sleep(5)
        report = broadcaster.report
        feeding.cancel()
        handoff.close()
        await playing
        await asyncio.gather(sound.task, picture.task)
        return sound, picture, report

    sound, picture, report = in_virtual_time(clock, scenario())
    # What waits in the mailboxes, at most a quarter of a second late, and five seconds in their rhythm.
    assert 5 / 0.02 - 5 <= len(sound.seen) <= 5.5 / 0.02
    assert 5 * 24 - 3 <= len(picture.seen) <= 5.5 * 24
    arrivals = [at for at, _ in picture.seen]
    assert max(np.diff(arrivals)) < 0.15
    # Lips: both have moved by the same.
    newest = [max(packet.ticks for _, packet in reader.seen) / TICKS_PER_SECOND for reader in (sound, picture)]
    assert abs(newest[0] - newest[1]) < 0.1
    assert report.stalls == (0 if jump_s < 0.25 else 1)
    assert report.stall_s == pytest.approx(0 if jump_s < 0.25 else jump_s, abs=0.3)


WALL_CLOCK = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
}
NAMES_ONLY = {"scope_ltx/hosts/live/recording/recorder.py"}
"""The date is part of a recording's file name, and measures nothing."""


def test_no_date_is_ever_used_to_measure_time() -> None:
    """The machine's date may jump; what paces, times out or measures reads the monotonic clock."""
    found, monotonic = set(), set()
    for folder in ("scope_ltx", "streaming", "quant"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    if (node.value.id, node.attr) in WALL_CLOCK:
                        found.add(name)
                    if node.value.id == "time":
                        monotonic.add((name, node.attr))
    assert found == NAMES_ONLY
    assert ("streaming/scope_streaming/clock.py", "monotonic") in monotonic
