"""Stand-ins for LoRAs under the catalog's file names, and the form in which LoRAs are published.

A stand-in has the keys, types, layers and metadata of the published file at a lower rank. Its factors are random
and mild: a mode that needs the file runs, and its result shows that the file took part, but it teaches nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from scope_ltx.catalog import LORA_DIRECTORY, load_catalog
from scope_ltx.checkpoints.keys import TRANSFORMER
from scope_ltx.lora.kinds import AUDIO_PARTS
from scope_ltx.manifest import LoraKind
from scope_ltx.models.small.draw import State, generator_for
from scope_ltx.models.small.safetensors_file import write_safetensors

SMALL_LORAS = ("union-control", "ingredients", "sync", "dual-character", "id-lora")
"""Catalog ids: one of each kind that an example uses. The two without a downscale factor in their metadata are as
published: only the catalog tells that they are in-context LoRAs."""

RANK = 4

_PICTURE_PARTS = ("attn1", "attn2", "ff")
_GAINS: dict[LoraKind, float] = {"in_context": 0.03}
_GAIN = 0.45
"""Of a change, where weights that were just drawn have 1: a picture of the trained model moves by a few levels of
255, and stays the same to the eye. Less for in-context LoRAs: what the shipped weights take from a reference by
themselves is little, and more would drown it."""

Factors = dict[str, tuple[Tensor, Tensor]]
"""{module: (down (r, in), up (out, r))}."""


def write_stand_ins(directory: Path, shapes: Mapping[str, torch.Size], seed: int) -> None:
    """Write those of `SMALL_LORAS` that are not below the model directory yet, for a transformer with weights of
    these shapes (diffusers' names): what is there was trained. The same seed gives the same bytes."""
    folder = directory / LORA_DIRECTORY
    folder.mkdir(parents=True, exist_ok=True)
    for name in SMALL_LORAS:
        lora = load_catalog().find(name)
        path = folder / lora.file
        if path.is_file():
            continue
        downscale = lora.reference_downscale_factor or 1
        marks = {"reference_downscale_factor": str(downscale)} if downscale > 1 else {}
        factors = _draw_factors(lora.kind, shapes, generator_for(seed, f"lora {name}"))
        write_safetensors(path, published_factors(factors), {"format": "pt", **marks})


def _draw_factors(kind: LoraKind, shapes: Mapping[str, torch.Size], generator: torch.Generator) -> Factors:
    """For every layer that published LoRAs of this kind change."""
    parts = AUDIO_PARTS if kind == "identity" else _PICTURE_PARTS
    gain = _GAINS.get(kind, _GAIN)
    factors = {}
    for key in sorted(shapes):
        if not _is_changed(key, shapes[key], parts):
            continue
        rows, columns = shapes[key]
        # up @ down has entries with a deviation of gain / sqrt(columns): as `draw_state` draws a matrix.
        down = torch.randn(RANK, columns, generator=generator) / math.sqrt(columns)
        up = torch.randn(rows, RANK, generator=generator) * (gain / math.sqrt(RANK))
        factors[key.removesuffix(".weight")] = (down, up)
    return factors


def _is_changed(key: str, shape: torch.Size, parts: tuple[str, ...]) -> bool:
    block, _, rest = key.removeprefix("transformer_blocks.").partition(".")
    is_layer = key.endswith(".weight") and len(shape) == 2 and "to_gate_logits" not in key
    return block.isdecimal() and is_layer and rest.split(".")[0] in parts


def published_factors(factors: Factors) -> State:
    """As Lightricks' trainer writes them: bfloat16, below `diffusion_model.`, without an alpha."""
    tensors = {}
    for module, (down, up) in factors.items():
        layer = TRANSFORMER.to_published(module).removeprefix("model.")
        tensors[f"{layer}.lora_A.weight"] = down.bfloat16().contiguous()
        tensors[f"{layer}.lora_B.weight"] = up.bfloat16().contiguous()
    return tensors
