"""Transformer file and projection file -> the diffusers text connectors."""

from __future__ import annotations

import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors

from scope_ltx.checkpoints.keys import CONNECTORS
from scope_ltx.checkpoints.loading import load_module
from scope_ltx.checkpoints.metadata import connectors_kwargs
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_quant.capability import Fp8Path


def load_connectors(
    transformer_file: CheckpointFile,
    projection_file: CheckpointFile,
    *,
    device: torch.device,
    dtype: torch.dtype,
    fp8_path: Fp8Path,
) -> LTX2TextConnectors:
    """Projections come from one file, the connectors proper from the other, which also has the settings.

    Raises CheckpointError for files that do not belong together or are not LTX-2.3's.
    """
    with torch.device("meta"):
        module = LTX2TextConnectors(**connectors_kwargs(transformer_file, projection_file))
    files = [transformer_file, projection_file]
    load_module(module, files, CONNECTORS, dtype=dtype, device=device, fp8_path=fp8_path)
    return module
