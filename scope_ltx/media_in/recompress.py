"""The compression that the model expects of pinned stills: one H.264 picture at CRF 33, encoded and decoded.

The video frames of the training set had been through a codec, so a clean still at frame 0 is out of
distribution. Lightricks/LTX-2 (ltx-pipelines, media_io) sends every pinned still through libx264 `veryfast`
yuv420p at one frame a second before resizing it; reference clips are left alone.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from scope_ltx.media_in.fit import FitMode, fit, place
from scope_ltx.media_in.images import load_image

PIN_CRF = 33
"""What LTX-2.3 was trained with."""
MAX_SIDE = 8192
"""The longest side of H.264's level 6.2. A larger still is reduced to it first, which bounds the memory."""


def recompress(image: npt.NDArray[np.uint8], crf: int) -> npt.NDArray[np.uint8]:
    """One H.264 round trip of a still, uint8 RGB (H, W, 3), the size unchanged. CRF 0 leaves it as it is.

    The same input gives the same output: one thread. 4:2:0 needs even sides, so an odd one repeats its edge for
    the round trip.
    """
    if not 0 <= crf <= 51:
        raise ValueError(f"crf lies between 0 and 51, got {crf}")
    if crf == 0:
        return image.copy()
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    decoded = _decode(_encode(padded, crf))
    return decoded[:height, :width].copy()


def prepare_pin(path: str | Path, height: int, width: int, mode: FitMode, crf: int) -> npt.NDArray[np.uint8]:
    """The pixels that the video VAE encodes for a pinned image: loaded, recompressed at its own size, then fitted.

    Returns uint8 RGB (height, width, 3). The order is the reference's. Raises MediaInputError.
    """
    image = load_image(path)
    longest = max(image.shape[:2])
    if longest > MAX_SIDE:
        within = place((image.shape[0], image.shape[1]), (MAX_SIDE, MAX_SIDE), "letterbox")
        image = fit(image, within.height, within.width, "crop")
    return fit(recompress(image, crf), height, width, mode)


def _encode(image: npt.NDArray[np.uint8], crf: int) -> list[av.Packet[Any]]:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt = "yuv420p"
    # The rate is part of the recipe: x264 spends bits by how long a picture is shown.
    encoder.time_base, encoder.framerate = Fraction(1), Fraction(1)
    encoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": "veryfast"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="yuv420p")
    frame.pts = 0
    return [*encoder.encode(frame), *encoder.encode(None)]


def _decode(packets: list[av.Packet[Any]]) -> npt.NDArray[np.uint8]:
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    (frame,) = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
