"""Sizes of one chunk in pixels, latents, tokens and samples. Pure arithmetic, no torch.

The compression factors are those of the LTX-2.3 autoencoders; the checkpoint loader verifies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from scope_ltx.config import LTX2Config
from scope_streaming.media.timeline import exact_frame_rate, segment_samples

SPATIAL_COMPRESSION = 32
TEMPORAL_COMPRESSION = 8
SAMPLE_RATE = 48_000
MEL_FRAMES_PER_AUDIO_LATENT = 4
SAMPLES_PER_MEL_FRAME = 480
"""A mel frame hops 160 samples at 16 kHz; bandwidth extension triples the rate to 48 kHz."""

Grid: TypeAlias = tuple[int, int, int]
"""Latent frames, height, width."""


@dataclass(frozen=True)
class ChunkGeometry:
    """Latent sizes of one chunk. Video tokens run (frame, row, column) with columns fastest."""

    latent_frames: int
    latent_height: int
    latent_width: int
    audio_tokens: int
    samples: int
    frame_rate: Fraction

    @property
    def video_tokens(self) -> int:
        return self.latent_frames * self.latent_height * self.latent_width

    @property
    def grid(self) -> Grid:
        return self.latent_frames, self.latent_height, self.latent_width

    @property
    def pixels(self) -> int:
        """Of all frames together."""
        frames = (self.latent_frames - 1) * TEMPORAL_COMPRESSION + 1
        return frames * self.latent_height * self.latent_width * SPATIAL_COMPRESSION**2

    @classmethod
    def of(cls, config: LTX2Config, scale: int = 1) -> ChunkGeometry:
        """`scale`: with a height and width so many times smaller."""
        frame_rate = exact_frame_rate(config.frame_rate)
        samples = segment_samples(config.num_frames, frame_rate, SAMPLE_RATE)
        return cls(
            latent_frames=(config.num_frames - 1) // TEMPORAL_COMPRESSION + 1,
            latent_height=config.height // (scale * SPATIAL_COMPRESSION),
            latent_width=config.width // (scale * SPATIAL_COMPRESSION),
            audio_tokens=audio_tokens_covering(samples),
            samples=samples,
            frame_rate=frame_rate,
        )


def audio_tokens_covering(samples: int) -> int:
    """The fewest audio latents whose waveform is at least `samples` long at 48 kHz.

    The causal decoder turns L latents into 4L-3 mel frames. The reference rounds to 25 latents a second
    (Lightricks/LTX-2, ltx-core `AudioLatentShape.from_duration`): 134 for 5.375 s, which lasts 5.330 s and
    would leave 45 ms of silence at every chunk's end. Two more latents cover it; the surplus is trimmed.
    """
    mel_frames = -(-samples // SAMPLES_PER_MEL_FRAME)
    return -(-(mel_frames + MEL_FRAMES_PER_AUDIO_LATENT - 1) // MEL_FRAMES_PER_AUDIO_LATENT)


def latent_grid(num_frames: int, height: int, width: int) -> Grid:
    """Of a clip. Raises ValueError for sizes that the encoder does not take."""
    if num_frames < 1 or num_frames % TEMPORAL_COMPRESSION != 1:
        low = max(num_frames - 1, 0) // TEMPORAL_COMPRESSION * TEMPORAL_COMPRESSION + 1
        raise ValueError(f"a clip has 8 k + 1 frames, got {num_frames}: use {low} or {low + TEMPORAL_COMPRESSION}")
    if min(height, width) < 1 or height % SPATIAL_COMPRESSION or width % SPATIAL_COMPRESSION:
        raise ValueError(f"height and width are multiples of {SPATIAL_COMPRESSION}, got {height}x{width}")
    frames = (num_frames - 1) // TEMPORAL_COMPRESSION + 1
    return frames, height // SPATIAL_COMPRESSION, width // SPATIAL_COMPRESSION


def reference_size(height: int, width: int, downscale: int) -> tuple[int, int]:
    """Height and width of a reference clip for a LoRA that was trained with `downscale` times smaller ones.

    Raises ValueError naming the nearest sizes of the output that fit.
    """
    if downscale < 1:
        raise ValueError(f"a downscale factor is a whole number from 1, got {downscale}")
    step = SPATIAL_COMPRESSION * downscale
    if height % step or width % step:
        fitting = " or ".join(str(size) for size in _multiples_around(height, step))
        wide = " or ".join(str(size) for size in _multiples_around(width, step))
        raise ValueError(
            f"references of 1/{downscale} of the size need a height and width that are multiples of {step}, "
            f"got {height}x{width}: use a height of {fitting} and a width of {wide}"
        )
    return height // downscale, width // downscale


def _multiples_around(size: int, step: int) -> list[int]:
    low = size // step * step
    return [one for one in ((low,) if low == size else (low, low + step)) if one]


def overlap_frames(latent_frames: int) -> int:
    """Pixel frames that a clip of so many latent frames lasts: one for the first, eight for each other."""
    if latent_frames < 0:
        raise ValueError(f"latent frames are counted from 0, got {latent_frames}")
    return (latent_frames - 1) * TEMPORAL_COMPRESSION + 1 if latent_frames else 0


@dataclass(frozen=True)
class ChunkSplice:
    """Which frames of a chunk are shown, and which ones the next chunk goes on from.

    num_frames: what was generated. overlap_latents: latent frames that repeat the chunk before, 0 for a cut.
    next_latents: latent frames that the next chunk shall repeat. trim_tail: frames at the end that are dropped.
    Raises ValueError when that leaves no new frame, or too few to go on from.
    """

    num_frames: int
    overlap_latents: int = 0
    next_latents: int = 0
    trim_tail: int = 0

    def __post_init__(self) -> None:
        if self.trim_tail < 0:
            raise ValueError(f"trim_tail is counted from 0, got {self.trim_tail}")
        overlap, following = overlap_frames(self.overlap_latents), overlap_frames(self.next_latents)
        if self.num_frames - self.trim_tail - overlap < 1 or self.num_frames - self.trim_tail < following:
            raise ValueError(
                f"a chunk of {self.num_frames} frames that repeats {overlap}, drops {self.trim_tail} at its end "
                f"and hands on {following} has nothing to show: use more frames, a shorter overlap or trim_tail"
            )

    @property
    def shown(self) -> slice:
        return slice(overlap_frames(self.overlap_latents), self.num_frames - self.trim_tail)

    @property
    def tail(self) -> slice:
        """The last frames shown, for the next chunk; empty when it shall not go on from here."""
        end = self.num_frames - self.trim_tail
        return slice(end - overlap_frames(self.next_latents), end)
