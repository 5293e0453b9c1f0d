"""A clip that an in-context LoRA looks at while it generates: tokens beside the target's, at the same times.

Source: Lightricks/LTX-2, ltx-core conditioning/types/reference_video_cond.py and ltx-pipelines iclora_utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor

from scope_ltx.conditioning.attention import token_weights
from scope_ltx.conditioning.pins import Noise, VideoCoords
from scope_ltx.conditioning.sequence import TokenSequence, append
from scope_ltx.sampling.geometry import TEMPORAL_COMPRESSION, Grid


@dataclass(frozen=True)
class VideoReference:
    """An encoded clip.

    tokens: (1, T, C) normalised latents of `grid`. strength: 1 keeps them clean, 0 makes them noise.
    downscale: how many times smaller than the target the clip is; temporal_scale: how many of the target's
    frames pass from one of its frames to the next. Both are what the LoRA was trained with.
    attention_strength, attention_mask: how much tokens and target attend to each other, by a number and by
    pixel of the clip, (frames, height, width) in 0..1, where 8 frames of the mask stand for each latent frame
    but the first.
    """

    tokens: Tensor
    grid: Grid
    strength: float = 1.0
    downscale: int = 1
    temporal_scale: int = 1
    attention_strength: float = 1.0
    attention_mask: Tensor | None = None


def append_reference(
    video: TokenSequence, reference: VideoReference, frame_rate: float, coords: VideoCoords, noise: Noise
) -> TokenSequence:
    """The video with a reference behind it; further ones may follow. Pins come before references.

    `noise` is asked only for a strength below 1.
    """
    tokens = reference.tokens.shape[1]
    if tokens != prod(reference.grid):
        raise ValueError(f"a grid of {reference.grid} has {prod(reference.grid)} tokens, got {tokens}")
    if not 0.0 <= reference.attention_strength <= 1.0:
        raise ValueError(f"attention_strength must be within 0..1, got {reference.attention_strength}")
    attention: float | Tensor = reference.attention_strength
    if reference.attention_mask is not None:
        mask = reference.attention_mask.to(video.latents.device)
        attention = token_weights(mask, reference.grid, reference.attention_strength)
    return append(
        video,
        reference.tokens,
        reference_coords(coords, reference, frame_rate),
        reference.strength,
        noise=noise(tokens) if reference.strength < 1.0 else None,
        attention=attention,
    )


def reference_coords(coords: VideoCoords, reference: VideoReference, frame_rate: float) -> Tensor:
    """(1, 3, T, 2) bounds of the reference's cells in the target's seconds and pixels.

    With a temporal scale S the clip's frames are S apart, and its groups end when the target's do.
    """
    scale = reference.temporal_scale
    if scale < 1 or reference.downscale < 1:
        raise ValueError(f"scales are whole numbers from 1, got {reference.downscale} and {scale} in time")
    bounds = coords(*reference.grid, frame_rate / scale).clone()
    if scale > 1:
        bounds[:, 0] = (bounds[:, 0] - (scale - 1) / frame_rate).clamp_(min=0.0)
    bounds[:, 1:] *= reference.downscale
    return bounds


def kept_frames(num_frames: int, temporal_scale: int) -> tuple[int, ...]:
    """Which frames of a clip a LoRA of this temporal scale S looks at: 0, 1, 1 + S, 1 + 2 S and so on.

    Raises ValueError when what is left is not a number of frames that can be encoded.
    """
    kept = (0, *range(1, num_frames, temporal_scale))
    if len(kept) % TEMPORAL_COMPRESSION != 1:
        step = TEMPORAL_COMPRESSION * temporal_scale
        below = max(num_frames - 1, 0) // step * step + 1
        raise ValueError(
            f"a reference at 1/{temporal_scale} of the frame rate needs {step} k + 1 frames, got {num_frames}: "
            f"use {below} or {below + step}"
        )
    return kept
