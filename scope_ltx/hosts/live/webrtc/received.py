"""What a sender's tracks bring, made into what a session takes: RGB pictures with times, and gapless sound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from scope_ltx.inputs import Pixels, Samples
from scope_ltx.sampling.geometry import SAMPLE_RATE

MAX_GAP_S = 1.0
"""A longer hole in the sound is a pause of the sender's, not a loss: what comes after follows at once, so that no
delay is built up."""
MAX_PIXELS = 3840 * 2176
"""A 4K picture. More than any camera sends, and what one decoded frame may cost."""
UNSPECIFIED = 2
"""The matrix of a stream that does not tell it (H.264 table E-5)."""


class LiveInput(Protocol):
    """The part of a session that takes live media, from any thread."""

    def push_frame(self, frame: Pixels, at_s: float | None = None) -> None: ...

    def push_audio(self, samples: Samples, timestamp: int | None = None) -> None: ...


@dataclass
class Received:
    """Counts so far. `newest_s`: when the newest picture or sound came, by the loop's clock; None before."""

    frames: int = 0
    skipped_frames: int = 0
    samples: int = 0
    size: tuple[int, int] | None = None
    newest_s: float | None = None


class SoundJoin:
    """Puts sound blocks end to end. Pure."""

    def __init__(self) -> None:
        self._next: int | None = None

    def silence_before(self, pts: int, samples: int) -> int | None:
        """Samples of silence that belong before a block that starts at `pts`; None: it comes too late, leave it
        out. Lost packets leave silence, so that sound keeps its place beside the picture."""
        gap = 0 if self._next is None else pts - self._next
        if -MAX_GAP_S * SAMPLE_RATE < gap < 0:
            return None
        self._next = pts + samples
        return gap if 0 < gap <= MAX_GAP_S * SAMPLE_RATE else 0


def rgb_covering(frame: av.VideoFrame, height: int, width: int) -> Pixels:
    """RGB (H, W, 3) of the frame's own shape, scaled down as far as it still covers `height` x `width`; never up.

    A frame that does not tell its matrix is taken as BT.601, as cameras and browsers mean it.
    """
    scale = min(1.0, max(height / frame.height, width / frame.width))
    told = int(frame.colorspace) != UNSPECIFIED
    picture = frame.reformat(
        width=max(1, round(frame.width * scale)),
        height=max(1, round(frame.height * scale)),
        format="rgb24",
        src_colorspace=frame.colorspace if told else Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.AREA,
    )
    return np.asarray(picture.to_ndarray(), np.uint8)


def stereo_samples(frame: av.AudioFrame) -> Samples:
    """float32 (channels, N) of what aiortc's decoder gives: interleaved 16-bit at 48 kHz."""
    channels = len(frame.layout.channels)
    interleaved = frame.to_ndarray().reshape(-1, channels)
    return np.ascontiguousarray(interleaved.T.astype(np.float32) / 2**15)


async def take_pictures(
    track: MediaStreamTrack,
    sink: LiveInput,
    size: Callable[[], tuple[int, int]],
    received: Received,
    work: Executor,
) -> None:
    """Until the track ends. `size`: height and width that a picture has to cover. Policy when `work` is too slow:
    *the newest picture goes next*, those between are skipped, so no queue grows."""
    loop = asyncio.get_running_loop()
    newest: list[av.VideoFrame] = []
    arrived = asyncio.Event()
    anchor_s: float | None = None

    async def convert() -> None:
        while True:
            await arrived.wait()
            arrived.clear()
            frame = newest.pop()
            pixels = await loop.run_in_executor(work, rgb_covering, frame, *size())
            sink.push_frame(pixels, frame.time + (anchor_s or 0.0))
            received.frames += 1

    converting = asyncio.create_task(convert(), name="live-pictures")
    try:
        while not converting.done():
            frame = await track.recv()
            if not isinstance(frame, av.VideoFrame) or frame.width * frame.height > MAX_PIXELS:
                received.skipped_frames += 1
                continue
            received.newest_s, received.size = loop.time(), (frame.height, frame.width)
            if anchor_s is None:
                # One clock for all senders that follow each other: theirs all begin at 0.
                anchor_s = loop.time() - frame.time
            received.skipped_frames += len(newest)
            newest[:] = [frame]
            arrived.set()
        converting.result()
    except MediaStreamError:
        return
    finally:
        converting.cancel()
        await asyncio.gather(converting, return_exceptions=True)


async def take_sound(track: MediaStreamTrack, sink: LiveInput, received: Received) -> None:
    """Until the track ends."""
    loop, join = asyncio.get_running_loop(), SoundJoin()
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        if not isinstance(frame, av.AudioFrame) or frame.sample_rate != SAMPLE_RATE:
            continue
        samples = stereo_samples(frame)
        silence = join.silence_before(frame.pts or 0, samples.shape[1])
        received.newest_s = loop.time()
        if silence is None:
            continue
        if silence:
            sink.push_audio(np.zeros((samples.shape[0], silence), np.float32))
        sink.push_audio(samples)
        received.samples += samples.shape[1]
