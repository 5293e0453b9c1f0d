"""Frames and samples to WebRTC packets: H.264 or VP8, and Opus. Blocking: run it on a thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from scope_streaming.media.bitrate import shared_bitrate, video_bitrate
from scope_streaming.media.playout import SAMPLE_RATE, TICKS_PER_SAMPLE, TimedFrame
from scope_streaming.media.timeline import TICKS_PER_SECOND
from scope_streaming.media.video_codecs import (
    SOFTWARE,
    VIDEO_TIME_BASE,
    Library,
    OpenVideo,
    VideoCodec,
    choose_library,
    open_video,
)

__all__ = [
    "AUDIO_BITRATE",
    "AUDIO_TIME_BASE",
    "VIDEO_TIME_BASE",
    "AudioEncoder",
    "EncodedPacket",
    "Stream",
    "VideoCodec",
    "VideoEncoder",
]

logger = logging.getLogger(__name__)

Stream = Literal["audio", "H264", "VP8"]

AUDIO_TIME_BASE = Fraction(1, SAMPLE_RATE)
TICKS_PER_VIDEO_PTS = TICKS_PER_SECOND // 90_000
KEYFRAME_TICKS = TICKS_PER_SECOND
"""A keyframe per second: the longest that a viewer who lost a packet sees a damaged picture."""
KEYFRAME_GAP_TICKS = TICKS_PER_SECOND // 4
"""Asked-for keyframes keep this distance: a viewer that asks with every frame cannot spend the others' bits."""
AUDIO_BITRATE = 128_000
REOPEN_SHARE, REOPEN_TICKS = 0.2, 5 * TICKS_PER_SECOND
"""A library that takes no new bitrate while it runs is opened anew, which costs a keyframe: only for a change of
so much, and not more often."""


@dataclass(frozen=True)
class EncodedPacket:
    """One encoded frame or audio block, due at presentation `ticks`; `data.pts` is that moment for RTP."""

    stream: Stream
    ticks: int
    keyframe: bool
    segment: int | None
    data: av.Packet[Any]


class VideoEncoder:
    """One encoded picture stream for all viewers. Follows size and rate changes with a new codec.

    The library is chosen at the first frame. A hardware one that fails later is left for software, with a warning;
    `library` tells which it is. Raises av.FFmpegError when software fails, too.
    """

    def __init__(
        self,
        codec: VideoCodec,
        choose: Callable[[VideoCodec], Library] = choose_library,
        open_context: OpenVideo = open_video,
    ) -> None:
        self._codec: VideoCodec = codec
        self._choose = choose
        self._open = open_context
        self._library: Library | None = None
        self._context: VideoCodecContext | None = None
        self._rate = 0.0
        self._nominal = 0
        self._bitrate = 0
        self._limit: float | None = None
        self._keyframe_asked = False
        self._last_keyframe = self._opened = 0

    @property
    def library(self) -> Library | None:
        """None before the first frame."""
        return self._library

    @property
    def bitrate(self) -> int:
        """Target in bits per second; 0 before the first frame."""
        return self._bitrate

    def limit(self, bitrate: float | None) -> None:
        """What the viewers' networks carry; None: no limit. Within bounds, see `shared_bitrate`."""
        self._limit = bitrate

    def encode(self, frame: TimedFrame, segment: int | None, *, keyframe: bool) -> list[EncodedPacket]:
        """Packets of `frame`, at once: the codecs hold nothing back. `keyframe` asks for one, now or as soon as
        the last one is a quarter of a second old."""
        if self._library is None:
            self._library = self._choose(self._codec)
        self._keyframe_asked |= keyframe
        try:
            packets = self._packets(frame, self._library)
        except av.FFmpegError as error:
            if not self._library.hardware:
                raise
            logger.warning("%s has failed, software takes over: %s", self._library.name, error)
            self._library, self._context = SOFTWARE[self._codec], None
            packets = self._packets(frame, self._library)
        return [EncodedPacket(self._codec, frame.ticks, packet.is_keyframe, segment, packet) for packet in packets]

    def _packets(self, frame: TimedFrame, library: Library) -> list[av.Packet[Any]]:
        context = self._context_for(frame, library)
        picture = av.VideoFrame.from_ndarray(frame.pixels, format="rgb24").reformat(
            format=library.pixel_format, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.time_base = frame.ticks // TICKS_PER_VIDEO_PTS, VIDEO_TIME_BASE
        since = frame.ticks - self._last_keyframe
        asked = self._keyframe_asked and since >= KEYFRAME_GAP_TICKS
        if asked or since >= KEYFRAME_TICKS or frame.ticks == self._opened:
            picture.pict_type = PictureType.I
            self._last_keyframe, self._keyframe_asked = frame.ticks, False
        return list(context.encode(picture))

    def _context_for(self, frame: TimedFrame, library: Library) -> VideoCodecContext:
        height, width, _ = frame.pixels.shape
        context = self._context
        same = (
            context is not None
            and (context.width, context.height) == (width, height)
            and abs(frame.rate - self._rate) < 0.01 * self._rate
        )
        if not same:
            self._rate, self._nominal = frame.rate, video_bitrate(width, height, frame.rate)
        target = shared_bitrate(self._nominal, [self._limit])
        if context is None or not same or self._needs_reopening(target, frame.ticks, library):
            context = self._open(library, width, height, frame.rate, target)
            self._context, self._bitrate, self._opened = context, target, frame.ticks
        elif library.adjustable and target != self._bitrate:
            context.bit_rate = self._bitrate = target
        return context

    def _needs_reopening(self, target: int, ticks: int, library: Library) -> bool:
        changed = abs(target - self._bitrate) > REOPEN_SHARE * self._bitrate
        return changed and not library.adjustable and ticks - self._opened >= REOPEN_TICKS


class AudioEncoder:
    """One Opus stream for all viewers: 20 ms stereo packets at 48 kHz."""

    def __init__(self) -> None:
        context = av.CodecContext.create("libopus", "w")
        context.bit_rate, context.sample_rate = AUDIO_BITRATE, SAMPLE_RATE
        context.format, context.layout = "flt", "stereo"
        context.time_base = AUDIO_TIME_BASE
        # "audio" keeps music and noise; the 2nd option lets a lost packet be patched from the next.
        context.options = {"application": "audio", "fec": "1", "packet_loss": "3"}
        self._context = context
        self._delay: int | None = None

    def encode(self, ticks: int, samples: npt.NDArray[np.float32], segment: int | None) -> list[EncodedPacket]:
        """samples: float32 (2, 960) from `ticks` on. One packet, due 6.5 ms earlier: Opus' own delay.

        A receiver ties a stamp to the moment of sending, so a packet has to leave when its first decoded
        sample is due. Sent with its block, sound would lag the picture by the delay (measured: 6.5 ms).
        """
        interleaved = np.ascontiguousarray(np.clip(samples, -1, 1).T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout="stereo")
        pts = ticks // TICKS_PER_SAMPLE
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, pts, AUDIO_TIME_BASE
        packets = []
        for packet in self._context.encode(frame):
            if self._delay is None:
                self._delay = pts - (packet.pts if packet.pts is not None else pts)
            # After a jump in pts the library stamps one packet as if there had been none, so stamp it here.
            packet.pts, packet.time_base = pts - self._delay, AUDIO_TIME_BASE
            due = ticks - self._delay * TICKS_PER_SAMPLE
            packets.append(EncodedPacket("audio", due, True, segment, packet))
        return packets
