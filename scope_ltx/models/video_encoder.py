"""uint8 frames -> video tokens: pinned stills, reference clips, the tail of the chunk before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scope_ltx.sampling.geometry import latent_grid


class VideoEncoder:
    """The encoder half of the video VAE. Its posterior's mode is taken: nothing is drawn."""

    def __init__(self, video_vae: nn.Module) -> None:
        self._vae: Any = video_vae

    def encode(self, frames: Tensor) -> Tensor:
        """(F, H, W, 3) uint8, on the VAE's device or not -> (1, tokens, C) float32 normalised latents there, in
        the order (frame, row, column) of `latent_grid(F, H, W)`. The first latent frame stands for the first
        frame, each later one for eight.

        Raises ValueError unless F is 8 k + 1 (1 for a still) and H and W are multiples of 32.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise ValueError(f"frames are (F, H, W, 3) uint8, got {tuple(frames.shape)} {frames.dtype}")
        latent_grid(*frames.shape[:3])
        vae = self._vae
        pixels = frames.to(vae.device).permute(3, 0, 1, 2)[None].float().div_(127.5).sub_(1.0)
        posterior = vae.encode(pixels.to(vae.dtype), return_dict=False)[0]
        # The mode: channels of one token last, tokens in the order of the grid.
        tokens: Tensor = posterior.mode().float().flatten(2).transpose(1, 2)
        tokens = tokens - vae.latents_mean.to(tokens)
        return tokens.div_(vae.latents_std.to(tokens))
