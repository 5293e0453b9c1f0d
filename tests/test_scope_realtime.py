"""The plugin in the fake host with the machine's own clock and threads: 20 s each."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from scope_ltx.hosts.scope.node import Parts, build_pipeline_class
from scope_ltx.hosts.scope.weights import SharedWeights
from scope_ltx.hosts.scope.worker import worker_thread
from scope_ltx.request import Chunk, ChunkRequest, Generator
from scope_streaming.clock import SystemClock
from scope_streaming.media.timeline import exact_frame_rate
from tests.fakes.network_viewer import frozen_garbage
from tests.fakes.scope_api import host_api
from tests.fakes.scope_host import FakeScopeHost
from tests.fakes.scope_time import (
    CountingGenerator,
    VirtualSession,
    blank,
    longest_gap_s,
    number_of,
    skews_s,
)

pytestmark = pytest.mark.network

SECONDS = 20.0


class PacedGenerator:
    """Takes real time for a chunk, and gives it up when asked to."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._clock = SystemClock()
        self._counting = CountingGenerator(self._clock, math.inf, blank)

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        begun_s = self._clock.now()
        chunk = self._counting.submit(request)
        seconds = request.config.num_frames / float(exact_frame_rate(request.config.frame_rate)) / self._speed
        self._clock.wait(request.cancel, seconds - (self._clock.now() - begun_s))
        return chunk

    def close(self) -> None:
        self._counting.close()


@dataclass
class Played:
    session: VirtualSession
    turns_s: list[float]
    late_s: float
    """The longest that the machine let us wait beyond what was asked for."""

    def __str__(self) -> str:
        wire, skews = self.session.wire, skews_s(self.session.wire, 24.0)
        return (
            f"{len(wire.shown)} pictures, longest gap {1000 * longest_gap_s(wire):.0f} ms, skew "
            f"{1000 * min(skews):.0f} to {1000 * max(skews):.0f} ms, longest turn {1000 * max(self.turns_s):.0f}; "
            f"the machine itself was late by up to {1000 * self.late_s:.0f} ms"
        )


def play(generator: Generator, models: Path, **load: object) -> Played:
    """20 s from the first picture."""
    clock = SystemClock()
    parts = Parts(
        clock,
        worker_thread,
        SharedWeights(clock),
        find=lambda model, models_dir: models_dir,
        identity=lambda directory, options: directory,
        load=lambda directory, options, first: generator,
    )
    host = FakeScopeHost(build_pipeline_class(host_api(models), parts))
    host.load(**load)
    session = VirtualSession(host.pipeline, {"prompts": "a cat"}, clock)
    turns_s, late_s, end_s = [], 0.0, clock.now() + 60
    while clock.now() < end_s:
        began_s = clock.now()
        session.turn()
        turns_s.append(clock.now() - began_s)
        if len(session.wire.shown) == 1:
            end_s, late_s = min(end_s, clock.now() + SECONDS), 0.0
        due_s = max(clock.now(), session.next_s)
        time.sleep(max(0.0, due_s - clock.now()))
        late_s = max(late_s, clock.now() - due_s)
    session.close()
    host.unload()
    return Played(session, turns_s, late_s)


@pytest.mark.parametrize("speed", [4.0, 1.1, 0.8])
def test_real_time(speed: float, tmp_path: Path) -> None:
    with frozen_garbage():
        played = play(PacedGenerator(speed), tmp_path, height=192, width=160, num_frames=49)
    logging.getLogger(__name__).warning("%s", played)
    wire = played.session.wire
    shown = [number_of(picture) for _, _, picture in wire.shown]
    assert shown == list(range(len(shown)))
    if played.late_s > 0.02:
        pytest.skip(f"this machine is too busy to tell: {played}")
    assert len(shown) >= 0.99 * SECONDS * 24 * min(1.0, speed) - (10 if speed < 1 else 0), played
    assert max(abs(skew) for skew in skews_s(wire, 24.0)) <= 0.04, played
    assert speed < 1 or longest_gap_s(wire) <= 0.07, played
