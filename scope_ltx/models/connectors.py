"""Transformer file and projection file -> the diffusers text connectors."""

from __future__ import annotations

from functools import partial

import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from torch import Tensor, nn

from scope_ltx.checkpoints.keys import CONNECTORS
from scope_ltx.checkpoints.loading import StoredModule
from scope_ltx.checkpoints.metadata import connectors_kwargs
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.lora.merging import LoraMerger
from scope_ltx.models.placement import Block
from scope_ltx.models.split_linear import RowSplitLinear
from scope_quant.capability import Fp8Path
from scope_streaming.weights.layout import block_tensors

PROJECTIONS = ("video_text_proj_in", "audio_text_proj_in")
CONNECTOR_BLOCKS = ("video_connector.transformer_blocks", "audio_connector.transformer_blocks")


def open_connectors(
    transformer_file: CheckpointFile, projection_file: CheckpointFile, *, dtype: torch.dtype, fp8_path: Fp8Path
) -> StoredModule[LTX2TextConnectors]:
    """The connectors on the meta device, checked against their files: projections are in one, the connectors
    proper in the other, which also has the settings.

    Raises CheckpointError for files that do not belong together or are not LTX-2.3's.
    """
    with torch.device("meta"):
        module = LTX2TextConnectors(**connectors_kwargs(transformer_file, projection_file))
    stored = StoredModule(module, [transformer_file, projection_file], CONNECTORS, dtype=dtype, fp8_path=fp8_path)
    quantized = [name for name in PROJECTIONS if not isinstance(getattr(module, name), nn.Linear)]
    if quantized:
        keys = [CONNECTORS.to_published(f"{name}.weight") for name in quantized]
        advice = "Use the projection file in bfloat16; FP8 is read in the transformer and the text encoder only"
        raise CheckpointError(projection_file.path, "holds a projection in FP8", keys=keys, advice=advice)
    return stored


def connector_blocks(stored: StoredModule[LTX2TextConnectors], merger: LoraMerger) -> list[Block]:
    """The projections in parts, then the connectors' blocks, in order of use, read with LoRAs merged.

    Takes over the two projections; leave PROJECTIONS and CONNECTOR_BLOCKS for later when the rest is loaded.
    """
    blocks = []
    for projection, path in zip(PROJECTIONS, CONNECTOR_BLOCKS, strict=True):
        split = RowSplitLinear(getattr(stored.module, projection))
        stored.module.add_module(projection, split)
        for first_row, part in zip(split.first_rows, split.parts, strict=True):

            def read(name: str, target: Tensor, projection: str = projection, first_row: int = first_row) -> None:
                stored.read_into(f"{projection}.{name}", target, first_row)

            merged = merger.reader(projection, block_tensors(part), read, first_row=first_row)
            blocks.append(Block(part, merged, projection))
        for index, module in enumerate(stored.module.get_submodule(path).children()):
            inside = f"{path}.{index}"
            read_block = merger.reader(inside, block_tensors(module), partial(stored.read_under, inside))
            blocks.append(Block(module, read_block, inside))
    return blocks
