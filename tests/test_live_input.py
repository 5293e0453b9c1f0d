"""Live picture and sound on their way into a stream: what drives it while they come, and what when they stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from hypothesis import given
from hypothesis import strategies as st

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.http.problems import ProblemError
from scope_ltx.hosts.live.webrtc.ingest import Ingest
from scope_ltx.hosts.live.webrtc.received import Received, take_pictures, take_sound
from scope_ltx.inputs import Pixels, Samples
from scope_ltx.session import Session
from scope_streaming.media.handoff import Handoff
from scope_streaming.media.loop import ChunkLoop
from scope_streaming.media.pacing import LIVE_MARGIN_S, LiveMargin, live_wait
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import Timeline
from tests.fakes.clock import FakeClock
from tests.fakes.mirror import IDLE, MirrorGenerator
from tests.test_whip import sending_offer

CONFIG = LTX2Config(height=64, width=96, num_frames=9)
DRIVEN = CONFIG.updated(audio_mode="driving")


def picture(level: int) -> Pixels:
    return np.full((64, 96, 3), level, np.uint8)


def films(session: Session, clock: FakeClock, seconds: float, level: int = 200) -> None:
    for _ in range(round(seconds * 30)):
        clock.advance(1 / 30)
        session.push_frame(picture(level))


def shows(session: Session) -> int:
    """The level of the next chunk's last frame."""
    return int(session.next_segment().frames[-1].mean())


def test_live_pictures_drive_the_stream_are_held_and_then_given_up_with_a_word() -> None:
    clock = FakeClock()
    session = Session(MirrorGenerator(), CONFIG, "a tide", clock=clock)
    assert shows(session) == IDLE[0]
    assert not session.live

    films(session, clock, 1.0)
    assert session.live
    assert shows(session) == 200
    assert session.last_notes == ()

    clock.advance(4.0)
    assert shows(session) == 200
    assert session.last_notes == ("the live source sends no picture: its last one is held for 5 s",)

    clock.advance(2.0)
    assert not session.live
    assert shows(session) == IDLE[0]
    (note,) = session.last_notes
    assert note.startswith("the live source was lost: no picture for over 5 s")
    assert note.endswith("the prompt alone")

    films(session, clock, 1.0, level=40)
    assert shows(session) == 40
    assert session.last_notes == ()

    # Who reads it an hour later wants to know nothing of it.
    clock.advance(3600.0)
    assert shows(session) == IDLE[0]
    assert session.last_notes == ()


def test_live_sound_drives_the_stream_and_silence_takes_its_place() -> None:
    clock, generator = FakeClock(), MirrorGenerator()
    session = Session(generator, DRIVEN, "a tide", clock=clock)
    session.next_segment()
    assert generator.driven == 0
    session.push_audio(np.full((2, 48_000), 0.5, np.float32))
    segment = session.next_segment()
    assert generator.driven == 1
    assert np.allclose(segment.samples, 0.5, atol=0.01)
    clock.advance(6.0)
    assert not session.next_segment().samples.any()
    assert generator.driven == 1
    # What was left is not played minutes later.
    session.push_audio(np.full((2, 96_000), 0.25, np.float32))
    assert np.allclose(session.next_segment().samples, 0.25, atol=0.01)


def test_live_sound_keeps_up_with_the_picture() -> None:
    """Ten seconds of sound that came before the first chunk: it plays the newest, and goes on from there."""
    clock = FakeClock()
    session = Session(MirrorGenerator(), DRIVEN, "a tide", clock=clock)
    films(session, clock, 1.0)
    ramp = np.linspace(0, 1, 480_000, dtype=np.float32)[None].repeat(2, 0)
    session.push_audio(ramp)
    first = session.next_segment().samples
    assert first[0, 0] == pytest.approx(ramp[0, -first.shape[1] - 2_400], abs=1e-4)
    session.push_audio(np.full((2, first.shape[1]), 0.5, np.float32))
    second = session.next_segment().samples
    assert second[0, 0] == pytest.approx(ramp[0, -2_400], abs=1e-4)
    assert second[0, -1] == 0.5


def test_live_sound_does_not_drive_where_a_voice_is_asked_for() -> None:
    generator = MirrorGenerator()
    session = Session(generator, CONFIG.updated(audio_mode="id_lora"), "a tide", clock=FakeClock())
    session.push_audio(np.full((2, 48_000), 0.5, np.float32))
    session.next_segment()
    assert generator.driven == 0


@given(st.floats(0, 30), st.floats(0, 30))
def test_a_live_chunk_starts_as_late_as_it_can_and_no_later(buffer_s: float, work_s: float) -> None:
    wait_s = live_wait(buffer_s, work_s)
    assert wait_s >= 0
    if wait_s > 0:
        left_s = buffer_s - wait_s - work_s
        assert left_s == pytest.approx(LIVE_MARGIN_S + 0.1 * work_s)


def test_a_stall_widens_the_margin_for_half_a_minute() -> None:
    margin = LiveMargin()
    # What was before it looked first, such as a model that loaded, says nothing.
    seen = [(40.0, 0.0), (40.0, 1.0), (40.2, 2.0), (40.3, 3.0), (45.0, 4.0), (45.0, 33.0), (45.0, 34.0)]
    widths = [margin.seconds(stalled_s, now_s) for stalled_s, now_s in seen]
    assert [round(width - LIVE_MARGIN_S, 6) for width in widths] == [0, 0, 0.2, 0.2, 0.5, 0.5, 0]


def test_the_loop_begins_a_live_chunk_when_the_buffer_has_run_down() -> None:
    """In virtual time: chunks of a second that take 0.3 s. Each begins with 0.12 s + 0.33 s left to play."""
    clock, timeline, handoff = FakeClock(), Timeline(48_000), Handoff[Segment]()
    begun_s: list[float] = []
    ends_s = clock.now()

    def begin() -> Future[Segment]:
        nonlocal ends_s
        begun_s.append(ends_s - clock.now())
        clock.advance(0.3)
        times = timeline.advance(24, Fraction(24))
        frames, samples = np.zeros((24, 2, 2, 3), np.uint8), np.zeros((2, times.samples), np.float32)
        future: Future[Segment] = Future()
        future.set_result(Segment(len(begun_s), frames, samples, times))
        ends_s = max(ends_s, clock.now()) + 1.0
        return future

    loop = ChunkLoop(
        begin, handoff, clock, lambda: 0.0, early=lambda work_s: live_wait(ends_s - clock.now(), work_s)
    )
    for _ in range(8):
        assert loop.step()
        handoff.poll()
    assert begun_s[2:] == [pytest.approx(0.12 + 1.1 * 0.3, abs=0.01)] * 6


class Sent(MediaStreamTrack):
    """A track of these frames, as fast as they are taken, and then over."""

    def __init__(self, kind: str, frames: Sequence[Any]) -> None:
        super().__init__()
        self.kind = kind
        self._frames = list(frames)

    async def recv(self) -> Any:
        await asyncio.sleep(0)
        if not self._frames:
            raise MediaStreamError
        return self._frames.pop(0)


class Sink:
    def __init__(self) -> None:
        self.frames: list[tuple[Pixels, float | None]] = []
        self.samples: list[Samples] = []

    def push_frame(self, frame: Pixels, at_s: float | None = None) -> None:
        self.frames.append((frame, at_s))

    def push_audio(self, samples: Samples, timestamp: int | None = None) -> None:
        self.samples.append(samples)


def video_frame(number: int, size: tuple[int, int] = (64, 96)) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.full((*size, 3), number, np.uint8), format="rgb24")
    frame = frame.reformat(format="yuv420p")
    frame.pts, frame.time_base = number * 3000, Fraction(1, 90_000)
    return frame


async def test_what_comes_faster_than_it_is_converted_is_skipped_and_the_newest_is_not() -> None:
    sink, received = Sink(), Received()
    busy = threading.Event()
    with ThreadPoolExecutor(1) as work:
        work.submit(busy.wait, 10)
        track = Sent("video", [video_frame(number) for number in range(10)])
        taking = asyncio.create_task(take_pictures(track, sink, lambda: (64, 96), received, work))
        while track._frames:  # noqa: ASYNC110 - the track sets no event
            await asyncio.sleep(0)
        busy.set()
        await taking
    assert received.skipped_frames + received.frames <= 10
    assert received.skipped_frames >= 8
    assert received.size == (64, 96)


async def test_a_picture_too_large_to_convert_is_left_out() -> None:
    sink, received = Sink(), Received()
    huge = av.VideoFrame(4096, 2304, "yuv420p")
    with ThreadPoolExecutor(1) as work:
        await take_pictures(Sent("video", [huge, video_frame(2)]), sink, lambda: (64, 96), received, work)
    assert (received.skipped_frames, received.size) == (1, (64, 96))


def audio_frame(pts: int, level: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.full((1, 2 * 960), level, np.int16), format="s16", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, pts, Fraction(1, 48_000)
    return frame


async def test_sound_is_put_end_to_end_with_silence_for_what_was_lost() -> None:
    sink, received = Sink(), Received()
    frames = [audio_frame(0, 16384), audio_frame(960, 16384), audio_frame(2880, -16384)]
    await take_sound(Sent("audio", frames), sink, received)
    sound = np.concatenate(sink.samples, axis=1)
    assert sound.shape == (2, 4 * 960)
    assert [float(sound[0, i * 960 + 480]) for i in range(4)] == [0.5, 0.5, 0.0, -0.5]
    assert received.samples == 3 * 960


async def test_a_sender_that_never_connects_gives_its_place_back() -> None:
    ingest = Ingest(Sink(), lambda: (64, 96), connect_timeout_s=0.05)
    await ingest.publish(await sending_offer())
    states = [ingest.report.state]
    async with asyncio.timeout(10):
        while states[-1] != "none":
            states.append(ingest.report.state)
            await asyncio.sleep(0.01)
    assert states[0] == "connecting"
    await ingest.close()


async def test_a_silent_sender_gives_its_place_to_the_next_and_a_live_one_does_not() -> None:
    ingest = Ingest(Sink(), lambda: (64, 96), silent_s=0.0)
    first, _, _ = await ingest.publish(await sending_offer())
    assert ingest.report.state == "silent"
    second, _, _ = await ingest.publish(await sending_offer())
    assert not await ingest.leave(first)
    assert await ingest.leave(second)
    await ingest.close()

    patient = Ingest(Sink(), lambda: (64, 96))
    await patient.publish(await sending_offer())
    with pytest.raises(ProblemError, match="another sender is live"):
        await patient.publish(await sending_offer())
    await patient.close()
