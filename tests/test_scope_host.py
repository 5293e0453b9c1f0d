"""The plugin inside a strict fake of the Scope host, in virtual time: what a viewer sees and hears."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from scope_ltx.pipeline import load_pipeline
from scope_ltx.request import Chunk, ChunkRequest
from tests.fakes.scope_host import Pixels, Wire
from tests.fakes.scope_play import SMALL, assert_in_sync, heard_share, numbers, playing
from tests.fakes.scope_time import (
    VirtualTime,
    longest_gap_s,
)

# as fast as it plays, or faster


@pytest.mark.parametrize("frames", [129, 25])
@pytest.mark.parametrize("speed", [1.0, 2.0, math.inf])
def test_twenty_seconds(speed: float, frames: int) -> None:
    time = VirtualTime(speed)
    time.host.load(**SMALL, num_frames=frames)
    session = playing(time)
    assert session.wire.shown[0][0] - time.generator.finished_s[0] < 0.1
    time.run(20)
    wire = session.wire
    assert numbers(wire) == list(range(len(wire.shown))), "every picture, once, in order"
    assert len(wire.shown) >= 0.99 * 20 * 24
    assert longest_gap_s(wire) <= 0.07
    assert_in_sync(wire)
    assert heard_share(wire) >= 0.99
    assert time.host.pipeline.status.state == "playing"


@pytest.mark.parametrize("frame_rate", [6.0, 12.0, 23.976, 25.0, 30.0, 50.0, 60.0, 120.0])
def test_any_frame_rate(frame_rate: float) -> None:
    time = VirtualTime(2.0)
    time.host.load(**SMALL, num_frames=41, frame_rate=frame_rate)
    session = playing(time)
    time.run(5)
    assert numbers(session.wire) == list(range(len(session.wire.shown)))
    assert len(session.wire.shown) >= 0.98 * 5 * frame_rate
    assert longest_gap_s(session.wire) <= 1.2 / frame_rate + 0.01
    assert_in_sync(session.wire, frame_rate)


def test_every_stamp_is_on_the_rtp_clock() -> None:
    time = VirtualTime()
    time.host.load(**SMALL, num_frames=25)
    wire = playing(time).wire
    time.run(2)
    stamps = [stamp for _, stamp, _ in wire.shown]
    assert stamps[0] == 0.0
    assert all(abs(after - before - 1 / 24) < 1e-9 for before, after in pairwise(stamps))


# slower than it plays


@pytest.mark.parametrize(("frames", "stall_s"), [(25, 0.26), (49, 0.51), (129, 1.34)])
def test_slower_than_real_time_stalls_evenly(frames: int, stall_s: float) -> None:
    """At 0.8x every chunk is a quarter of its length late, in picture and in sound."""
    time = VirtualTime(0.8)
    time.host.load(**SMALL, num_frames=frames)
    session = playing(time)
    time.run(20)
    wire = session.wire
    assert numbers(wire) == list(range(len(wire.shown)))
    assert len(wire.shown) >= 0.99 * 0.8 * 20 * 24 - frames * 0.2
    assert_in_sync(wire, share=0.9)
    stalls = [after - before for (before, _, _), (after, _, _) in pairwise(wire.shown) if after - before > 0.07]
    assert len(stalls) >= 20 * 0.8 * 24 // frames - 1
    assert max(abs(stall - 1 / 24 - stall_s) for stall in stalls) <= 0.03
    assert time.host.pipeline.status.underrun_s == pytest.approx(
        sum(stalls) - len(stalls) / 24, abs=0.01 * len(stalls)
    )


def test_after_a_stall_it_goes_on_without_one() -> None:
    time = VirtualTime(0.5)
    time.host.load(**SMALL, num_frames=25)
    session = playing(time)
    time.run(5)
    time.generator.speed = 4.0
    time.run(3)
    steady_s = time.clock.now()
    time.run(5)
    late = Wire([one for one in session.wire.shown if one[0] >= steady_s], session.wire.heard)
    assert longest_gap_s(late) <= 0.07
    assert_in_sync(late)


# with a model


@pytest.mark.parametrize("speed", [1.0, 0.8])
def test_twenty_seconds_of_the_small_model(speed: float, small_model_dir: Path) -> None:
    """Two chunks of it in turn, with their numbers written over the first pixel and every sample."""
    pipeline = load_pipeline(small_model_dir, "cpu")
    made: list[Chunk] = []

    def content(request: ChunkRequest) -> tuple[Pixels, npt.NDArray[np.float32]]:
        if len(made) < 2:
            made.append(pipeline.generate(request))
            assert made[-1].frames.std() > 0
        made.reverse()
        return made[0].frames.copy(), made[0].samples.copy()

    time = VirtualTime(speed, content)
    time.host.load(height=64, width=64, num_frames=121, num_steps=1, schedule="linear")
    session = playing(time)
    assert session.wire.shown[0][0] - time.generator.finished_s[0] < 0.1
    time.run(20)
    wire = session.wire
    assert numbers(wire) == list(range(len(wire.shown)))
    assert len(wire.shown) >= 0.99 * 20 * 24 * speed - 24
    assert_in_sync(wire)
    if speed == 1.0:
        assert len(wire.shown) >= 0.99 * 20 * 24
        assert longest_gap_s(wire) <= 0.07
    session.close()
    time.host.unload()
    pipeline.close()
