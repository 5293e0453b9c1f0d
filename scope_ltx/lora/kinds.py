"""What kinds of LoRA there are, and which one a set of layers belongs to. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from scope_ltx.checkpoints.keys import CONNECTORS

LoraKind = Literal["standard", "audio_video", "in_context", "identity", "distillation"]
Base = Literal["distilled", "dev"]

LinearShapes = Mapping[str, tuple[int, int]]
"""{module name: (out, in)} of every linear layer that a LoRA could change."""

AUDIO_PARTS = ("audio_attn1", "audio_attn2", "audio_ff", "audio_to_video_attn", "video_to_audio_attn")
"""The parts of a block that hear: sound's own layers, and the two ways between picture and sound."""

_TEXT_PATHS = tuple(module for _, module in CONNECTORS.roots)


@dataclass(frozen=True)
class LoraHint:
    """What a catalog knows of a file and the file itself may not tell. None leaves it to the file.

    downscale counts only where the file's metadata says nothing about its reference.
    """

    kind: LoraKind | None = None
    trained_for: Base | None = None
    downscale: int | None = None


@dataclass(frozen=True)
class LoraFacts:
    """What decides whether a LoRA fits a mode. `name` is how messages call it: the file's name.

    downscale: by how much its reference video is smaller than the output. trained_for: the only base
    checkpoint that it works with, or None for either.
    """

    name: str
    kind: LoraKind
    downscale: int = 1
    temporal_scale: int = 1
    trained_for: Base | None = None


def is_text_layer(module: str) -> bool:
    """Whether a layer belongs to the text connectors rather than the transformer."""
    return any(module == path or module.startswith(f"{path}.") for path in _TEXT_PATHS)


def audio_part(module: str) -> str | None:
    """Which of AUDIO_PARTS a layer lies in."""
    return next((part for part in module.split(".") if part in AUDIO_PARTS), None)


def classify(ranks: Mapping[str, int], shapes: LinearShapes, *, has_reference: bool) -> LoraKind:
    """The kind of a LoRA with these {layer: rank} on a model with these layers.

    has_reference   the file's metadata says how its reference video is scaled.
    distillation    changes every layer of the transformer, and was cut out of a difference of two checkpoints:
                    layers too narrow for its rank have as much as they can hold (published: rank 384, but 32
                    on the gates of 32 heads). A LoRA that was trained has one rank everywhere.
    identity        changes all parts that hear and nothing else.

    An in-context LoRA whose reference is not scaled often has no mark of it: only a catalog can tell it from a
    standard one.
    """
    if has_reference:
        return "in_context"
    layers = {module for module in ranks if not is_text_layer(module)}
    if layers >= {module for module in shapes if not is_text_layer(module)} and _is_cut_out(ranks, shapes):
        return "distillation"
    parts = {audio_part(module) for module in layers}
    if parts == set(AUDIO_PARTS):
        return "identity"
    return "audio_video" if parts - {None} else "standard"


def hears(modules: Collection[str]) -> bool:
    return any(audio_part(module) for module in modules)


def _is_cut_out(ranks: Mapping[str, int], shapes: LinearShapes) -> bool:
    full = max(ranks.values())
    return any(rank < full and min(shapes[module]) < full for module, rank in ranks.items())
