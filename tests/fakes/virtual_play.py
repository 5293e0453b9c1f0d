"""Segments played to viewers in virtual time: hours in milliseconds, and nothing but the broadcast itself."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import numpy as np

from scope_streaming.media.broadcast import Broadcaster, Subscription, SubscriptionClosedError
from scope_streaming.media.encoder import EncodedPacket, Stream
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import Timeline
from tests.fakes.clock import FakeClock

RATE = Fraction(24)


class Supply:
    """Flat pictures and a quiet hum, one segment after another."""

    def __init__(self, frames: int = 9, size: int = 32) -> None:
        self._timeline = Timeline(48_000)
        self._pixels = np.full((frames, size, size, 3), 90, np.uint8)
        self._made = 0

    def next(self) -> Segment:
        times = self._timeline.advance(len(self._pixels), RATE)
        samples = np.full((2, times.samples), 0.01, np.float32)
        self._made += 1
        return Segment(self._made - 1, self._pixels, samples, times)


async def feed(handoff: Handoff[Segment], supply: Supply, each_takes_s: float) -> None:
    """A generator that needs so long for each segment. Ends when it is cancelled."""
    while True:
        await asyncio.sleep(each_takes_s)
        while len(handoff):  # noqa: ASYNC110 - virtual time: a poll costs nothing
            await asyncio.sleep(0.01)
        assert handoff.reserve()
        handoff.put(supply.next())


class Reader:
    """Reads one stream and writes down when each packet came. `reading` off: it does not take any more."""

    def __init__(self, broadcaster: Broadcaster, stream: Stream, clock: FakeClock) -> None:
        self.subscription: Subscription = broadcaster.subscribe(stream)
        self.seen: list[tuple[float, EncodedPacket]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._clock = clock
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                await self.reading.wait()
                packet = await self.subscription.next()
                self.seen.append((self._clock.now(), packet))
        except SubscriptionClosedError:
            return
