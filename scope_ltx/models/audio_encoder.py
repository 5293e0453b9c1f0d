"""Sound -> audio tokens: the inverse of `decode.AudioDecoder`, up to the vocoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scope_ltx.models.mel import LogMel

CHANNELS = 2


class AudioEncoder:
    """Encodes with the audio VAE's encoder, on the device and in the type that the VAE is in. The spectrogram and
    the normalisation are float32."""

    def __init__(self, audio_vae: nn.Module) -> None:
        self._vae: Any = audio_vae
        self._device = audio_vae.get_buffer("latents_mean").device
        self._log_mel = LogMel(self._device)

    @torch.inference_mode()
    def encode(self, waveform: Tensor) -> Tensor:
        """(2, N) at 16 kHz, on any device -> (1, `lengths.tokens_of(N)`, 128) float32 normalised tokens.

        The posterior's mean, as the reference takes it. Raises ValueError for another shape and below 513
        samples.
        """
        if waveform.ndim != 2 or waveform.shape[0] != CHANNELS:
            raise ValueError(f"the audio encoder takes ({CHANNELS}, N) samples, got {tuple(waveform.shape)}")
        vae = self._vae
        mel = self._log_mel(waveform.to(self._device))[None]
        latents: Tensor = vae.encode(mel.to(vae.dtype), return_dict=False)[0].mode()
        # A token is channel-major: 8 channels of 16 mel places.
        tokens = latents.transpose(1, 2).flatten(2).to(torch.float32, copy=True)
        tokens.sub_(vae.latents_mean.float()).div_(vae.latents_std.float())
        return tokens
