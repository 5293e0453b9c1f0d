"""Inputs for the examples where none are given: pictures, a clip, a camera and a voice, drawn with a few lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Frame = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

VOICE_RATE = 16_000


def draw_face(skin: str, shirt: str, width: int, height: int) -> Image.Image:
    """A head with eyes and a mouth above shoulders, on grey."""
    image = Image.new("RGB", (width, height), "#6a7078")
    draw = ImageDraw.Draw(image)
    across, down = width / 100, height / 100
    draw.ellipse((10 * across, 70 * down, 90 * across, 140 * down), fill=shirt)
    draw.ellipse((28 * across, 15 * down, 72 * across, 75 * down), fill=skin)
    for eye in (40, 60):
        draw.ellipse(((eye - 4) * across, 37 * down, (eye + 4) * across, 43 * down), fill="black")
    draw.arc((40 * across, 48 * down, 60 * across, 64 * down), 20, 160, fill="darkred", width=max(1, width // 40))
    return image


def draw_sheet(width: int, height: int) -> Image.Image:
    """A reference sheet: three panels on black, without text."""
    sheet = Image.new("RGB", (width, height), "black")
    panel = (width // 3 - 8, height - 16)
    sheet.paste(draw_face("#e0b090", "#2050c0", *panel), (4, 8))
    draw = ImageDraw.Draw(sheet)
    left = width // 3 + 4
    draw.ellipse((left, height // 3, left + panel[0], 2 * height // 3), fill="#d02020")
    left = 2 * width // 3 + 4
    draw.rectangle((left, 8, left + panel[0], height // 2), fill="#70a0e0")
    draw.rectangle((left, height // 2, left + panel[0], height - 8), fill="#30a040")
    return sheet


def moving_shape(index: int, width: int, height: int, colour: str = "#f0c020") -> Frame:
    """Frame `index` of a disc that goes round once in 48 frames."""
    image = Image.new("RGB", (width, height), "#203040")
    angle = 2 * math.pi * index / 48
    x, y = width * (0.5 + 0.25 * math.cos(angle)), height * (0.5 + 0.25 * math.sin(angle))
    radius = min(width, height) / 6
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return np.asarray(image)


def write_clip(path: Path, frames: Iterator[Frame], frame_rate: Fraction) -> Path:
    """Frames as a silent H.264 clip of high quality."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=frame_rate, options={"crf": "12"})
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def write_voice(path: Path, seconds: float) -> Path:
    """A voice-like tone as WAV: a gliding pitch around 120 Hz with the formants of an "ah", in syllables."""
    time_s = np.arange(round(seconds * VOICE_RATE)) / VOICE_RATE
    phase = 2 * np.pi * np.cumsum(120 + 15 * np.sin(2 * np.pi * 0.7 * time_s)) / VOICE_RATE
    sound = np.zeros_like(time_s)
    for harmonic in range(1, 30):
        formants = sum(math.exp(-(((harmonic * 120 - centre) / 120) ** 2)) for centre in (700, 1200, 2600))
        sound += (0.05 + formants) * np.sin(harmonic * phase) / harmonic
    syllables = np.clip(np.sin(2 * np.pi * 3 * time_s), 0, None) ** 0.5
    loudest = np.abs(sound).max()
    samples = (sound * syllables * (0.5 * 32767 / loudest)).astype(np.int16)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=VOICE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = VOICE_RATE
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path
