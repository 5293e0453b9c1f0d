"""Encoded packets as viewers get them, and what a finished MP4 says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from scope_streaming.media.encoder import AudioEncoder, EncodedPacket, VideoEncoder
from scope_streaming.media.playout import BLOCK_SAMPLES, BLOCK_TICKS, TimedFrame
from scope_streaming.media.timeline import TICKS_PER_SECOND
from tests.fakes.generator import draw_counter, sweep


@dataclass(frozen=True)
class Written:
    """Ticks since the first picture of each packet, and the numbers that the pictures show."""

    pictures: list[Fraction]
    sounds: list[Fraction]
    size: tuple[int, int]


def coded_stream(
    seconds: float, rate: Fraction = Fraction(24), start: int = 12_345 * BLOCK_TICKS, width: int = 320
) -> Iterator[EncodedPacket]:
    """Counted pictures of `width` x 64 and a sweep from tick `start` on, in the order of publication."""
    video, audio = VideoEncoder("H264"), AudioEncoder()
    blocks = int(seconds * TICKS_PER_SECOND / BLOCK_TICKS)
    number = 0
    packets = []
    for block in range(blocks):
        ticks = start + block * BLOCK_TICKS
        packets += audio.encode(ticks, sweep(block * BLOCK_SAMPLES, BLOCK_SAMPLES), 0)
        while (due := start + round(number * TICKS_PER_SECOND / rate)) < ticks + BLOCK_TICKS:
            pixels = np.full((64, width, 3), 96, np.uint8)
            draw_counter(pixels, number)
            packets += video.encode(TimedFrame(due, pixels, float(rate)), 0, keyframe=number == 0)
            number += 1
    yield from sorted(packets, key=lambda packet: packet.ticks)


def read_back(path: Path) -> Written:
    """What a player finds. Decodes every picture, so a damaged one fails here."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        times: dict[str, list[Fraction]] = {"video": [], "audio": []}
        for packet in container.demux(video, audio):
            if packet.pts is not None and packet.time_base is not None:
                times[packet.stream.type].append(packet.pts * packet.time_base * TICKS_PER_SECOND)
        size = (video.codec_context.width, video.codec_context.height)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(times["video"])
    return Written(times["video"], times["audio"], size)
