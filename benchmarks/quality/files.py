"""What a user would give the product, written to a directory: a still, a video, a directory of images, sound."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.quality.maker import Frames, Samples
from scope_ltx.clip import ClipWriter
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import Timeline, exact_frame_rate, segment_samples
from training.world.sound import SAMPLE_RATE

_FULL_SCALE = 32768.0


def write_still(path: Path, pixels: Frames) -> Path:
    """(H, W, 3) as PNG."""
    Image.fromarray(pixels).save(path)
    return path


def write_folder(folder: Path, frames: Frames) -> Path:
    """One PNG for each frame."""
    folder.mkdir()
    for index, pixels in enumerate(frames):
        # Flat colours compress well even at the fastest level.
        Image.fromarray(pixels).save(folder / f"frame{index}.png", compress_level=1)
    return folder


def write_video(path: Path, frames: Frames, fps: float) -> Path:
    """H.264 in an MP4, with silence, as the product writes its own clips."""
    rate: Fraction = exact_frame_rate(fps)
    times = Timeline(SAMPLE_RATE).peek(len(frames), rate)
    silence = np.zeros((2, segment_samples(len(frames), rate, SAMPLE_RATE)), np.float32)
    with ClipWriter(path, frames.shape[2], frames.shape[1], rate, SAMPLE_RATE) as writer:
        writer.write(Segment(0, frames, silence, times))
    return path


def write_sound(path: Path, samples: Samples) -> Samples:
    """16-bit WAV of (2, N) at 48 kHz; returns what the file holds."""
    levels = np.clip(np.rint(samples * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.ascontiguousarray(levels.T).tobytes())
    held: Samples = (levels / _FULL_SCALE).astype(np.float32)
    return held
