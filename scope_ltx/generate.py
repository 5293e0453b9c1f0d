"""Segments from a stream into a clip, one at a time: `scope-ltx generate` once a model is loaded."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from scope_ltx.backend import SegmentSource
from scope_ltx.clip import ClipWriter
from scope_ltx.config import LTX2Config
from scope_ltx.sound_in.track import TrackEnded
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import exact_frame_rate


@dataclass(frozen=True)
class Destination:
    """Where a clip goes, and the raw frames and samples if they are wanted."""

    clip: Path
    dump: Path | None

    @classmethod
    def checked(cls, clip: Path, dump: Path | None) -> Destination:
        """Raises ValueError before anything slow is done for a place that cannot be written."""
        for path, suffix in ((clip, ".mp4"), (dump, ".npz")):
            if path is None:
                continue
            if path.suffix.lower() != suffix:
                raise ValueError(f"{path}: the name must end in {suffix}")
            if path.is_dir():
                raise ValueError(f"{path}: is a directory")
            if not os.access(path.parent, os.W_OK):
                raise ValueError(f"{path}: the directory {path.parent} does not exist or cannot be written")
        return cls(clip, dump)


def generate_clip(source: SegmentSource, config: LTX2Config, chunks: int, destination: Destination) -> str:
    """Take `chunks` segments from `source` and write them as they come; returns one line about the clip.

    Fewer when the driving track ends and the stream with it. Shows a progress bar, then each of the source's notes
    once, on stderr. Frames are kept only for a dump. Raises what the source does, and TrackEnded when the track
    had no sound for even one chunk.
    """
    frames, media_s, work_s = 0, 0.0, 0.0
    dump: list[Segment] = []
    notes: list[str] = []
    with ExitStack() as stack:
        writer: ClipWriter | None = None
        bar = click.progressbar(range(chunks), label="generating", show_pos=True, file=sys.stderr)
        for _ in stack.enter_context(bar):
            try:
                segment = source.next_segment()
            except TrackEnded as error:
                if writer is None:
                    raise
                notes.append(f"{error}, and the clip with it")
                break
            if writer is None:
                writer = stack.enter_context(_writer_for(segment, config, destination.clip))
            writer.write(segment)
            if destination.dump is not None:
                dump.append(segment)
            frames += len(segment.frames)
            media_s += segment.times.seconds
            work_s += source.last_stats.total_s if source.last_stats else 0.0
            notes += [note for note in source.last_notes if note not in notes]
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if destination.dump is not None:
        write_dump(destination.dump, dump)
    speed = f", made in {work_s:.1f} s ({media_s / work_s:.2f}x real time)" if work_s else ""
    media = f"{frames} frames of {config.width}x{config.height} in {media_s:.3f} s"
    return f"{destination.clip}: {media} at {config.frame_rate:g} fps{speed}"


def write_dump(path: Path, segments: list[Segment]) -> None:
    """frames (F, H, W, 3) uint8, samples (channels, N) float32, frame_ticks (F,) int64, sample_rate.

    The file appears under its name only when it is complete.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez(
                file,
                frames=np.concatenate([segment.frames for segment in segments]),
                samples=np.concatenate([segment.samples for segment in segments], axis=1),
                frame_ticks=np.array([tick for segment in segments for tick in segment.times.frame_ticks]),
                sample_rate=np.array(segments[0].times.sample_rate),
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _writer_for(segment: Segment, config: LTX2Config, path: Path) -> ClipWriter:
    height, width = segment.frames.shape[1:3]
    return ClipWriter(path, width, height, exact_frame_rate(config.frame_rate), segment.times.sample_rate)
