"""Module weights -> the published files: names, types, FP8 layers and metadata as Lightricks' and its packagers'
files have them. Beside the five of a model there are its latent upsampler and a few LoRAs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scope_ltx.checkpoints.keys import (
    AUDIO_VAE,
    CONNECTORS,
    SPIECE_MODEL,
    TEXT_ENCODER,
    TRANSFORMER,
    VIDEO_VAE,
    VOCODER,
    KeyMap,
)
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.small import sizes
from scope_ltx.models.small.draw import State, generator_for, shapes_of
from scope_ltx.models.small.lora_weights import write_stand_ins
from scope_ltx.models.small.safetensors_file import write_safetensors
from scope_ltx.models.small.upsampler_weights import write_upsampler
from scope_quant.fp8 import FP8_DTYPE, Quantized, quantize_per_tensor

Quantizes = Callable[[str, Tensor], Quantized]
"""A weight's own name and value -> what is stored of it."""

_FP8_NOTE = json.dumps({"format": "float8_e4m3fn"}).encode()
_UNQUANTIZED_BLOCK = "transformer_blocks.0."
"""The published transformer keeps some blocks and every gate in bfloat16."""


@dataclass(frozen=True)
class Parts:
    """Weights of every module in the modules' own names, float32, and the tokenizer."""

    transformer: State
    connectors: State
    text_encoder: State
    tokenizer: bytes
    video_vae: State
    audio_vae: State
    vocoder: State


def add_stand_ins(directory: Path, seed: int) -> None:
    """Add to a trained model what nothing was trained for: the latent upsampler, and LoRAs that do little."""
    write_upsampler(ModelFiles.below(directory).upsampler, seed)
    write_stand_ins(directory, shapes_of(sizes.build_transformer), seed)


def nearest(_: str, weight: Tensor) -> Quantized:
    """Every value to the nearest that FP8 has."""
    return quantize_per_tensor(weight)


def write_parts(directory: Path, parts: Parts, seed: int, quantize: Quantizes = nearest) -> None:
    """Write the five files of a model below `directory`. quantize: how a weight of the transformer goes to FP8."""
    paths = ModelFiles.below(directory)
    files: dict[Path, tuple[State, dict[str, str]]] = {
        paths.transformer: (
            _fp8_file(parts.transformer, TRANSFORMER, is_fp8_in_transformer, quantize)
            | _named(_only(parts.connectors, "_connector."), CONNECTORS),
            _settings(sizes.transformer_metadata()),
        ),
        paths.text_projection: (_named(_only(parts.connectors, "_proj_in."), CONNECTORS), {}),
        paths.text_encoder: (_text_encoder_file(parts, seed), {}),
        paths.video_vae: (_named(parts.video_vae, VIDEO_VAE), _settings(sizes.video_vae_metadata())),
        paths.audio_vae: (
            _named(parts.audio_vae, AUDIO_VAE) | _named(parts.vocoder, VOCODER),
            _settings(sizes.audio_metadata()),
        ),
    }
    for path, (tensors, metadata) in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, tensors, metadata | {"format": "pt"})


def _settings(config: Mapping[str, object]) -> dict[str, str]:
    return {"config": json.dumps(config), "model_version": "2.3.0"}


def _only(state: State, part: str) -> State:
    return {name: tensor for name, tensor in state.items() if part in name}


def _named(state: State, keymap: KeyMap) -> State:
    """Published names; bfloat16, except the transformer's tables, which are float32 in the published files."""
    return {
        keymap.to_published(name): tensor if name.endswith("scale_shift_table") else tensor.bfloat16()
        for name, tensor in state.items()
    }


def _fp8_file(state: State, keymap: KeyMap, is_fp8: Callable[[str, Tensor], bool], quantize: Quantizes) -> State:
    """As `_named`, with the chosen weights in FP8, each with its scale and its note."""
    tensors = _named(state, keymap)
    for name, weight in state.items():
        if not is_fp8(name, weight):
            continue
        quantized = quantize(name, weight)
        layer = keymap.to_published(name).removesuffix(".weight")
        tensors[f"{layer}.weight"] = quantized.data
        tensors[f"{layer}.weight_scale"] = quantized.scale
        tensors[f"{layer}.comfy_quant"] = _bytes(_FP8_NOTE)
    return tensors


def is_fp8_in_transformer(name: str, weight: Tensor) -> bool:
    in_block = name.startswith("transformer_blocks.") and not name.startswith(_UNQUANTIZED_BLOCK)
    return in_block and name.endswith(".weight") and weight.ndim == 2 and "to_gate_logits" not in name


def is_fp8_in_text_encoder(name: str, weight: Tensor) -> bool:
    return name.endswith("_proj.weight") and weight.ndim == 2


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _text_encoder_file(parts: Parts, seed: int) -> State:
    """Gemma, its tokenizer, and a sample of the picture tower that the published file also holds."""
    tensors = _fp8_file(parts.text_encoder, TEXT_ENCODER, is_fp8_in_text_encoder, nearest)
    generator = generator_for(seed, "picture tower")
    attention = "vision_model.encoder.layers.0.self_attn.q_proj"
    tensors |= {
        SPIECE_MODEL: _bytes(parts.tokenizer),
        "vision_model.embeddings.patch_embedding.bias": torch.zeros(8, dtype=torch.bfloat16),
        f"{attention}.weight": torch.randn(8, 8, generator=generator).to(FP8_DTYPE),
        f"{attention}.weight_scale": torch.tensor(1.0),
        "multi_modal_projector.mm_soft_emb_norm.weight": torch.zeros(8, dtype=torch.bfloat16),
    }
    return tensors
