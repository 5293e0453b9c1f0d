"""Latent upsampler file -> diffusers' upsampler, and video tokens at twice the height and width.

Between the two stages of two-stage sampling. The upsampler works on latents as the video VAE decodes them, the
transformer on normalised ones, so tokens are un-normalised before and normalised after.
Source: Lightricks/LTX-2, ltx-core model/upsampler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from torch import Tensor, nn

from scope_ltx.checkpoints.keys import KeyMap
from scope_ltx.checkpoints.loading import load_module
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.checkpoints.settings import Section
from scope_ltx.sampling.geometry import Grid

SCALE = 2
"""Height and width grow by this; frames stay."""

GROUPS = 32
"""Of the group norms: the inner width is a multiple of it."""

UPSAMPLER = KeyMap(name="latent upsampler", roots=(("", ""),))

_CONSTANTS: Mapping[str, Any] = {
    "_class_name": "LatentUpsampler",
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
    "spatial_scale": float(SCALE),
    "rational_resampler": False,
}
"""Those of the x2 file for LTX-2.3. The x1.5 and the temporal file have others, and need other code."""


def upsampler_kwargs(file: CheckpointFile) -> dict[str, Any]:
    """The settings, which lie flat in the file's `config` -> LTX2LatentUpsamplerModel.

    Raises CheckpointError for settings that are not those of a spatial x2 upsampler.
    """
    settings = Section(file.path, "config", file.config())
    settings.constants(_CONSTANTS)
    width = settings.integer("mid_channels")
    if width % GROUPS:
        raise settings.mismatch("mid_channels", f"a multiple of {GROUPS}", width)
    return {
        "in_channels": settings.integer("in_channels"),
        "mid_channels": width,
        "num_blocks_per_stage": settings.integer("num_blocks_per_stage"),
        "dims": 3,
        "spatial_upsample": True,
        "temporal_upsample": False,
        "rational_spatial_scale": float(SCALE),
        # diffusers' default is the resampler of LTX-2.0.
        "use_rational_resampler": False,
    }


def load_upsampler(file: CheckpointFile, *, device: torch.device, dtype: torch.dtype) -> LTX2LatentUpsamplerModel:
    """Build and fill the upsampler: 1.0 GB in bfloat16.

    Raises CheckpointError for settings or tensors that are not those of LTX-2.3's spatial x2 upsampler.
    """
    kwargs = upsampler_kwargs(file)
    with torch.device("meta"):
        module = LTX2LatentUpsamplerModel(**kwargs)
    load_module(module, [file], UPSAMPLER, dtype=dtype, device=device)
    return module


def upsampled_grid(grid: Grid) -> Grid:
    """Latent frames, height and width of what comes out."""
    frames, height, width = grid
    return frames, SCALE * height, SCALE * width


class LatentUpsampler:
    """An upsampler with the statistics of the video VAE whose latents it takes; both on one device."""

    def __init__(self, model: nn.Module, video_vae: nn.Module) -> None:
        """Raises ValueError for a VAE with another number of latent channels."""
        self._model: Any = model
        mean: Any = video_vae.latents_mean
        std: Any = video_vae.latents_std
        self._mean: Tensor = mean.float()
        self._std: Tensor = std.float()
        settings: Any = model.config
        channels = settings.in_channels
        if len(self._mean) != channels:
            raise ValueError(f"the upsampler takes latents of {channels} channels, the VAE has {len(self._mean)}")

    def upsample(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(1, T, C) normalised latents on `grid` -> (1, 4 T, C) on `upsampled_grid(grid)`, float32.

        Tokens are in the order (frame, row, column), and on the upsampler's device. Statistics are applied in
        float32, the model runs in its own type. Raises ValueError for tokens that do not fill the grid.
        """
        frames, height, width = grid
        if tokens.ndim != 3 or tokens.shape[1:] != (frames * height * width, len(self._mean)):
            expected = (tokens.shape[0], frames * height * width, len(self._mean))
            raise ValueError(f"a grid {grid} needs tokens {expected}, got {tuple(tokens.shape)}")
        latents = (tokens.float() * self._std + self._mean).reshape(-1, *grid, len(self._mean))
        larger: Tensor = self._model(latents.permute(0, 4, 1, 2, 3).to(self._model.dtype))
        normalised: Tensor = (larger.float().flatten(2).transpose(1, 2) - self._mean) / self._std
        return normalised
