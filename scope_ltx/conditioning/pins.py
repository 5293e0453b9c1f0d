"""Stills that frames of the chunk shall show.

Frame 0 has latents of its own, so its pin replaces them. A later frame shares its latents with seven others, so
its pin is a keyframe: tokens appended with the coordinates of that one frame (decision D21; diffusers before
0.42 replaces latents there as well). Source: Lightricks/LTX-2, ltx-core conditioning/types, keyframe_cond.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence, append, pin
from scope_ltx.sampling.geometry import TEMPORAL_COMPRESSION, Grid

VideoCoords = Callable[[int, int, int, float], Tensor]
"""(frames, height, width, frame rate) of a latent grid -> its bounds: `Denoiser.video_coords`."""

Noise = Callable[[int], Tensor]
"""A number of tokens -> noise (1, tokens, C)."""


@dataclass(frozen=True)
class FramePin:
    """tokens: one encoded still (1, height * width, C), of the chunk's size. strength: 1 exactly, 0 not at all."""

    tokens: Tensor
    frame_idx: int
    strength: float = 1.0


def require_pin_frames(frame_indices: Sequence[int], num_frames: int) -> None:
    """Raises ValueError unless the pixel frames can be pinned together."""
    last = (num_frames - 1) // TEMPORAL_COMPRESSION * TEMPORAL_COMPRESSION
    for index in frame_indices:
        if index % TEMPORAL_COMPRESSION or not 0 <= index <= last:
            raise ValueError(
                f"an image can be pinned to frame 0, {TEMPORAL_COMPRESSION}, {2 * TEMPORAL_COMPRESSION} and so on "
                f"up to {last}, got {index}"
            )
        if frame_indices.count(index) > 1:
            raise ValueError(
                f"two images are pinned to frame {index}: put both into one image, side by side, or move one of "
                f"them to another multiple of {TEMPORAL_COMPRESSION}"
            )


def apply_pins(
    video: TokenSequence,
    pins: Sequence[FramePin],
    grid: Grid,
    frame_rate: float,
    coords: VideoCoords,
    noise: Noise,
    noise_scale: float = 1.0,
) -> TokenSequence:
    """The video with every pin. `noise` is asked only for keyframes of strength below 1; `noise_scale` is the
    level that denoising starts from.

    Raises ValueError for frames that cannot be pinned together and for stills of another size.
    """
    frames, height, width = grid
    require_pin_frames([one.frame_idx for one in pins], (frames - 1) * TEMPORAL_COMPRESSION + 1)
    for one in pins:
        if one.tokens.shape[1] != height * width:
            raise ValueError(f"a still of this size has {height * width} tokens, got {one.tokens.shape[1]}")
        if one.frame_idx == 0:
            video = pin(video, one.tokens, 0, one.strength)
        else:
            where = keyframe_coords(coords, height, width, one.frame_idx, frame_rate)
            drawn = noise(height * width) if one.strength < 1.0 else None
            video = append(video, one.tokens, where, one.strength, noise=drawn, noise_scale=noise_scale)
    return video


def keyframe_coords(coords: VideoCoords, height: int, width: int, frame_idx: int, frame_rate: float) -> Tensor:
    """(1, 3, height * width, 2) bounds of a still at pixel frame `frame_idx`: that one frame's time."""
    bounds = coords(1, height, width, frame_rate).clone()
    bounds[:, 0] = torch.tensor([frame_idx, frame_idx + 1], dtype=bounds.dtype, device=bounds.device) / frame_rate
    return bounds
