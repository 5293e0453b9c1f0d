"""Transformer file -> the diffusers transformer."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import LTX2VideoTransformer3DModel

from scope_ltx.checkpoints.keys import TRANSFORMER
from scope_ltx.checkpoints.loading import StoredModule
from scope_ltx.checkpoints.metadata import transformer_kwargs
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.lora.merging import LoraMerger
from scope_ltx.models.placement import Block
from scope_quant.capability import Fp8Path
from scope_streaming.weights.layout import block_tensors


def open_transformer(
    file: CheckpointFile, *, dtype: torch.dtype, fp8_path: Fp8Path
) -> StoredModule[LTX2VideoTransformer3DModel]:
    """The transformer on the meta device, checked against its file. Layers that the file holds in FP8 are
    `Fp8Linear`.

    Raises CheckpointError for settings or tensors that are not those of an LTX-2.3 transformer.
    """
    with torch.device("meta"):
        module = LTX2VideoTransformer3DModel(**transformer_kwargs(file))
    return StoredModule(module, [file], TRANSFORMER, dtype=dtype, fp8_path=fp8_path)


def transformer_blocks(stored: StoredModule[LTX2VideoTransformer3DModel], merger: LoraMerger) -> list[Block]:
    """The blocks in order of use, read with LoRAs merged; leave `transformer_blocks` for later when the rest is
    loaded."""
    blocks = []
    for index, module in enumerate(stored.module.transformer_blocks):
        path = f"transformer_blocks.{index}"
        read = merger.reader(path, block_tensors(module), partial(stored.read_under, path))
        blocks.append(Block(module, read, path))
    return blocks
