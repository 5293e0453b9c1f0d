"""Sizes of one chunk in pixels, latents, tokens and samples. Pure arithmetic, no torch.

The compression factors are those of the LTX-2.3 autoencoders; the checkpoint loader verifies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from scope_ltx.config import LTX2Config
from scope_streaming.media.timeline import exact_frame_rate, segment_samples

SPATIAL_COMPRESSION = 32
TEMPORAL_COMPRESSION = 8
SAMPLE_RATE = 48_000
MEL_FRAMES_PER_AUDIO_LATENT = 4
SAMPLES_PER_MEL_FRAME = 480
"""A mel frame hops 160 samples at 16 kHz; bandwidth extension triples the rate to 48 kHz."""


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
    def grid(self) -> tuple[int, int, int]:
        """Latent frames, height, width."""
        return self.latent_frames, self.latent_height, self.latent_width

    @property
    def pixels(self) -> int:
        """Of all frames together."""
        frames = (self.latent_frames - 1) * TEMPORAL_COMPRESSION + 1
        return frames * self.latent_height * self.latent_width * SPATIAL_COMPRESSION**2

    @classmethod
    def of(cls, config: LTX2Config) -> ChunkGeometry:
        frame_rate = exact_frame_rate(config.frame_rate)
        samples = segment_samples(config.num_frames, frame_rate, SAMPLE_RATE)
        return cls(
            latent_frames=(config.num_frames - 1) // TEMPORAL_COMPRESSION + 1,
            latent_height=config.height // SPATIAL_COMPRESSION,
            latent_width=config.width // SPATIAL_COMPRESSION,
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
