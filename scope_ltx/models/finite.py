"""Whether a chunk's latents are numbers at all. NaN spreads: one in a latent is a picture of nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from scope_ltx.errors import NotFiniteError
from scope_ltx.models.decode import Latents


def finite_flags(latents: Latents) -> Tensor:
    """(2,) bool on the latents' device, for picture and sound. Launched only: nothing waits for it."""
    return torch.stack([torch.isfinite(latents.video).all(), torch.isfinite(latents.audio).all()])


def require_finite(flags: Tensor) -> None:
    """Read `finite_flags`, which waits for the device. Raises NotFiniteError naming picture or sound."""
    video, audio = flags.tolist()
    if not (video and audio):
        raise NotFiniteError("picture" if not video else "sound")
