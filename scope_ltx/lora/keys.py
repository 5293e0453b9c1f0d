"""Names in LoRA files: which layer of our modules a key changes, and as what. Imports no torch.

    convention               example
    LTX trainer, ComfyUI     diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight
    Kohya                    ....lora_down.weight, .lora_up.weight, .alpha; also lora_unet_transformer_blocks_0_...
    full prefix              model.diffusion_model....
    PEFT, diffusers          transformer.... in diffusers' names; connectors....; base_model.model....

Layers are called by Lightricks' names or by diffusers'. The checkpoint's own KeyMaps take both to diffusers':
they leave names alone that they do not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from scope_ltx.checkpoints.keys import CONNECTORS, DIFFUSION_PREFIX, TRANSFORMER
from scope_ltx.lora.kinds import LinearShapes

Role = Literal["down", "up", "alpha"]
"""down is lora_A (r, in), up is lora_B (out, r), alpha a number."""

_PREFIXES = ("base_model.model.", f"{DIFFUSION_PREFIX}.", "diffusion_model.", "transformer.", "connectors.")
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_")
_ADAPTER = r"(?:\.default)?(?:\.weight)?$"
_ROLES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("down", re.compile(r"\.(?:lora_A|lora_down|lora\.down)" + _ADAPTER)),
    ("up", re.compile(r"\.(?:lora_B|lora_up|lora\.up)" + _ADAPTER)),
    ("alpha", re.compile(r"\.alpha$")),
)
_OTHER_METHODS = (
    ("DoRA", ("dora_scale", "lora_magnitude_vector")),
    ("LoKr", ("lokr_",)),
    ("LoHa", ("hada_",)),
    ("OFT", ("oft_blocks", "oft_diag", "oft_R")),
    ("a convolution with a middle factor", ("lora_mid",)),
)
_DIFFERENCES = re.compile(r"\.(?:diff|diff_b|set_weight|(?:lora_B|lora_up)(?:\.default)?\.bias)$")


@dataclass(frozen=True)
class LoraKey:
    """`layer` is as stored, with its prefix and without the role's suffix."""

    layer: str
    role: Role


def parse_key(key: str) -> LoraKey | None:
    """None for a key that is no part of a low-rank pair."""
    for role, pattern in _ROLES:
        found = pattern.search(key)
        if found:
            return LoraKey(key[: found.start()], role)
    return None


def other_method(key: str) -> str | None:
    """The name of a method that is not a plain low-rank pair and that this key belongs to."""
    for name, parts in _OTHER_METHODS:
        if any(f".{part}" in key for part in parts):
            return name
    return None


def is_difference(key: str) -> bool:
    """A whole change of a bias, a norm or a weight, not a low-rank one."""
    return _DIFFERENCES.search(key) is not None


class LayerNames:
    """Finds the module of a stored layer, among the layers that a model has."""

    def __init__(self, shapes: LinearShapes) -> None:
        self._known = shapes
        self._flat: dict[str, str] = {}
        for module in shapes:
            published = TRANSFORMER.to_published(module).removeprefix(f"{DIFFUSION_PREFIX}.")
            self._flat[published.replace(".", "_")] = module
            self._flat[module.replace(".", "_")] = module

    def module(self, layer: str) -> str | None:
        """diffusers' name of the layer; None if the model has no such linear layer."""
        for prefix in _FLAT_PREFIXES:
            if layer.startswith(prefix):
                return self._flat.get(layer.removeprefix(prefix))
        for prefix in _PREFIXES:
            layer = layer.removeprefix(prefix)
        for keymap in (TRANSFORMER, CONNECTORS):
            # With a leaf, because maps rename the parts of a tensor's name.
            name = (keymap.to_module(f"{layer}.weight") or "").removesuffix(".weight")
            if name in self._known:
                return name
        return None
