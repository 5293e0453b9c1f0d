"""The latent upsampler of one model, on the device only while two stages are asked for.

1 GB that one mode needs would cost every other mode three blocks of a 24 GB device. So it stays in the file's
memory map on the host, goes to the device when it is first used (0.2 s), and back when told.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scope_ltx.models.upsampler import LatentUpsampler
from scope_ltx.sampling.geometry import Grid
from scope_streaming.weights.layout import bind, block_tensors


class StageUpsampler:
    """`model` has its values on the host; the VAE is on the device that is used."""

    def __init__(self, model: nn.Module, video_vae: nn.Module, device: torch.device) -> None:
        """Raises ValueError for a VAE with another number of latent channels."""
        self._model = model
        self._device = device
        self._host = {name: tensor.detach() for name, tensor in block_tensors(model).items()}
        self._upsampler = LatentUpsampler(model, video_vae)
        self._awake = False

    def upsample(self, tokens: Tensor, grid: Grid) -> Tensor:
        """As `LatentUpsampler.upsample`. The first call after a rest takes the weights to the device."""
        if not self._awake:
            with torch.inference_mode(False):
                bind(self._model, {name: tensor.to(self._device) for name, tensor in self._host.items()})
            self._awake = True
        return self._upsampler.upsample(tokens, grid)

    def rest(self) -> None:
        """Give the device's memory back. Nothing to do where it is at rest already."""
        if self._awake:
            bind(self._model, self._host)
            self._awake = False
