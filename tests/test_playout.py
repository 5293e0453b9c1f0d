from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_streaming.media.bitrate import video_bitrate
from scope_streaming.media.broadcast import Broadcaster, Subscription, SubscriptionClosedError
from scope_streaming.media.encoder import AudioEncoder, EncodedPacket, VideoEncoder
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.pacing import PlayoutClock
from scope_streaming.media.playout import BLOCK_SAMPLES, BLOCK_TICKS, Block, Playout, TimedFrame
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND, Timeline
from tests.fakes.clock import FakeClock, InlineExecutor, in_virtual_time
from tests.fakes.generator import SAMPLE_RATE, draw_counter, read_counter, sweep


def segments(count: int, frames: int = 9, rate: Fraction = Fraction(24), size: int = 32) -> Iterator[Segment]:
    """Frame i of the stream has i in its first pixel (two bytes); the sound is the test sweep."""
    timeline = Timeline(SAMPLE_RATE)
    made = 0
    for index in range(count):
        times = timeline.advance(frames, rate)
        pixels = np.zeros((frames, size, size, 3), np.uint8)
        numbers = np.arange(made, made + frames)
        pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = numbers // 256 % 256, numbers % 256
        made += frames
        yield Segment(index, pixels, sweep(times.start // 15, times.samples), times)


def number_of(frame: TimedFrame) -> int:
    return int(frame.pixels[0, 0, 0]) * 256 + int(frame.pixels[0, 0, 1])


@given(
    waits=st.lists(st.integers(0, 40), min_size=2, max_size=6),
    frames=st.sampled_from([9, 17, 33]),
    rate=st.sampled_from([Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)]),
)
def test_every_frame_shows_once_and_sound_moves_with_it(waits: list[int], frames: int, rate: Fraction) -> None:
    """However late segments come: nothing is lost, and the stall moved frames and samples by the same ticks."""
    clock = PlayoutClock()
    playout = Playout(clock)
    blocks: list[Block] = []
    stall_ticks = 0
    made = list(segments(len(waits), frames, rate))
    for wait, segment in zip(waits, made, strict=True):
        for _ in range(wait):
            block = playout.next_block(force=True)
            assert block is not None
            blocks.append(block)
        stall = playout.add(segment)
        stall_ticks += stall.ticks if stall else 0
    while playout.ready_ticks:
        block = playout.next_block(force=True)
        assert block is not None
        blocks.append(block)

    assert [block.ticks for block in blocks] == [i * BLOCK_TICKS for i in range(len(blocks))]
    shown = [frame for block in blocks for frame in block.frames]
    assert [number_of(frame) for frame in shown] == list(range(frames * len(waits)))
    assert all(block.ticks <= f.ticks < block.ticks + BLOCK_TICKS for block in blocks for f in block.frames)
    assert round(clock.stall_s * TICKS_PER_SECOND) == stall_ticks

    sound = np.concatenate([block.samples for block in blocks], axis=1)[0]
    for segment in made:
        first = shown[segment.index * frames]
        at = first.ticks // 15
        piece = sound[at : at + segment.times.samples]
        # The 5 ms at either end may be faded; in between, sound starts at the very sample its first frame does.
        np.testing.assert_array_equal(piece[240:-240], segment.samples[0, 240:-240])


def test_a_full_supply_never_stalls() -> None:
    clock = PlayoutClock()
    playout = Playout(clock)
    for segment in segments(5):
        assert playout.add(segment) is None
    blocks = []
    while (block := playout.next_block(force=False)) is not None:
        blocks.append(block)
    assert clock.stalls == 0
    assert len(blocks) == 5 * 9 * 50 // 24


def test_incomplete_media_wait_until_forced_and_break_off_without_a_click() -> None:
    playout = Playout(PlayoutClock())
    (segment,) = segments(1)
    playout.add(segment)
    while (block := playout.next_block(force=False)) is not None:
        last_full = block
    assert last_full.samples[0, -100:].any()
    forced = playout.next_block(force=True)
    assert forced is not None
    sounding = np.flatnonzero(forced.samples[0])
    assert 0 < sounding.max() < BLOCK_SAMPLES
    assert abs(float(forced.samples[0, sounding.max()])) < 0.01
    assert playout.ready_ticks == 0


def test_skip_moves_presentation_without_losing_media() -> None:
    clock = PlayoutClock()
    playout = Playout(clock)
    (segment,) = segments(1)
    playout.add(segment)
    first = playout.next_block(force=False)
    stall = playout.skip(50)
    assert stall is not None
    assert stall.seconds == 1.0
    rest = []
    while playout.ready_ticks:
        block = playout.next_block(force=True)
        assert block is not None
        rest.append(block)
    assert first is not None
    numbers = [number_of(frame) for block in (first, *rest) for frame in block.frames]
    assert numbers == list(range(9))
    assert rest[0].ticks == 51 * BLOCK_TICKS


@pytest.mark.parametrize(("rate", "channels"), [(24_000, 2), (48_000, 3)])
def test_sound_that_opus_cannot_carry_is_refused(rate: int, channels: int) -> None:
    times = Timeline(rate).advance(9, Fraction(24))
    frames = np.zeros((9, 32, 32, 3), np.uint8)
    segment = Segment(0, frames, np.zeros((channels, times.samples), np.float32), times)
    with pytest.raises(ValueError, match=f"48000 Hz mono or stereo, got {rate} Hz with {channels} channels"):
        Playout(PlayoutClock()).add(segment)


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_encoder_holds_nothing_back_and_follows_a_size_change(codec: str) -> None:
    encoder = VideoEncoder("H264" if codec == "H264" else "VP8")
    decoder = av.CodecContext.create("h264" if codec == "H264" else "libvpx", "r")
    numbers, keyframes = [], []
    for i in range(60):
        size = 384 if i < 40 else 256
        pixels = np.full((size, 320, 3), 96, np.uint8)
        draw_counter(pixels, 1000 + i)
        packets = encoder.encode(TimedFrame(i * 30_000, pixels, 24.0), 0, keyframe=i == 7)
        assert len(packets) == 1
        assert packets[0].data.pts == i * 3750
        keyframes += [i] if packets[0].keyframe else []
        for frame in decoder.decode(packets[0].data):
            assert isinstance(frame, av.VideoFrame)
            numbers.append(read_counter(frame.to_ndarray(format="rgb24")))
    assert numbers == [1000 + i for i in range(60)]
    assert keyframes == [0, 7, 31, 40]


def test_red_stays_red() -> None:
    """The matrix that the encoder converts with is the one it declares."""
    encoder = VideoEncoder("H264")
    pixels = np.full((64, 64, 3), (200, 30, 40), np.uint8)
    decoder = av.CodecContext.create("h264", "r")
    (packet,) = encoder.encode(TimedFrame(0, pixels, 24.0), 0, keyframe=True)
    frames = decoder.decode(packet.data) + decoder.decode(None)
    assert isinstance(frames[0], av.VideoFrame)
    seen = frames[0].reformat(format="rgb24", src_colorspace=frames[0].colorspace).to_ndarray()
    assert np.abs(seen[8:-8, 8:-8].astype(int) - (200, 30, 40)).max() <= 6


def test_opus_stamps_survive_a_jump() -> None:
    encoder = AudioEncoder()
    stamps = []
    for block in (0, 1, 2, 52, 53):
        (packet,) = encoder.encode(block * BLOCK_TICKS, np.zeros((2, BLOCK_SAMPLES), np.float32), 0)
        stamps.append(packet.data.pts or 0)
    assert np.diff(stamps).tolist() == [960, 960, 50 * 960, 960]


@pytest.mark.parametrize(
    ("width", "height", "rate", "low", "high"),
    [(320, 384, 24, 0.8e6, 1.2e6), (1920, 1080, 30, 6e6, 8e6), (32, 32, 24, 3e5, 3e5)],
)
def test_bitrate_suits_the_size(width: int, height: int, rate: float, low: float, high: float) -> None:
    assert low <= video_bitrate(width, height, rate) <= high


class Viewer:
    """Collects a subscription's packets with the virtual time of their arrival."""

    def __init__(self, broadcaster: Broadcaster, clock: FakeClock) -> None:
        self.seen: list[tuple[float, EncodedPacket]] = []
        self._clock = clock
        streams = (broadcaster.subscribe("H264"), broadcaster.subscribe("audio"))
        self.tasks = [asyncio.create_task(self._watch(stream)) for stream in streams]

    async def _watch(self, subscription: Subscription) -> None:
        try:
            while True:
                packet = await subscription.next()
                self.seen.append((self._clock.now(), packet))
        except SubscriptionClosedError:
            return

    def of(self, stream: str) -> list[tuple[float, EncodedPacket]]:
        return [(at, packet) for at, packet in self.seen if packet.stream == stream]


def play(supply: list[tuple[float, Segment]], clock: FakeClock, seconds: float) -> tuple[Viewer, Broadcaster]:
    """Plays segments that become available after the given waits, in virtual time."""

    async def scenario() -> tuple[Viewer, Broadcaster]:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor())
        viewer = Viewer(broadcaster, clock)
        playing = asyncio.create_task(broadcaster.run())
        deadline = clock.now() + seconds
        for wait_s, segment in supply:
            await asyncio.sleep(wait_s)
            while len(handoff):  # noqa: ASYNC110 - virtual time: a poll costs nothing
                await asyncio.sleep(0.01)
            assert handoff.reserve()
            handoff.put(segment)
        await asyncio.sleep(max(0.0, deadline - clock.now()))
        handoff.close()
        await playing
        await asyncio.gather(*viewer.tasks)
        return viewer, broadcaster

    return in_virtual_time(clock, scenario())


def test_packets_come_at_their_deadlines_and_buffer_is_told() -> None:
    clock = FakeClock()
    supply = [(0.0, segment) for segment in segments(6, frames=25)]
    viewer, broadcaster = play(supply, clock, seconds=6.0)
    for stream, step in (("H264", 1 / 24), ("audio", 0.02)):
        arrivals = viewer.of(stream)
        start_s, start = arrivals[0][0], arrivals[0][1].ticks
        lateness = [at - start_s - (p.ticks - start) / TICKS_PER_SECOND for at, p in arrivals]
        assert max(abs(x) for x in lateness) < 1e-6
        assert np.diff([at for at, _ in arrivals]).max() == pytest.approx(step, abs=1e-4)
    assert len(viewer.of("H264")) == 142  # 5.9 s at 24 fps, from the 0.1 s that the first frame waits
    assert broadcaster.report.stalls == 0
    assert broadcaster.report.segment == 5


def test_a_late_segment_holds_the_picture_and_gives_silence() -> None:
    clock = FakeClock()
    first, second = segments(2, frames=25)
    viewer, broadcaster = play([(0.0, first), (3.0, second)], clock, seconds=5.0)
    audio = [packet.ticks for _, packet in viewer.of("audio")]
    assert set(np.diff(audio)) == {BLOCK_TICKS}
    video = viewer.of("H264")
    gaps = np.diff([packet.ticks for _, packet in video]) / TICKS_PER_SECOND
    assert (gaps > 0.1).sum() == 1
    assert 1.9 < gaps.max() < 2.1
    assert broadcaster.report.stalls == 1
    assert broadcaster.report.stall_s == pytest.approx(gaps.max() - 1 / 24, abs=1e-3)


def test_a_producers_exception_ends_the_broadcast_with_it() -> None:
    async def scenario() -> None:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor())
        subscription = broadcaster.subscribe("audio")
        handoff.fail(RuntimeError("the device is gone"))
        with pytest.raises(RuntimeError, match="the device is gone"):
            await broadcaster.run()
        with pytest.raises(SubscriptionClosedError):
            await subscription.next()

    clock = FakeClock()
    in_virtual_time(clock, scenario())


def test_after_the_end_a_subscription_is_closed_at_once() -> None:
    async def scenario() -> None:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor())
        handoff.close()
        await broadcaster.run()
        assert (broadcaster.playing, broadcaster.over) == (False, True)
        with pytest.raises(SubscriptionClosedError):
            await broadcaster.subscribe("audio").next()

    clock = FakeClock()
    in_virtual_time(clock, scenario())


def test_at_rest_the_picture_stands_for_who_joins_too_and_that_is_no_stall() -> None:
    """Ten seconds without media, as after a song that is to stop."""

    async def scenario() -> tuple[Viewer, Viewer, Broadcaster]:
        handoff: Handoff[Segment] = Handoff()
        resting = False
        broadcaster = Broadcaster(handoff, clock, InlineExecutor(), resting=lambda: resting)
        first, second = segments(2, frames=25)
        viewer = Viewer(broadcaster, clock)
        playing = asyncio.create_task(broadcaster.run())
        assert handoff.reserve()
        handoff.put(first)
        await asyncio.sleep(0.5)
        resting = True
        await asyncio.sleep(5)
        late = Viewer(broadcaster, clock)
        await asyncio.sleep(5)
        assert handoff.reserve()
        resting = False
        handoff.put(second)
        await asyncio.sleep(2)
        handoff.close()
        await playing
        await asyncio.gather(*viewer.tasks, *late.tasks)
        return viewer, late, broadcaster

    clock = FakeClock()
    viewer, late, broadcaster = in_virtual_time(clock, scenario())
    assert (broadcaster.report.stalls, broadcaster.report.stall_s) == (0, 0.0)
    joined_s, packet = late.of("H264")[0]
    assert packet.keyframe
    assert joined_s < late.of("audio")[0][0] + 1.1
    pictures = [packet.ticks for _, packet in viewer.of("H264")]
    assert len(pictures) == pytest.approx(2 * 25 + 9, abs=1)
    assert np.diff(pictures).max() == TICKS_PER_SECOND
    assert np.diff([packet.ticks for _, packet in viewer.of("audio")]).max() == BLOCK_TICKS


def test_a_viewer_that_does_not_read_is_skipped_forward_to_a_keyframe() -> None:
    encoder = VideoEncoder("H264")
    pixels = np.zeros((64, 64, 3), np.uint8)

    async def scenario() -> None:
        subscription = Subscription("H264")
        for i in range(24 * 20):
            (packet,) = encoder.encode(TimedFrame(i * 30_000, pixels, 24.0), 0, keyframe=False)
            subscription.deliver(packet)
        packet = await subscription.next()
        assert packet.keyframe
        assert packet.ticks >= 18 * TICKS_PER_SECOND
        assert subscription.skipped >= 24 * 18

    asyncio.run(scenario())


def test_thousands_of_chunks_do_not_drift_or_grow() -> None:
    """5,000 chunks through timeline and playout: the last frame is where arithmetic says it is."""
    clock = PlayoutClock()
    playout = Playout(clock)
    timeline = Timeline(SAMPLE_RATE)
    frames = np.zeros((9, 2, 2, 3), np.uint8)
    samples = np.zeros((2, 18_000), np.float32)
    last = 0
    objects = []
    for index in range(5_000):
        times = timeline.advance(9, Fraction(24))
        assert playout.add(Segment(index, frames, samples, times)) is None
        while (block := playout.next_block(force=False)) is not None:
            last = block.frames[-1].ticks if block.frames else last
        if index in (100, 4_999):
            gc.collect()
            objects.append(len(gc.get_objects()))
    assert last == (5_000 * 9 - 1) * 30_000
    assert clock.stalls == 0
    assert objects[1] - objects[0] < 50
