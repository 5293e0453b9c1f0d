"""What a LoRA file is, from its header and the catalog: kind, rank, which model it is for, what it changes.

No model is needed: the layers of the published transformer are known by name, and sizes come from the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scope_ltx.catalog import load_catalog
from scope_ltx.checkpoints.header import Header, TensorEntry
from scope_ltx.inspect_file.architecture import PUBLISHED, SMALL, linear_layers
from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.families import family_by_name, family_by_shape
from scope_ltx.lora.keys import LayerNames, Role, other_method, parse_key
from scope_ltx.lora.kinds import LoraKind, audio_part, classify, is_text_layer
from scope_ltx.lora.metadata import reference_scale
from scope_ltx.manifest import Lora


@dataclass(frozen=True)
class _Layer:
    """One layer that the file changes: diffusers' name, rank and the (out, in) of the weight."""

    module: str
    rank: int
    shape: tuple[int, int]


def is_lora(keys: Collection[str]) -> bool:
    return any(other_method(key) or ((found := parse_key(key)) and found.role != "alpha") for key in keys)


def describe_lora(path: Path, header: Header) -> tuple[str, dict[str, str]]:
    """Its kind in words, and its details in the order of importance. Never raises for what is in the file."""
    methods = sorted({method for key in header.tensors if (method := other_method(key))})
    if methods:
        return f"LoRA of an unsupported type ({', '.join(methods)})", {}
    layers, strangers = _layers(header.tensors)
    if not layers:
        family = family_by_name(list(header.tensors))
        return "LoRA for another model" + (f", it looks like {family}" if family else ""), {}
    lora = load_catalog().get(path)
    kind, details = _kind(path, header, layers, lora)
    ranks = sorted({layer.rank for layer in layers})
    details |= {
        "rank": str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}",
        "model": _model(layers),
        "changes": _changes(layers),
    }
    if strangers:
        details["left out"] = f"{strangers:,} keys that are no layer of LTX-2.3"
    if lora is not None:
        details["catalog"] = f"{lora.id} ({lora.name}), made for {' or '.join(lora.base)}"
    return kind, details


def _layers(tensors: Mapping[str, TensorEntry]) -> tuple[list[_Layer], int]:
    """The complete pairs that LTX-2.3 has a layer for, and how many keys belong to none."""
    pairs: dict[str, dict[Role, tuple[int, ...]]] = {}
    strangers = 0
    for key, entry in tensors.items():
        parsed = parse_key(key)
        if parsed is None:
            strangers += 1
        else:
            pairs.setdefault(parsed.layer, {})[parsed.role] = entry.shape
    names = LayerNames(linear_layers(PUBLISHED))
    layers = []
    for stored, shapes in pairs.items():
        module = names.module(stored)
        down, up = shapes.get("down", ()), shapes.get("up", ())
        if module is None or len(down) != 2 or len(up) != 2:
            strangers += len(shapes)
        else:
            layers.append(_Layer(module, down[0], (up[0], down[1])))
    return layers, strangers


def _kind(path: Path, header: Header, layers: list[_Layer], lora: Lora | None) -> tuple[str, dict[str, str]]:
    """As the file says, and where it does not, as the catalog does."""
    problem = {}
    factor: int | None = None
    try:
        reference = reference_scale(path, header.metadata)
        factor = reference.downscale if reference.marked else None
    except LoraError as error:
        problem = {"problem": str(error)}
    blocks = 1 + max((index for layer in layers if (index := _block(layer.module)) is not None), default=-1)
    known = linear_layers(replace(PUBLISHED, blocks=blocks))
    shapes = known | {layer.module: layer.shape for layer in layers}
    told = classify({layer.module: layer.rank for layer in layers}, shapes, has_reference=factor is not None)
    if factor is None and lora is not None and lora.kind == "in_context":
        return f"IC-LoRA (reference downscale {lora.reference_downscale_factor}, the catalog says)", problem
    if told == "standard" and lora is not None:
        return "LoRA (video)", problem
    if told == "in_context":
        return f"IC-LoRA (reference downscale {factor})", problem
    return _KINDS[told], problem


_KINDS: Mapping[LoraKind, str] = {
    "standard": "LoRA (video; an IC-LoRA if its author says so)",
    "audio_video": "LoRA (video and audio)",
    "identity": "ID-LoRA (audio modules only)",
    "distillation": "distillation LoRA (every layer, cut out of a difference)",
}


def _model(layers: list[_Layer]) -> str:
    """Which model's sizes these are."""
    for size in (PUBLISHED, SMALL):
        known = linear_layers(size)
        if all(known.get(layer.module) == layer.shape for layer in layers):
            return size.name
    known = linear_layers(PUBLISHED)
    other = next(layer for layer in layers if known[layer.module] != layer.shape)
    guesses = (family_by_shape(layer.module, known[layer.module], layer.shape) for layer in layers)
    family = next((guess for guess in guesses if guess), None)
    sizes = f"{other.module} is {list(other.shape)}, in {PUBLISHED.name} {list(known[other.module])}"
    return f"{family}: {sizes}" if family else f"another one: {sizes}"


def _changes(layers: list[_Layer]) -> str:
    """How many layers, and of what."""
    blocks = {index for layer in layers if (index := _block(layer.module)) is not None}
    touched = {_part(layer.module) for layer in layers}
    named = ", ".join(part for part in _PARTS if part in touched)
    return f"{len(layers):,} layers, in {len(blocks)} blocks: {named}"


_PARTS = (
    "picture",
    "sound",
    "the ways between picture and sound",
    "embeddings and projections",
    "text connectors",
)


def _part(module: str) -> str:
    """One of _PARTS."""
    if is_text_layer(module):
        return "text connectors"
    if _block(module) is None:
        return "embeddings and projections"
    heard = audio_part(module)
    if heard is None:
        return "picture"
    return "the ways between picture and sound" if "_to_" in heard else "sound"


def _block(module: str) -> int | None:
    """The transformer block that a layer lies in."""
    root, _, rest = module.partition(".")
    return int(rest.partition(".")[0]) if root == "transformer_blocks" else None
