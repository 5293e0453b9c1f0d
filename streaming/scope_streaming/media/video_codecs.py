"""Which library encodes the picture, and how it is opened: hardware where it works, software otherwise.

All of them are set up alike: no reordering, nothing held back, constant bitrate, keyframes only where asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

logger = logging.getLogger(__name__)

VideoCodec = Literal["H264", "VP8"]

VIDEO_TIME_BASE = Fraction(1, 90_000)
SINGLE_THREAD_PIXELS = 640 * 480
"""Below this a frame takes under 5 ms on one core, and slices would only cost bits."""
NO_GOP = 100_000
"""Longer than any stream between two keyframes: the caller places every one of them."""
BUFFER_S = 0.5
"""Of bits: a keyframe may be a few times larger than the mean without a visible pulse."""
PROBE_SIZE = (256, 320)
"""Height and width that every hardware encoder takes."""


@dataclass(frozen=True)
class Library:
    """An encoder of FFmpeg's. `adjustable`: a new bitrate is taken while it runs, without a keyframe."""

    name: str
    codec: VideoCodec
    hardware: bool
    pixel_format: str
    options: tuple[tuple[str, str], ...]
    adjustable: bool


LIBX264 = Library(
    "libx264",
    "H264",
    hardware=False,
    pixel_format="yuv420p",
    options=(("preset", "veryfast"), ("tune", "zerolatency"), ("profile", "baseline"), ("forced-idr", "1")),
    adjustable=True,
)
LIBVPX = Library(
    "libvpx",
    "VP8",
    hardware=False,
    pixel_format="yuv420p",
    options=(("deadline", "realtime"), ("cpu-used", "-6"), ("lag-in-frames", "0")),
    adjustable=False,
)
NVENC = Library(
    "h264_nvenc",
    "H264",
    hardware=True,
    pixel_format="yuv420p",
    options=(
        ("preset", "p3"),
        ("tune", "ull"),
        ("rc", "cbr"),
        ("bf", "0"),
        ("delay", "0"),
        ("zerolatency", "1"),
        ("forced-idr", "1"),
        ("profile", "baseline"),
    ),
    adjustable=True,
)
QSV = Library(
    "h264_qsv",
    "H264",
    hardware=True,
    pixel_format="nv12",
    options=(
        ("preset", "veryfast"),
        ("bf", "0"),
        ("async_depth", "1"),
        ("look_ahead", "0"),
        ("forced_idr", "1"),
        ("profile", "baseline"),
    ),
    adjustable=False,
)
AMF = Library(
    "h264_amf",
    "H264",
    hardware=True,
    pixel_format="nv12",
    options=(
        ("usage", "ultralowlatency"),
        ("quality", "speed"),
        ("rc", "cbr"),
        ("bf", "0"),
        ("forced_idr", "1"),
        ("header_insertion_mode", "idr"),
        ("profile", "constrained_baseline"),
    ),
    adjustable=False,
)
SOFTWARE: dict[VideoCodec, Library] = {"H264": LIBX264, "VP8": LIBVPX}
HARDWARE = (NVENC, QSV, AMF)

OpenVideo = Callable[[Library, int, int, float, int], VideoCodecContext]


def open_video(library: Library, width: int, height: int, rate: float, bitrate: int) -> VideoCodecContext:
    """An encoder for frames of that size, BT.709 limited range. Raises av.FFmpegError, ValueError when FFmpeg was
    built without it; some libraries raise only at the first frame."""
    context = cast(VideoCodecContext, av.CodecContext.create(library.name, "w"))
    context.width, context.height, context.pix_fmt = width, height, library.pixel_format
    context.time_base, context.framerate = VIDEO_TIME_BASE, Fraction(rate).limit_denominator(1001)
    context.bit_rate = bitrate
    context.gop_size = NO_GOP
    if not library.hardware:
        context.thread_count = 1 if width * height <= SINGLE_THREAD_PIXELS else 4
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
    # A maximum above the target would let the mean drift from it, and x264 would take no new target.
    rates = {"maxrate": str(bitrate), "bufsize": str(int(bitrate * BUFFER_S))}
    context.options = rates | dict(library.options)
    return context


def why_unusable(library: Library, open_context: OpenVideo = open_video) -> str | None:
    """None when `library` turns one frame into one keyframe at once on this machine, else what is wrong."""
    height, width = PROBE_SIZE
    picture = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
    picture = picture.reformat(format=library.pixel_format)
    picture.pts, picture.time_base, picture.pict_type = 0, VIDEO_TIME_BASE, PictureType.I
    try:
        packets = open_context(library, width, height, 24.0, 500_000).encode(picture)
    except (av.FFmpegError, ValueError) as error:
        return str(error) or type(error).__name__
    if not packets:
        return "it holds frames back"
    return None if packets[0].is_keyframe else "its first frame is no keyframe"


def choose_library(
    codec: VideoCodec,
    hardware: Sequence[Library] = HARDWARE,
    open_context: OpenVideo = open_video,
) -> Library:
    """The first of `hardware` that works here, else software. Blocking, some 100 ms where there is a device."""
    for library in hardware:
        if library.codec != codec:
            continue
        problem = why_unusable(library, open_context)
        if problem is None:
            logger.info("the picture is encoded by %s", library.name)
            return library
        logger.debug("%s is not used: %s", library.name, problem)
    return SOFTWARE[codec]
