"""Video VAE file -> the diffusers video autoencoder."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLLTX2Video

from scope_ltx.checkpoints.keys import VIDEO_VAE
from scope_ltx.checkpoints.loading import load_module
from scope_ltx.checkpoints.metadata import video_vae_kwargs
from scope_ltx.checkpoints.reader import CheckpointFile


def load_video_vae(file: CheckpointFile, *, device: torch.device, dtype: torch.dtype) -> AutoencoderKLLTX2Video:
    """Build and fill the video VAE, with the statistics that normalise its latents.

    Raises CheckpointError for settings or tensors that are not those of an LTX-2.3 video VAE.
    """
    with torch.device("meta"):
        module = AutoencoderKLLTX2Video(**video_vae_kwargs(file))
    load_module(module, [file], VIDEO_VAE, dtype=dtype, device=device)
    return module
