"""Pictures and clips that say what they are: a grey level is a frame's number, a quadrant's colour its corner."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
GREY_STEP = 4
FULL_CHROMA = 0x4 | 0x2000 | 0x4000 | 0x40000
"""libswscale's bicubic at its most exact."""
TICK = Fraction(1, 90_000)


def quadrants(height: int, width: int) -> Rgb:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = WHITE
    return picture


def corners(picture: Rgb) -> list[str]:
    """Names of the colours in the four quadrants: top left, top right, bottom left, bottom right."""
    names = {RED: "red", GREEN: "green", BLUE: "blue", WHITE: "white"}
    height, width = picture.shape[:2]
    found = []
    for y in (height // 4, height * 3 // 4):
        for x in (width // 4, width * 3 // 4):
            seen = picture[y, x].astype(int)
            found.append(min(names, key=lambda colour: int(np.abs(seen - colour).sum())))
    return [names[colour] for colour in found]


def grey(number: int, height: int = 64, width: int = 96) -> Rgb:
    return np.full((height, width, 3), number * GREY_STEP, np.uint8)


def numbers(frames: Rgb) -> list[int]:
    """The numbers of grey frames (F, H, W, 3)."""
    return [round(float(frame.mean()) / GREY_STEP) for frame in frames]


def write_clip(
    path: Path,
    pictures: Sequence[Rgb],
    times_s: Sequence[Fraction] | None = None,
    *,
    rotation: int | None = None,
    flip: bool = False,
    pixel_aspect: Fraction | None = None,
    gop: int = 12,
) -> Path:
    """H.264 in the container that the suffix names, at `times_s` (default: 24 fps)."""
    times_s = times_s or [Fraction(i, 24) for i in range(len(pictures))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TICK
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=flip)
        for picture, at_s in zip(pictures, times_s, strict=True):
            rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = rgb.reformat(format="yuv420p", interpolation=FULL_CHROMA)
            frame.pts, frame.time_base = round(at_s / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
