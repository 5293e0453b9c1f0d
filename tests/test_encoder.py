"""The picture's encoder: one for all viewers, keyframes where asked, its library, and how many bits it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc import RTCPeerConnection
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    pack_remb_fci,
)
from av.video.codeccontext import VideoCodecContext
from hypothesis import given
from hypothesis import strategies as st

from scope_streaming.media.bitrate import FLOOR_SHARE, REPORT_TTL_S, PathRate, shared_bitrate, video_bitrate
from scope_streaming.media.broadcast import Broadcaster, Subscription
from scope_streaming.media.encoder import KEYFRAME_GAP_TICKS, EncodedPacket, Stream, VideoEncoder
from scope_streaming.media.feedback import FeedbackListener
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.playout import TimedFrame
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import TICKS_PER_SECOND
from scope_streaming.media.video_codecs import (
    HARDWARE,
    LIBX264,
    NVENC,
    QSV,
    SOFTWARE,
    Library,
    VideoCodec,
    choose_library,
    open_video,
)
from tests.fakes.clock import FakeClock, InlineExecutor, in_virtual_time
from tests.fakes.virtual_play import RATE, Reader, Supply, feed

FRAME_TICKS = int(TICKS_PER_SECOND / RATE)


def moving_pictures(count: int, height: int = 384, width: int = 320) -> Iterable[TimedFrame]:
    """A drifting texture with noise: something to spend bits on."""
    random = np.random.default_rng(1)
    texture = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for i in range(count):
        grain = random.integers(0, 24, texture.shape, np.uint8)
        pixels = np.roll(texture, 3 * i, axis=1) // 2 + grain
        yield TimedFrame(i * FRAME_TICKS, pixels.astype(np.uint8), float(RATE))


def software(codec: VideoCodec) -> Library:
    return SOFTWARE[codec]


def encoded(encoder: VideoEncoder, frames: Iterable[TimedFrame], asked: Iterable[int] = ()) -> list[EncodedPacket]:
    return [packet for i, frame in enumerate(frames) for packet in encoder.encode(frame, 0, keyframe=i in asked)]


def keyframe_ticks(packets: list[EncodedPacket]) -> list[int]:
    return [packet.ticks for packet in packets if packet.keyframe]


class Counting(VideoEncoder):
    """Counts what it encodes."""

    made = 0

    def encode(self, frame: TimedFrame, segment: int | None, *, keyframe: bool) -> list[EncodedPacket]:
        self.made += 1
        return super().encode(frame, segment, keyframe=keyframe)


def test_many_viewers_share_one_encode_and_a_late_one_joins_within_a_gop() -> None:
    clock = FakeClock()
    encoders: list[Counting] = []

    def make(codec: VideoCodec) -> VideoEncoder:
        encoders.append(Counting(codec, software))
        return encoders[-1]

    async def scenario() -> tuple[list[Reader], Reader, float]:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor(), video_encoder=make)
        playing = asyncio.create_task(broadcaster.run())
        feeding = asyncio.create_task(feed(handoff, Supply(), 0.01))
        readers = [Reader(broadcaster, "H264", clock) for _ in range(5)]
        await asyncio.sleep(4.37)
        late, joined_s = Reader(broadcaster, "H264", clock), clock.now()
        await asyncio.sleep(3)
        feeding.cancel()
        handoff.close()
        await playing
        await asyncio.gather(*(reader.task for reader in (*readers, late)))
        return readers, late, joined_s

    readers, late, joined_s = in_virtual_time(clock, scenario())
    first = [packet for _, packet in readers[0].seen]
    assert len(encoders) == 1
    assert len(first) > 6 * RATE
    # Encoded once: what is made and not seen is the fifth of a second that lay ahead at the end.
    assert len(first) <= encoders[0].made <= len(first) + RATE
    for reader in readers[1:]:
        assert [id(packet) for _, packet in reader.seen] == [id(packet) for packet in first]
    came_s, packet = late.seen[0]
    assert packet.keyframe
    # It asks for a keyframe, and what is encoded next is 0.2 s from the screen.
    assert came_s - joined_s < 0.2 + 2 * float(1 / RATE)
    gaps = np.diff(keyframe_ticks(first)) / TICKS_PER_SECOND
    assert gaps.max() <= 1.05


def test_keyframes_come_every_second_and_when_asked_for_but_not_too_close() -> None:
    packets = encoded(VideoEncoder("H264", software), moving_pictures(100), asked={30, 32, 33, 34, 35})
    frames = [ticks // FRAME_TICKS for ticks in keyframe_ticks(packets)]
    assert frames[:2] == [0, 24]
    # Asked for at 30, which is a quarter of a second after the last; at 32 to 35, which is not yet.
    assert frames[2:4] == [30, 36]
    assert min(np.diff(frames)) * FRAME_TICKS >= KEYFRAME_GAP_TICKS


def test_there_are_no_b_frames_and_nothing_is_held_back() -> None:
    encoder = VideoEncoder("H264", software)
    for frame in moving_pictures(30):
        (packet,) = encoder.encode(frame, 0, keyframe=False)
        assert packet.data.pts == packet.data.dts
        assert packet.data.time_base == Fraction(1, 90_000)


def test_the_stream_is_baseline() -> None:
    """The only profile that every WebRTC receiver has to decode. Its number stands in the parameter set."""
    packets = encoded(VideoEncoder("H264", software), moving_pictures(1))
    data = bytes(packets[0].data)
    at = data.index(b"\x00\x00\x01\x67") + 4
    assert (data[at], data[at + 1] & 0x40) == (66, 0x40)


@pytest.mark.parametrize("limit", [None, 0.6])
def test_the_bitrate_is_kept_within_a_tenth(limit: float | None) -> None:
    encoder = VideoEncoder("H264", software)
    nominal = video_bitrate(320, 384, float(RATE))
    encoder.limit(None if limit is None else limit * nominal)
    packets = encoded(encoder, moving_pictures(10 * 24))
    assert encoder.bitrate == pytest.approx((limit or 1) * nominal, rel=0.001)
    sent = sum(packet.data.size for packet in packets[24:]) * 8 / 9
    assert sent == pytest.approx(encoder.bitrate, rel=0.1)


def test_a_new_limit_is_kept_without_a_keyframe() -> None:
    encoder = VideoEncoder("H264", software)
    frames = list(moving_pictures(12 * 24))
    before = encoded(encoder, frames[: 5 * 24 + 12])
    encoder.limit(0.4 * encoder.bitrate)
    after = encoded(encoder, frames[5 * 24 + 12 :])
    assert not after[0].keyframe
    rates = [sum(p.data.size for p in part) * 8 / (len(part) / 24) for part in (before[24:], after[24:])]
    assert rates[1] / rates[0] == pytest.approx(0.4, rel=0.15)


class Broken:
    """An open context that works for so many pictures."""

    def __init__(self, works_for: int, width: int = 320, height: int = 384) -> None:
        self.width, self.height, self.bit_rate = width, height, 0
        self._left, self._real = works_for, open_video(LIBX264, width, height, 24.0, 500_000)

    def encode(self, frame: av.VideoFrame) -> list[object]:
        self._left -= 1
        if self._left < 0:
            raise av.ExternalError(1, "the device is gone")
        return list(self._real.encode(frame.reformat(width=self.width, height=self.height, format="yuv420p")))


def test_hardware_is_chosen_where_it_works() -> None:
    tried: list[str] = []

    def opens(library: Library, width: int, height: int, rate: float, bitrate: int) -> VideoCodecContext:
        tried.append(library.name)
        if library is NVENC:
            raise ValueError("no such encoder")
        if library is QSV:
            return Broken(0)  # type: ignore[return-value]
        return open_video(LIBX264, width, height, rate, bitrate)

    assert choose_library("H264", HARDWARE[:2], opens) is LIBX264
    assert tried == ["h264_nvenc", "h264_qsv"]


def test_hardware_that_works_is_taken_and_one_that_fails_later_is_left_for_software(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def opens(library: Library, width: int, height: int, rate: float, bitrate: int) -> VideoCodecContext:
        if library.hardware:
            return Broken(3, width, height)  # type: ignore[return-value]
        return open_video(library, width, height, rate, bitrate)

    assert choose_library("H264", HARDWARE, opens) is NVENC
    encoder = VideoEncoder("H264", lambda codec: choose_library(codec, HARDWARE, opens), opens)
    packets = encoded(encoder, moving_pictures(6))
    assert len(packets) == 6
    assert encoder.library is LIBX264
    # The first of the new encoder is one, or nobody could decode what follows.
    assert [packet.keyframe for packet in packets] == [True, False, False, True, False, False]
    assert "h264_nvenc has failed, software takes over" in caplog.text


def test_the_report_names_the_library_and_the_one_that_took_over() -> None:
    clock = FakeClock()

    def opens(library: Library, width: int, height: int, rate: float, bitrate: int) -> VideoCodecContext:
        if library.hardware:
            return Broken(30, width, height)  # type: ignore[return-value]
        return open_video(library, width, height, rate, bitrate)

    def make(codec: VideoCodec) -> VideoEncoder:
        return VideoEncoder(codec, lambda wanted: choose_library(wanted, HARDWARE, opens), opens)

    async def scenario() -> list[tuple[str, ...]]:
        handoff: Handoff[Segment] = Handoff()
        broadcaster = Broadcaster(handoff, clock, InlineExecutor(), video_encoder=make)
        playing = asyncio.create_task(broadcaster.run())
        feeding = asyncio.create_task(feed(handoff, Supply(), 0.01))
        told = [broadcaster.report.encoders]
        reader = Reader(broadcaster, "H264", clock)
        for _ in range(2):
            await asyncio.sleep(0.9)
            told.append(broadcaster.report.encoders)
        feeding.cancel()
        handoff.close()
        await playing
        await reader.task
        return told

    assert in_virtual_time(clock, scenario()) == [(), ("h264_nvenc (hardware)",), ("libx264 (software)",)]


def test_software_that_fails_is_no_fallback_but_an_error() -> None:
    def opens(*_: object) -> VideoCodecContext:
        return Broken(0)  # type: ignore[return-value]

    with pytest.raises(av.ExternalError):
        encoded(VideoEncoder("H264", software, opens), moving_pictures(1))


def test_what_this_machine_has_is_chosen_without_an_error() -> None:
    """Whatever it is; on one without a device it is software, and says so."""
    library = choose_library("H264")
    assert library in (*HARDWARE, LIBX264)
    assert choose_library("VP8") is SOFTWARE["VP8"]


@given(st.integers(16, 4096), st.integers(16, 4096), st.floats(1, 120))
def test_more_pixels_get_more_bits_and_never_fewer(width: int, height: int, rate: float) -> None:
    bitrate = video_bitrate(width, height, rate)
    assert 300_000 <= bitrate <= 20_000_000
    assert video_bitrate(width * 2, height, rate) >= bitrate


@given(st.integers(300_000, 20_000_000), st.lists(st.none() | st.floats(0, 1e9)))
def test_the_weakest_network_decides_within_bounds(nominal: int, limits: list[float | None]) -> None:
    got = shared_bitrate(nominal, limits)
    given_limits = [limit for limit in limits if limit is not None]
    assert int(FLOOR_SHARE * nominal) <= got <= nominal
    if given_limits and FLOOR_SHARE * nominal <= min(given_limits) <= nominal:
        assert got == int(min(given_limits))


def test_loss_lowers_the_rate_and_its_end_raises_it_again() -> None:
    path = PathRate()
    assert path.limit(0.0) is None
    path.lost(0.05, 2e6, 0.0)
    assert path.limit(0.0) is None
    path.lost(0.2, 2e6, 1.0)
    assert path.limit(1.0) == pytest.approx(1.8e6)
    path.lost(0.2, 1.8e6, 2.0)
    assert path.limit(2.0) == pytest.approx(1.62e6)
    path.lost(0.0, 1.6e6, 3.0)
    assert path.limit(3.0) == pytest.approx(1.62e6 * 1.08)
    # A viewer that reports no more limits nobody.
    assert path.limit(3.0 + REPORT_TTL_S + 0.1) is None


def test_a_viewers_estimate_is_taken_while_it_is_fresh() -> None:
    path = PathRate()
    path.estimated(900_000, sent=1e6, target=1e6, now_s=5.0)
    assert path.limit(6.0) == 900_000
    path.estimated(-1, sent=1e6, target=1e6, now_s=7.0)
    assert path.limit(7.0) == 0
    assert path.limit(7.0 + REPORT_TTL_S + 0.1) is None


def test_a_still_picture_does_not_make_the_network_look_slow() -> None:
    path = PathRate()
    path.estimated(150_000, sent=100_000, target=1e6, now_s=1.0)
    assert path.limit(1.0) is None
    # Less than even that arrives: it is slow.
    path.estimated(80_000, sent=100_000, target=1e6, now_s=2.0)
    assert path.limit(2.0) == 80_000


def test_a_subscription_knows_what_it_sent_in_the_last_second() -> None:
    subscription = Subscription("H264")
    packets = encoded(VideoEncoder("H264", software), moving_pictures(60))
    for packet in packets:
        subscription.deliver(packet)
    assert subscription.sent_bitrate == 8 * sum(packet.data.size for packet in packets[-24:])


class Sending(Broadcaster):
    """As if two megabits went out."""

    def bitrate(self, stream: Stream) -> int:
        return 2_000_000


async def test_reports_of_a_viewer_reach_its_subscription_and_the_sender() -> None:
    """What its RTCP says: a lost picture, an estimate, losses; other viewers' and broken reports do nothing."""
    clock = FakeClock()
    broadcaster = Sending(Handoff(), clock, InlineExecutor())
    connection = RTCPeerConnection()
    sender = connection.addTransceiver("video").sender
    subscription = Subscription("H264")
    listener = FeedbackListener(sender, subscription, broadcaster)
    ssrc = sender._ssrc
    assert subscription.ask_keyframe()
    assert not subscription.ask_keyframe()
    await listener._handle_rtcp_packet(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=ssrc))
    assert subscription.ask_keyframe()

    for packet in encoded(VideoEncoder("H264", software), moving_pictures(24)):
        subscription.deliver(packet)
    for fci in (b"nonsense", pack_remb_fci(700_000, [ssrc])):
        await listener._handle_rtcp_packet(RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=fci))
    assert subscription.path.limit(clock.now()) == 700_000

    subscription.path = PathRate()
    for to, limit in ((ssrc + 1, None), (ssrc, 1_500_000)):
        info = RtcpReceiverInfo(to, 128, packets_lost=9, highest_sequence=1, jitter=0, lsr=0, dlsr=0)
        await listener._handle_rtcp_packet(RtcpRrPacket(ssrc=1, reports=[info]))
        assert subscription.path.limit(clock.now()) == limit
    await connection.close()
