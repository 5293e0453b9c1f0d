"""A small latent upsampler in the layout of the published x2 file: flat settings, no prefix, bfloat16.

Not trained: what stage two starts from is a random function of stage one's latents, under a noise of nine tenths
(0.909375).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from torch import nn

from scope_ltx.models.small.draw import State, draw_state, generator_for, shapes_of
from scope_ltx.models.small.safetensors_file import write_safetensors
from scope_ltx.models.small.sizes import LATENT_CHANNELS

WIDTH = 32
"""The least that its group norms take; published 1,024."""
BLOCKS_PER_STAGE = 1
"""Published 4."""

_OUTPUT_GAIN = 1.6
"""The last activation has a root mean square of 0.6: this gives latents of about 1."""


def build_upsampler() -> nn.Module:
    module: nn.Module = LTX2LatentUpsamplerModel(
        in_channels=LATENT_CHANNELS,
        mid_channels=WIDTH,
        num_blocks_per_stage=BLOCKS_PER_STAGE,
        use_rational_resampler=False,
    )
    return module


def upsampler_metadata() -> dict[str, Any]:
    return {
        "_class_name": "LatentUpsampler",
        "in_channels": LATENT_CHANNELS,
        "mid_channels": WIDTH,
        "num_blocks_per_stage": BLOCKS_PER_STAGE,
        "dims": 3,
        "spatial_upsample": True,
        "temporal_upsample": False,
        "spatial_scale": 2.0,
        "rational_resampler": False,
    }


def upsampler_weights(seed: int) -> State:
    """State dict of `build_upsampler`, float32."""
    state = draw_state(shapes_of(build_upsampler), generator_for(seed, "upsampler"), 1.0)
    state["final_conv.weight"].mul_(_OUTPUT_GAIN)
    return state


def write_upsampler(path: Path, seed: int) -> None:
    """Write the file (0.7 MB), the same bytes for the same seed. Its directory is made."""
    tensors = {name: tensor.bfloat16() for name, tensor in upsampler_weights(seed).items()}
    metadata = {"config": json.dumps(upsampler_metadata()), "format": "pt"}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, tensors, metadata)
