"""Small LoRAs under the catalog's file names, for the small model: one of each kind that an example uses.

Keys, types, layers and metadata are those of the published files; ranks are lower. All of it is random and mild,
but for one thing: the in-context LoRAs let a head of the first block carry the colours of a reference video into
the target lane, so that a person can see the picture follow it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scope_ltx.catalog import LORA_DIRECTORY, load_catalog
from scope_ltx.checkpoints.keys import TRANSFORMER
from scope_ltx.lora.kinds import AUDIO_PARTS
from scope_ltx.manifest import LoraKind
from scope_ltx.models.small.draw import State, generator_for
from scope_ltx.models.small.safetensors_file import write_safetensors
from scope_ltx.models.small.sizes import VIDEO_HEAD, VIDEO_WIDTH
from scope_ltx.models.small.transformer_weights import AUDIO, CLEAN_LANE, VIDEO
from scope_ltx.models.small.video_vae_weights import COLOURS

SMALL_LORAS = ("union-control", "ingredients", "sync", "dual-character", "id-lora")
"""Catalog ids: one of each kind that an example uses. The two without a downscale factor in their metadata are as
published: only the catalog tells that they are in-context LoRAs."""

RANK = 4

_PICTURE_PARTS = ("attn1", "attn2", "ff")
_SHARE = 0.3
"""Size of a random change, as a share of the random weights that it changes."""
_INTO_LANES = 0.12
"""How strongly a change writes into the lanes: the weights that it changes have 0.02."""
_DESIGNED = ("transformer_blocks.0.", "transformer_blocks.1.")
_SHARE_OF_DESIGNED = 0.1
"""Of a change, in the blocks whose attention is laid out by hand: a little there moves the whole picture."""

_SHARE_OF_TRAINED = 0.1
"""Of a stand-in's change: trained weights do not bear much."""

_CARRYING = "transformer_blocks.0.attn1"
_CARRIED_GAIN = 4.0
_ATTENTION_TO_CLEAN = 2.0
"""Keys of encoded tokens are this much longer: a reference of half the size is seen 400 times as much as noise."""

Factors = dict[str, tuple[Tensor, Tensor]]
"""{module: (down (r, in), up (out, r))}."""


@dataclass(frozen=True)
class _Form:
    kind: LoraKind
    metadata: Mapping[str, str]


def write_loras(directory: Path, transformer: State, seed: int) -> None:
    """Write every small LoRA for the weights `transformer` (float32, diffusers' names) below a model directory."""
    for name in SMALL_LORAS:
        _write(directory, name, lora_factors(name, load_catalog().find(name).kind, transformer, seed))


def write_stand_ins(directory: Path, shapes: Mapping[str, torch.Size], seed: int) -> None:
    """Write those that are not there yet, for a trained transformer with weights of these shapes: they have the
    published form, change little and mean nothing."""
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    for name in SMALL_LORAS:
        lora = load_catalog().find(name)
        if (directory / LORA_DIRECTORY / lora.file).is_file():
            continue
        # Nothing is carried from a reference: that needs weights that are laid out by hand.
        kind: LoraKind = "identity" if lora.kind == "identity" else "standard"
        factors = lora_factors(name, kind, weights, seed)
        _write(directory, name, {module: (down, up * _SHARE_OF_TRAINED) for module, (down, up) in factors.items()})


def _write(directory: Path, name: str, factors: Factors) -> None:
    lora = load_catalog().find(name)
    folder = directory / LORA_DIRECTORY
    folder.mkdir(parents=True, exist_ok=True)
    scaled = (lora.reference_downscale_factor or 1) > 1
    marks = {"reference_downscale_factor": str(lora.reference_downscale_factor)} if scaled else {}
    write_safetensors(folder / lora.file, published_factors(factors), {"format": "pt", **marks})


def lora_factors(name: str, kind: LoraKind, transformer: State, seed: int) -> Factors:
    """The change of every layer that published LoRAs of this kind change. One stream of numbers per LoRA."""
    generator = generator_for(seed, f"lora {name}")
    parts = AUDIO_PARTS if kind == "identity" else _PICTURE_PARTS
    factors = {}
    for key in sorted(transformer):
        if _is_changed(key, transformer[key], parts):
            module = key.removesuffix(".weight")
            factors[module] = _random_change(module, transformer[key].shape, generator)
    if kind == "in_context":
        factors |= _carry_colours(transformer, factors)
    return factors


def _is_changed(key: str, weight: Tensor, parts: tuple[str, ...]) -> bool:
    block, _, rest = key.removeprefix("transformer_blocks.").partition(".")
    is_layer = key.endswith(".weight") and weight.ndim == 2 and "to_gate_logits" not in key
    return block.isdecimal() and is_layer and rest.split(".")[0] in parts


def _random_change(module: str, shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    rows, columns = shape
    # up @ down has entries with a deviation of `share / sqrt(columns)`, as the random weights have.
    down = torch.randn(RANK, columns, generator=generator) / math.sqrt(columns)
    for lanes in (VIDEO, AUDIO):
        if columns == lanes.width and not module.endswith("to_out.0"):
            # Reading the constants would add the same to every token: one colour over the whole picture.
            down[:, lanes.constant_start : lanes.free] = 0
    share = _SHARE * (_SHARE_OF_DESIGNED if module.startswith(_DESIGNED) else 1)
    up = torch.randn(rows, RANK, generator=generator) * (share / math.sqrt(RANK))
    if module.endswith(("to_out.0", "ff.net.2")):
        lanes = VIDEO if rows == VIDEO_WIDTH else AUDIO
        up[: lanes.free] *= _INTO_LANES
    return down, up


def _carry_colours(transformer: State, factors: Factors) -> Factors:
    """Head 1 of the first block sees places near its own, where a reference's tokens are as well as the picture's.
    It is told to look at encoded tokens rather than noise, and to carry their colours to the target.

    Values and output become what they shall be by changes of the difference to what they are, in one place more
    than there are colours, so that every layer has the same rank.
    """
    value, out = (transformer[f"{_CARRYING}.{layer}.weight"] for layer in ("to_v", "to_out.0"))
    places, colours = torch.arange(VIDEO_HEAD, VIDEO_HEAD + RANK), torch.arange(COLOURS)
    rows, columns = value[places].neg(), out[:, places].neg()
    rows[colours, VIDEO.picture + colours] += VIDEO.rms
    columns[VIDEO.target + colours, colours] += _CARRIED_GAIN
    chosen = torch.nn.functional.one_hot(places, VIDEO_WIDTH).float()
    down, up = (factor.clone() for factor in factors[f"{_CARRYING}.to_k"])
    down[0], up[:, 0] = 0, 0
    down[0, CLEAN_LANE] = VIDEO.rms
    up[VIDEO_HEAD : VIDEO_HEAD + VIDEO_HEAD // 2, 0] = _ATTENTION_TO_CLEAN
    return {
        f"{_CARRYING}.to_k": (down, up),
        f"{_CARRYING}.to_v": (rows, chosen.T),
        f"{_CARRYING}.to_out.0": (chosen, columns),
    }


def published_factors(factors: Factors) -> State:
    """As Lightricks' trainer writes them: bfloat16, below `diffusion_model.`, without an alpha."""
    tensors = {}
    for module, (down, up) in factors.items():
        layer = TRANSFORMER.to_published(module).removeprefix("model.")
        tensors[f"{layer}.lora_A.weight"] = down.bfloat16().contiguous()
        tensors[f"{layer}.lora_B.weight"] = up.bfloat16().contiguous()
    return tensors
