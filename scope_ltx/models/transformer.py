"""Transformer file -> the diffusers transformer."""

from __future__ import annotations

import torch
from diffusers import LTX2VideoTransformer3DModel

from scope_ltx.checkpoints.keys import TRANSFORMER
from scope_ltx.checkpoints.loading import load_module
from scope_ltx.checkpoints.metadata import transformer_kwargs
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_quant.capability import Fp8Path


def build_transformer(
    file: CheckpointFile, *, device: torch.device, dtype: torch.dtype, fp8_path: Fp8Path
) -> LTX2VideoTransformer3DModel:
    """Build and fill the transformer. Layers that the file holds in FP8 stay so, as `Fp8Linear`.

    Raises CheckpointError for settings or tensors that are not those of an LTX-2.3 transformer.
    """
    with torch.device("meta"):
        module = LTX2VideoTransformer3DModel(**transformer_kwargs(file))
    load_module(module, [file], TRANSFORMER, dtype=dtype, device=device, fp8_path=fp8_path)
    return module
