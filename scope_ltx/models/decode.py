"""Latents -> uint8 frames and 48 kHz samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class VideoDecoder:
    """Video tokens -> RGB frames."""

    def __init__(self, video_vae: nn.Module) -> None:
        self._vae: Any = video_vae

    def decode(self, tokens: Tensor, frames: int, height: int, width: int) -> Tensor:
        """(1, frames * height * width, C) normalised latents -> (F, H, W, 3) uint8 on the same device."""
        vae = self._vae
        latents = tokens.view(1, frames, height, width, -1).permute(0, 4, 1, 2, 3)
        mean, std = (_per_channel(value, latents) for value in (vae.latents_mean, vae.latents_std))
        pixels: Tensor = vae.decode((latents * std + mean).to(vae.dtype), None, return_dict=False)[0]
        levels = pixels[0].float().add(1).mul(127.5).round_().clamp_(0, 255)
        return levels.to(torch.uint8).permute(1, 2, 3, 0).contiguous()


class AudioDecoder:
    """Audio tokens -> mel spectrogram -> waveform. The vocoder runs in float32 (its file says bfloat16, but
    that costs 40-90 % on spectral metrics: Lightricks/LTX-2, ltx-core vocoder.py)."""

    def __init__(self, audio_vae: nn.Module, vocoder: nn.Module) -> None:
        self._vae: Any = audio_vae
        self._vocoder: Any = vocoder

    def decode(self, tokens: Tensor, samples: int) -> Tensor:
        """(1, L, 128) normalised latents -> (2, samples) float32 in [-1, 1], trimmed from (4 L - 3) * 480.

        Raises ValueError when the latents are too few for `samples`.
        """
        vae = self._vae
        latents = tokens * vae.latents_std.to(tokens) + vae.latents_mean.to(tokens)
        # A token is channel-major: 8 channels of 16 mel places.
        latents = latents.unflatten(2, (vae.config.latent_channels, -1)).transpose(1, 2)
        mel = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        waveform: Tensor = self._vocoder(mel.float())[0]
        if waveform.shape[1] < samples:
            raise ValueError(f"{tokens.shape[1]} audio latents give {waveform.shape[1]} samples, {samples} needed")
        return waveform[:, :samples].contiguous()


def _per_channel(value: Tensor, latents: Tensor) -> Tensor:
    return value.to(latents).view(1, -1, 1, 1, 1)
