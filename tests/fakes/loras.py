"""Small LoRA files of every kind, in every convention of keys, for any model whose layers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from scope_ltx.checkpoints.keys import CONNECTORS, TRANSFORMER
from scope_ltx.lora.kinds import AUDIO_PARTS, LinearShapes, LoraKind, is_text_layer

Factors = dict[str, tuple[Tensor, Tensor]]
"""{module: (down (r, in), up (out, r))}"""

_PICTURE = ("attn1", "attn2", "ff")


def _published(module: str) -> str:
    keymap = CONNECTORS if is_text_layer(module) else TRANSFORMER
    return keymap.to_published(module).removeprefix("model.diffusion_model.")


def _diffusers(module: str) -> str:
    return f"{'connectors' if is_text_layer(module) else 'transformer'}.{module}"


@dataclass(frozen=True)
class Convention:
    """How a layer is called, and its two factors."""

    layer: Callable[[str], str]
    down: str = "lora_A.weight"
    up: str = "lora_B.weight"


_KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight"}
CONVENTIONS: Mapping[str, Convention] = {
    "comfy": Convention(lambda module: f"diffusion_model.{_published(module)}"),
    "full": Convention(lambda module: f"model.diffusion_model.{_published(module)}"),
    "bare": Convention(_published),
    "kohya": Convention(lambda module: f"diffusion_model.{_published(module)}", **_KOHYA),
    "kohya flat": Convention(lambda module: "lora_unet_" + _published(module).replace(".", "_"), **_KOHYA),
    "diffusers": Convention(_diffusers),
    "peft": Convention(lambda module: f"base_model.model.{module}"),
    "peft adapter": Convention(
        lambda module: f"base_model.model.{module}", "lora_A.default.weight", "lora_B.default.weight"
    ),
    "peft published": Convention(lambda module: f"base_model.model.diffusion_model.{_published(module)}"),
}


def layers_of(kind: LoraKind, shapes: LinearShapes) -> list[str]:
    """The layers that published LoRAs of this kind change."""
    layers = [module for module in shapes if not is_text_layer(module)]
    if kind == "distillation":
        return layers
    parts = {"identity": AUDIO_PARTS, "audio_video": (*AUDIO_PARTS, *_PICTURE)}.get(kind, _PICTURE)
    return [
        module
        for module in layers
        if module.split(".")[0] == "transformer_blocks" and module.split(".")[2] in parts and "gate" not in module
    ]


def draw_factors(
    shapes: LinearShapes, layers: Iterable[str], rank: int = 4, seed: int = 0, gain: float = 0.1
) -> Factors:
    """bfloat16, random; a layer too narrow for the rank has what it can hold, as when cut out of a difference."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for module in layers:
        rows, columns = shapes[module]
        held = min(rank, rows, columns)
        down = torch.randn(held, columns, generator=generator) * gain
        up = torch.randn(rows, held, generator=generator) * gain
        factors[module] = (down.bfloat16(), up.bfloat16())
    return factors


def lora_state(factors: Factors, convention: str = "comfy", alpha: float | None = None) -> dict[str, Tensor]:
    names = CONVENTIONS[convention]
    state = {}
    for module, (down, up) in factors.items():
        layer = names.layer(module)
        state[f"{layer}.{names.down}"], state[f"{layer}.{names.up}"] = down.contiguous(), up.contiguous()
        if alpha is not None:
            state[f"{layer}.alpha"] = torch.tensor(alpha)
    return state


def write_lora(path: Path, factors: Factors, convention: str = "comfy", **how: Any) -> Path:
    """`alpha` for every layer, `metadata`."""
    metadata = how.pop("metadata", None)
    save_file(lora_state(factors, convention, **how), path, metadata)
    return path


def difference(factors: Factors, module: str, scale: float = 1.0) -> Tensor:
    """scale * up @ down in float64."""
    down, up = factors[module]
    return up.double() @ down.double() * scale
