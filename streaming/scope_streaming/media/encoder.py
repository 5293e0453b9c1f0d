"""Frames and samples to WebRTC packets: H.264 or VP8, and Opus. Blocking: run it on a thread."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from scope_streaming.media.playout import SAMPLE_RATE, TICKS_PER_SAMPLE, TimedFrame
from scope_streaming.media.timeline import TICKS_PER_SECOND

VideoCodec = Literal["H264", "VP8"]
Stream = Literal["audio", "H264", "VP8"]

VIDEO_TIME_BASE = Fraction(1, 90_000)
AUDIO_TIME_BASE = Fraction(1, SAMPLE_RATE)
TICKS_PER_VIDEO_PTS = TICKS_PER_SECOND // 90_000
KEYFRAME_TICKS = TICKS_PER_SECOND
"""A keyframe per second: the longest that a viewer who lost a packet sees a damaged picture."""
AUDIO_BITRATE = 128_000
SINGLE_THREAD_PIXELS = 640 * 480
"""Below this a frame takes under 5 ms on one core, and slices would only cost bits."""

_LIBRARY = {"H264": "libx264", "VP8": "libvpx"}


def video_bitrate(width: int, height: int, frame_rate: float) -> int:
    """Bits per second that suit a size and rate, from 0.3 to 20 Mb/s.

    A power law through 1.5 Mb/s at 640x360 and 24 fps and about 7 Mb/s at 1920x1080 and 30 fps, the region in
    which published streaming ladders lie for H.264 with a fast preset.
    """
    pixels_per_s = width * height * frame_rate
    return int(min(20e6, max(0.3e6, 1.5e6 * (pixels_per_s / (640 * 360 * 24)) ** 0.64)))


@dataclass(frozen=True)
class EncodedPacket:
    """One encoded frame or audio block, due at presentation `ticks`; `data.pts` is that moment for RTP."""

    stream: Stream
    ticks: int
    keyframe: bool
    segment: int | None
    data: av.Packet[Any]


class VideoEncoder:
    """One encoded picture stream for all viewers. Follows size and rate changes with a new codec."""

    def __init__(self, codec: VideoCodec) -> None:
        self._codec: VideoCodec = codec
        self._context: VideoCodecContext | None = None
        self._rate = 0.0
        self._next_keyframe = 0
        self._bitrate = 0

    @property
    def bitrate(self) -> int:
        """Target in bits per second; 0 before the first frame."""
        return self._bitrate

    def encode(self, frame: TimedFrame, segment: int | None, *, keyframe: bool) -> list[EncodedPacket]:
        """Packets of `frame`, at once: the codecs hold nothing back. `keyframe` asks for one now."""
        height, width, _ = frame.pixels.shape
        context = self._context_for(width, height, frame.rate)
        picture = av.VideoFrame.from_ndarray(frame.pixels, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.time_base = frame.ticks // TICKS_PER_VIDEO_PTS, VIDEO_TIME_BASE
        if keyframe or frame.ticks >= self._next_keyframe:
            picture.pict_type = PictureType.I
            self._next_keyframe = frame.ticks + KEYFRAME_TICKS
        return [
            EncodedPacket(self._codec, frame.ticks, packet.is_keyframe, segment, packet)
            for packet in context.encode(picture)
        ]

    def _context_for(self, width: int, height: int, rate: float) -> VideoCodecContext:
        context = self._context
        if (
            context is not None
            and (context.width, context.height) == (width, height)
            and abs(rate - self._rate) < 0.01 * self._rate
        ):
            return context
        self._rate = rate
        self._bitrate = video_bitrate(width, height, rate)
        self._next_keyframe = 0
        self._context = _video_context(self._codec, width, height, rate, self._bitrate)
        return self._context


def _video_context(codec: VideoCodec, width: int, height: int, rate: float, bitrate: int) -> VideoCodecContext:
    """Low latency, no reordering, keyframes only where asked; BT.709 limited range, and it says so."""
    context = cast(VideoCodecContext, av.CodecContext.create(_LIBRARY[codec], "w"))
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = VIDEO_TIME_BASE, Fraction(rate).limit_denominator(1001)
    context.bit_rate = bitrate
    context.gop_size = 100_000
    context.thread_count = 1 if width * height <= SINGLE_THREAD_PIXELS else 4
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
    # Half a second of buffer lets a keyframe be a few times larger than the mean without a visible pulse.
    shared = {"maxrate": str(bitrate * 3 // 2), "bufsize": str(bitrate // 2)}
    if codec == "H264":
        x264 = {"preset": "veryfast", "tune": "zerolatency", "profile": "baseline", "forced-idr": "1"}
        context.options = shared | x264
    else:
        context.options = shared | {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
    return context


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
