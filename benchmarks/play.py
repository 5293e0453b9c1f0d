"""A stream played to the wall clock: the product's own session, chunk loop and playout, without a network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from scope_ltx.config import LTX2Config
from scope_ltx.request import Generator
from scope_ltx.session import Session
from scope_streaming.clock import SystemClock
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.loop import ChunkLoop
from scope_streaming.media.pacing import PlayoutClock
from scope_streaming.media.playout import BLOCK_TICKS, Playout
from scope_streaming.media.segment import Segment


def play(generator: Generator, config: LTX2Config, seconds: float, prompt: Callable[[int], str]) -> dict[str, Any]:
    """Play for `seconds`, each chunk begun with a new prompt; counts frames that could not be shown when due."""
    clock, never = SystemClock(), threading.Event()
    session = Session(generator, config, prompt(0))
    handoff: Handoff[Segment] = Handoff()
    begun = 0

    def source() -> Future[Segment]:
        nonlocal begun
        session.set_prompt(prompt(begun))
        begun += 1
        return session.begin_segment()

    loop = ChunkLoop(source, handoff, clock, lambda: config.realtime_pacing_slack)
    loop.start()
    times = PlayoutClock()
    playout = Playout(times)
    shown, wrong_prompts, stalls, buffers = 0, 0, [], []
    while not times.started or times.deadline_s(playout.next_ticks) - times.deadline_s(0) < seconds:
        segment = handoff.take(0.0 if times.started else 1.0) if playout.ready_ticks < BLOCK_TICKS else None
        if segment is not None:
            if not times.started:
                times.start(clock.now())
            stall = playout.add(segment)
            stalls += [stall.seconds] if stall else []
            wrong_prompts += session.prompt_of(segment.index) != prompt(segment.index)
        if not times.started:
            continue
        clock.wait(never, times.deadline_s(playout.next_ticks) - clock.now())
        block = playout.next_block(force=True)
        shown += len(block.frames) if block else 0
        buffers.append(len(handoff))
    loop.stop(30.0)
    return {
        "seconds": seconds,
        "chunks": loop.report.segments,
        "frames_shown": shown,
        "frames_due": round(seconds * config.frame_rate),
        "late_frames": round(sum(stalls) * config.frame_rate),
        "stalls_s": [round(stall, 3) for stall in stalls],
        "chunks_with_another_prompt": wrong_prompts,
        "blocks_with_a_whole_chunk_in_reserve": round(sum(buffers) / max(1, len(buffers)), 3),
        "last_error": loop.report.last_error,
    }
