"""Sound for tests: tones, files of every common kind written with PyAV, a reader over an array, and the resampling
formula written plainly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream

from scope_ltx.sound_in.files import SoundReader

Samples = npt.NDArray[np.float32]


def chirp(seconds: float, rate: int, channels: int = 2) -> Samples:
    """A tone that rises from 200 Hz to at most 5 kHz, a little lower in every further channel. (channels, N)."""
    time = np.arange(round(seconds * rate)) / rate
    rise = min(400.0, 4800.0 / seconds)
    tones = [0.5 * np.sin(2 * np.pi * ((200 - 20 * i) + rise / 2 * time) * time) for i in range(channels)]
    return np.stack(tones).astype(np.float32)


def hiss(count: int, seed: int = 0, level: float = 0.2) -> Samples:
    """White noise (2, count): no two stretches of it are alike."""
    noise = np.random.default_rng(seed).standard_normal((2, count)) * level
    return np.clip(noise, -1, 1).astype(np.float32)


def write_sound(
    path: Path, samples: Samples, rate: int, codec: str, layout: str = "stereo", picture: bool = False
) -> Path:
    """`samples` (channels, N) as a file of the kind that its name ends in, beside a short black video if asked."""
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("mpeg4", rate=24)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        if picture:
            for _ in range(12):
                still = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                container.mux(video.encode(still))
            container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        if not stream.codec_context.is_open:
            stream.codec_context.open()
        size = stream.codec_context.frame_size or None
        converter = av.AudioResampler(stream.format.name, layout, rate, frame_size=size)
        for part in (frame, None) if samples.shape[1] else ():
            for converted in converter.resample(part):
                if converted is not None:
                    container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


class ArrayReader:
    """Reads forward through an array; `opened` counts how often a file would have been opened."""

    opened = 0

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._place = 0
        type(self).opened += 1

    def read(self, count: int) -> Samples:
        part = self._samples[:, self._place : self._place + count]
        self._place += part.shape[1]
        return part

    def close(self) -> None:
        self._samples = self._samples[:, :0]


def read_all(path: Path, rate: int | None = 48_000, block: int = 10_000) -> Samples:
    with SoundReader(path, rate) as reader:
        blocks = [reader.read(block)]
        while blocks[-1].shape[1]:
            blocks.append(reader.read(block))
    return np.concatenate(blocks, axis=1)


Endless = Callable[[np.ndarray[Any, Any]], Any]
"""Samples (2, N) at any places (N,)."""


def resampled(sound: Endless, source: int, target: int, first: int, count: int) -> Any:
    """Plain float64: results at times first/source + k/target of `sound(places)`, by the published formula."""
    rate = 0.99 * min(source, target)
    reach = int(6 * source / rate) + 2
    results = []
    for k in range(count):
        at = first + k * source / target
        places = np.arange(int(at) - reach, int(at) + reach + 1)
        crossings = (places - at) / source * rate
        inside = np.abs(crossings) < 6
        weights = np.where(inside, np.sinc(crossings) * np.cos(np.pi * crossings / 12) ** 2, 0) * rate / source
        results.append((sound(places) * weights).sum(axis=-1))
    return np.stack(results, axis=-1)


def at_places(samples: Samples) -> Endless:
    """Silence around an array."""

    def sound(places: np.ndarray[Any, Any]) -> Any:
        inside = (places >= 0) & (places < samples.shape[1])
        return np.where(inside, samples[:, np.clip(places, 0, samples.shape[1] - 1)], 0.0)

    return sound
