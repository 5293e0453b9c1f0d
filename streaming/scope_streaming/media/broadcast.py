"""One stream to many viewers: takes segments, encodes each moment once, and publishes it when it is due.

Two tasks. One composes blocks a fifth of a second ahead and has them encoded on a thread; the other wakes at
absolute deadlines and publishes. A viewer that does not keep up is skipped forward, and never queued for.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from scope_streaming.clock import Clock
from scope_streaming.media.bitrate import PathRate
from scope_streaming.media.encoder import (
    AUDIO_BITRATE,
    AudioEncoder,
    EncodedPacket,
    Stream,
    VideoCodec,
    VideoEncoder,
)
from scope_streaming.media.handoff import Handoff, HandoffClosedError
from scope_streaming.media.pacing import PlayoutClock, Stall
from scope_streaming.media.playout import BLOCK_TICKS, Block, Playout
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND
from scope_streaming.media.video_codecs import Library

logger = logging.getLogger(__name__)

LEAD_S = 0.2
"""How far ahead of its deadline a block is encoded. Covers a held-up encoder thread; small enough that a new
viewer, who waits for a keyframe, starts at once."""
BATCH_S = 0.08
"""Blocks are encoded four at a time: one hop to the thread per 80 ms."""
TAKE_AHEAD_S = 1.0
"""The next segment is taken this long before it is due, which also lets the generator start another."""
FORCE_S = 0.02
"""Missing media are given up this long before the deadline: the time to encode one silent
block, whose sound leaves 6.5 ms early."""
RESYNC_S = 0.25
"""Later than this, presentation skips instead of sending a burst of old packets."""
MAILBOX_TICKS = TICKS_PER_SECOND
"""A viewer more than a second behind is skipped forward."""


class SubscriptionClosedError(Exception):
    """The stream is over for this viewer."""


class Subscription:
    """A viewer's bounded mailbox for one stream. Picture starts, also after a skip, at a keyframe.

    `path` is what its network carries, as far as the viewer reports it.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream: Stream = stream
        self.skipped = 0
        self.path = PathRate()
        self._at_keyframe = stream != "audio"
        self._keyframe_asked = False
        self._picture_lost = False
        self._packets: deque[EncodedPacket] = deque()
        self._sent: deque[tuple[int, int]] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def deliver(self, packet: EncodedPacket) -> None:
        if self._packets and packet.ticks - self._packets[0].ticks > MAILBOX_TICKS:
            self._skip_forward()
        if self._at_keyframe and not packet.keyframe:
            self.skipped += 1
            return
        self._at_keyframe = False
        self._packets.append(packet)
        self._sent.append((packet.ticks, packet.data.size))
        while packet.ticks - self._sent[0][0] >= TICKS_PER_SECOND:
            self._sent.popleft()
        self._arrived.set()

    def _skip_forward(self) -> None:
        """Drop all before the newest keyframe; with none but the first, all, and wait for the next one."""
        newest = max(i for i, packet in enumerate(self._packets) if packet.keyframe or i == 0)
        if newest == 0:
            self._at_keyframe, self._keyframe_asked = self.stream != "audio", False
        for _ in range(newest or len(self._packets)):
            self._packets.popleft()
            self.skipped += 1

    @property
    def sent_bitrate(self) -> int:
        """Bits that the newest second of packets has."""
        return 8 * sum(nbytes for _, nbytes in self._sent)

    def picture_lost(self) -> None:
        """The viewer cannot decode what it has and needs a keyframe."""
        self._picture_lost = True

    def ask_keyframe(self) -> bool:
        """Whether it waits for a keyframe that nobody asked for yet; from now on somebody did."""
        asks = self._picture_lost or (self._at_keyframe and not self._keyframe_asked)
        self._keyframe_asked, self._picture_lost = True, False
        return asks

    async def next(self) -> EncodedPacket:
        """The next packet, when it is due. Raises SubscriptionClosedError."""
        while not self._packets:
            if self._closed:
                raise SubscriptionClosedError
            self._arrived.clear()
            await self._arrived.wait()
        return self._packets.popleft()

    def close(self) -> None:
        self._closed = True
        self._arrived.set()


@dataclass(frozen=True)
class _Order:
    """What the viewers of one codec need: a keyframe now, and at most so many bits per second."""

    keyframe: bool
    limit: float | None


@dataclass(frozen=True)
class BroadcastReport:
    """`segment` is the index on air, None before the first. `buffer_s` counts what is ready to play. `av_offset_s`
    is how much later the newest sound left than the newest picture, each against its deadline. `encoders` are the
    libraries that encode the picture, with "hardware" or "software"."""

    segment: int | None
    buffer_s: float
    stalls: int
    stall_s: float
    codecs: tuple[VideoCodec, ...]
    encoders: tuple[str, ...]
    bitrate: int
    av_offset_s: float


class Broadcaster:
    """Plays a hand-off's segments to the wall clock for any number of subscriptions.

    Everything but the encoders belongs to the event loop; the encoders are touched only on `executor`, which
    must have one worker. Nothing is encoded as picture while nobody watches.
    """

    def __init__(
        self,
        handoff: Handoff[Segment],
        clock: Clock,
        executor: Executor,
        on_air: Callable[[int], None] | None = None,
        video_encoder: Callable[[VideoCodec], VideoEncoder] = VideoEncoder,
        resting: Callable[[], bool] = lambda: False,
    ) -> None:
        """`on_air` is called on the event loop with the index of each segment when its first packet leaves.
        `video_encoder` makes the one encoder of a codec when somebody first watches it. While `resting` says that
        nothing is to come for now, the last picture stands, for those who join then as well, and that is no stall.
        """
        self._handoff = handoff
        self._clock = clock
        self._executor = executor
        self._playout_clock = PlayoutClock()
        self._playout = Playout(self._playout_clock)
        self._audio = AudioEncoder()
        self._make_video = video_encoder
        self._video: dict[VideoCodec, VideoEncoder] = {}
        self._subscriptions: list[Subscription] = []
        self._ready: list[tuple[int, int, EncodedPacket]] = []
        self._order = itertools.count()
        self._ready_changed = asyncio.Event()
        self._handoff_changed = asyncio.Event()
        self._on_air: int | None = None
        self._tell_on_air = on_air
        self._resting = resting
        self._late_s = {"audio": 0.0, "video": 0.0}
        self._over = False

    @property
    def playing(self) -> bool:
        """Whether a viewer would see something: a first segment has come, and the broadcast has not ended."""
        return self._started and not self._over

    @property
    def over(self) -> bool:
        """The broadcast has ended: a subscription from now on is closed at once."""
        return self._over

    @property
    def report(self) -> BroadcastReport:
        watched = {subscription.stream for subscription in self._subscriptions}
        encoders = {codec: encoder for codec, encoder in self._video.items() if codec in watched}
        return BroadcastReport(
            segment=self._on_air,
            buffer_s=self.buffer_s,
            stalls=self._playout_clock.stalls,
            stall_s=self._playout_clock.stall_s,
            codecs=tuple(encoders),
            encoders=tuple(_described(encoder.library) for encoder in encoders.values() if encoder.library),
            bitrate=max((encoder.bitrate for encoder in encoders.values()), default=0),
            av_offset_s=self._late_s["audio"] - self._late_s["video"],
        )

    @property
    def buffer_s(self) -> float:
        """Seconds of media until the last that was taken has been shown. From any thread."""
        if not self._started:
            return 0.0
        return max(0.0, self._playout_clock.deadline_s(self._playout.end_ticks) - self._clock.now())

    @property
    def stall_s(self) -> float:
        """How long viewers had to wait so far. From any thread."""
        return self._playout_clock.stall_s

    @property
    def _started(self) -> bool:
        return self._playout_clock.started

    def now(self) -> float:
        """Seconds of the clock that everything here goes by."""
        return self._clock.now()

    def bitrate(self, stream: Stream) -> int:
        """Target in bits per second; 0 while nobody has watched it."""
        if stream == "audio":
            return AUDIO_BITRATE
        return self._video[stream].bitrate if stream in self._video else 0

    def subscribe(self, stream: Stream) -> Subscription:
        subscription = Subscription(stream)
        if self._over:
            subscription.close()
        else:
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        subscription.close()
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def run(self) -> None:
        """Play until the hand-off closes, then end every subscription. Raises the producer's exception."""
        loop = asyncio.get_running_loop()
        self._handoff.on_change(functools.partial(self._wake, loop))
        publishing = asyncio.create_task(self._publish(), name="publish")
        try:
            await self._prepare(publishing)
        except HandoffClosedError:
            logger.debug("the hand-off was closed: the broadcast ends")
        finally:
            self._over = True
            self._handoff.on_change(None)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            for subscription in tuple(self._subscriptions):
                self.unsubscribe(subscription)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(self._handoff_changed.set)

    async def _prepare(self, publishing: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if publishing.done():
                publishing.result()
            self._take_segments()
            blocks = self._compose() if self._started else []
            if not blocks:
                await self._pause()
                continue
            encode = functools.partial(self._encode, blocks, self._wanted(blocks))
            for packet in await loop.run_in_executor(self._executor, encode):
                # Sound leaves a few ms before its block, so it can be due before the last frame that waits.
                heapq.heappush(self._ready, (packet.ticks, next(self._order), packet))
            self._ready_changed.set()

    async def _publish(self) -> None:
        while True:
            while not self._ready:
                self._ready_changed.clear()
                await self._ready_changed.wait()
            _, _, packet = heapq.heappop(self._ready)
            delay_s = self._playout_clock.deadline_s(packet.ticks) - self._clock.now()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
                delay_s = self._playout_clock.deadline_s(packet.ticks) - self._clock.now()
            self._late_s["audio" if packet.stream == "audio" else "video"] = -delay_s
            if packet.segment is not None and packet.segment != self._on_air:
                self._on_air = packet.segment
                if self._tell_on_air is not None:
                    self._tell_on_air(packet.segment)
            for subscription in self._subscriptions:
                if subscription.stream == packet.stream:
                    subscription.deliver(packet)

    def _take_segments(self) -> None:
        while self._buffered_s() < TAKE_AHEAD_S:
            segment = self._handoff.poll()
            if segment is None:
                return
            if not self._started:
                self._playout_clock.start(self._clock.now() + LEAD_S / 2)
            self._note(self._playout.add(segment))

    def _compose(self) -> list[Block]:
        """Blocks to encode now: those with media, up to the lead, and silence where time has run out."""
        now = self._clock.now()
        late_s = now - self._playout_clock.deadline_s(self._playout.next_ticks)
        if late_s > RESYNC_S:
            self._note(self._playout.skip(math.ceil(late_s * TICKS_PER_SECOND / BLOCK_TICKS)))
        stands = self._resting() and not len(self._handoff) and not self._playout.ready_ticks
        if stands:
            self._playout_clock.rest()
        blocks = []
        while (ahead_s := self._playout_clock.deadline_s(self._playout.next_ticks) - now) < LEAD_S:
            block = self._playout.next_block(force=ahead_s <= FORCE_S, stands=stands)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _wanted(self, blocks: list[Block]) -> dict[VideoCodec, _Order]:
        """What each watched codec needs for `blocks`."""
        wanted: dict[VideoCodec, _Order] = {}
        if not any(block.frames for block in blocks):
            return wanted
        now = self._clock.now()
        for subscription in self._subscriptions:
            codec = subscription.stream
            if codec != "audio":
                if codec not in self._video:
                    self._video[codec] = self._make_video(codec)
                order = wanted.get(codec, _Order(False, None))
                limits = [limit for limit in (order.limit, subscription.path.limit(now)) if limit is not None]
                asks = subscription.ask_keyframe() or order.keyframe
                wanted[codec] = _Order(asks, min(limits, default=None))
        return wanted

    def _encode(self, blocks: list[Block], wanted: dict[VideoCodec, _Order]) -> list[EncodedPacket]:
        """On the executor. `wanted` is from `_wanted`."""
        packets = []
        for codec, order in wanted.items():
            self._video[codec].limit(order.limit)
        keyframes = {codec: order.keyframe for codec, order in wanted.items()}
        for block in blocks:
            packets += self._audio.encode(block.ticks, block.samples, block.segment)
            for frame in block.frames:
                for codec, keyframe in keyframes.items():
                    packets += self._video[codec].encode(frame, block.segment, keyframe=keyframe)
                keyframes = dict.fromkeys(keyframes, False)
        return packets

    async def _pause(self) -> None:
        """Until there may be something to compose: the hand-off has changed, or a batch is due."""
        self._handoff_changed.clear()
        if len(self._handoff) and self._buffered_s() < TAKE_AHEAD_S:
            return
        wait_s = None
        if self._started:
            room = FORCE_S if self._playout.ready_ticks < BLOCK_TICKS else LEAD_S - BATCH_S
            deadline_s = self._playout_clock.deadline_s(self._playout.next_ticks)
            wait_s = max(0.001, deadline_s - room - self._clock.now())
        try:
            await asyncio.wait_for(self._handoff_changed.wait(), wait_s)
        except TimeoutError:
            return

    def _buffered_s(self) -> float:
        """Seconds of taken media that are not composed yet."""
        return self._playout.ready_ticks / TICKS_PER_SECOND

    def _note(self, stall: Stall | None) -> None:
        if stall is not None:
            logger.warning(
                "the stream stalled for %.2f s at %.1f s", stall.seconds, stall.at_ticks / TICKS_PER_SECOND
            )


def _described(library: Library) -> str:
    return f"{library.name} ({'hardware' if library.hardware else 'software'})"
