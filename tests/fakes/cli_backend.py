"""A backend for the commands that needs no model: every segment is a flat colour and a quiet tone."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from scope_ltx.config import LTX2Config
from scope_ltx.doctor import DeviceReport
from scope_ltx.engine import EngineOptions
from scope_ltx.errors import CheckpointError
from scope_ltx.hosts.live.options import HostOptions
from scope_ltx.manifest import ModelFiles
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import Timeline, exact_frame_rate

SAMPLE_RATE = 48_000
ROLES = ("transformer", "text_projection", "text_encoder", "video_vae", "audio_vae")


def complete_directory(directory: Path) -> Path:
    """A model directory in which every file is there, with five bytes in it."""
    for role in ROLES:
        path: Path = getattr(ModelFiles.below(directory), role)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"12345")
    return directory


def make_segment(index: int, timeline: Timeline, frames: int, rate: Fraction, size: tuple[int, int]) -> Segment:
    """`size` is (width, height). Frame i of a segment is grey i + 1, so that order can be checked."""
    times = timeline.advance(frames, rate)
    greys = np.arange(1, frames + 1, dtype=np.uint8)[:, None, None, None]
    pixels = np.broadcast_to(greys, (frames, size[1], size[0], 3)).copy()
    seconds = np.arange(times.samples) / times.sample_rate
    tone = (0.2 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
    return Segment(index, pixels, np.stack([tone, tone]), times)


@dataclass
class FakeStream:
    """A session whose chunks depend on nothing but the seed; fails at chunk `fail_at` when that is set."""

    config: LTX2Config
    fail_at: int | None = None
    last_notes: tuple[str, ...] = ()
    last_stats: ChunkStats | None = None
    made: int = 0
    closed: bool = False
    timeline: Timeline = field(default_factory=lambda: Timeline(SAMPLE_RATE))

    def next_segment(self) -> Segment:
        if self.made == self.fail_at:
            raise CheckpointError(Path("transformer.safetensors"), "went away", advice="Put it back")
        rate = exact_frame_rate(self.config.frame_rate)
        size = (self.config.width, self.config.height)
        segment = make_segment(self.made, self.timeline, self.config.num_frames, rate, size)
        self.last_stats = ChunkStats(text_s=0.0, denoise_s=0.5, decode_s=0.5, steps=self.config.num_steps)
        self.last_notes = self.config.adjustments
        self.made += 1
        return segment

    def close_sources(self) -> None:
        self.closed = True


@dataclass
class FakeBackend:
    """Writes down what the commands ask for."""

    device: DeviceReport | str = field(
        default_factory=lambda: DeviceReport("cpu", "a processor", None, "dequantize", "cpu has no float8 unit")
    )
    fail_at: int | None = None
    small: Path = Path("models/small")
    closed: int = 0
    served: dict[str, object] = field(default_factory=dict)
    config: LTX2Config | None = None

    def probe(self, device: str) -> DeviceReport | str:
        return self.device

    def check_device(self, device: str) -> None:
        if device not in ("auto", "cpu"):
            raise ValueError(f"device {device!r} is not there")

    def start_logging(self, form: str, level: str) -> None:
        self.logging = (form, level)

    def model_directory(self, model: str) -> Path:
        if model != "small":
            raise CheckpointError(Path(model), "no such model directory", advice="Use `--model small`")
        return self.small

    def memory_errors(self) -> tuple[type[Exception], ...]:
        return (MemoryError,)

    def load_pipeline(self, directory: Path, device: str, engine: EngineOptions, first: LTX2Config) -> FakeBackend:
        self.engine = engine
        if engine.vram_budget_gb == 1:
            raise MemoryError("1.00 GiB is too little")
        return self

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        raise AssertionError("the commands generate through a session")

    def close(self) -> None:
        self.closed += 1

    def open_session(self, generator: object, config: LTX2Config, prompt: str) -> FakeStream:
        self.config = config
        self.stream = FakeStream(config, self.fail_at)
        return self.stream

    def serve(
        self,
        directory: Path,
        config: LTX2Config,
        prompt: str,
        *,
        host: str,
        port: int,
        device: str,
        engine: EngineOptions,
        options: HostOptions,
    ) -> None:
        self.served = {
            "directory": directory,
            "config": config,
            "prompt": prompt,
            "host": host,
            "port": port,
            "device": device,
            "engine": engine,
            "options": options,
        }
