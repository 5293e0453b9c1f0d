"""Audio file -> the diffusers audio autoencoder, and the vocoder."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Audio
from diffusers.pipelines.ltx2 import LTX2VocoderWithBWE

from scope_ltx.checkpoints.keys import AUDIO_VAE, VOCODER
from scope_ltx.checkpoints.loading import load_module
from scope_ltx.checkpoints.metadata import audio_vae_kwargs, vocoder_kwargs
from scope_ltx.checkpoints.reader import CheckpointFile

MEL_DOWNSAMPLING = 4
"""Mel bands per place of a latent."""


def load_audio_vae(file: CheckpointFile, *, device: torch.device, dtype: torch.dtype) -> AutoencoderKLLTX2Audio:
    """Build and fill the audio VAE, with the statistics that normalise its latents.

    Raises CheckpointError for settings or tensors that are not those of an LTX-2.3 audio VAE.
    """
    kwargs = audio_vae_kwargs(file)
    with torch.device("meta"):
        module = AutoencoderKLLTX2Audio(**kwargs)
        # diffusers sizes the statistics by `base_channels`. They describe tokens of latent channels x mel
        # places, which is the same number, 128, only at the published size.
        tokens = kwargs["latent_channels"] * kwargs["mel_bins"] // MEL_DOWNSAMPLING
        module.register_buffer("latents_mean", torch.zeros(tokens))
        module.register_buffer("latents_std", torch.ones(tokens))
    load_module(module, [file], AUDIO_VAE, dtype=dtype, device=device)
    return module


def load_vocoder(file: CheckpointFile, *, device: torch.device) -> LTX2VocoderWithBWE:
    """Build and fill the vocoder, in float32 always: bfloat16 costs 40 to 90 % on spectral metrics
    (Lightricks/LTX-2, ltx-core vocoder).

    The resampler's filter, a Hann-windowed sinc, is in no file; it is computed.

    Raises CheckpointError for settings or tensors that are not those of an LTX-2.3 vocoder.
    """
    with torch.device("meta"):
        module = LTX2VocoderWithBWE(**vocoder_kwargs(file))
    meta: Any = module.resampler
    resampler = type(meta)(ratio=meta.ratio, window_type="hann", persistent=False)
    load_module(
        module,
        [file],
        VOCODER,
        dtype=torch.float32,
        device=device,
        computed={"resampler.filter": resampler.filter},
    )
    return module
