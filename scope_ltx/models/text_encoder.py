"""Text encoder file -> Gemma 3's text model.

The file carries no settings: sizes come from the shapes of its tensors, and the rest are Gemma 3's constants.
"""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import Gemma3TextConfig, Gemma3TextModel

from scope_ltx.checkpoints.keys import TEXT_ENCODER
from scope_ltx.checkpoints.loading import StoredModule
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.models.placement import Block
from scope_quant.capability import Fp8Path

FULL_ATTENTION_EVERY = 6
"""Layers 5, 11, ... attend to everything, the others to a sliding window."""

GLOBAL_THETA, GLOBAL_FACTOR = 1_000_000.0, 8.0
LOCAL_THETA = 10_000.0
"""RoPE: full-attention layers count positions eight times slower, and on a longer base."""

_ADVICE = "Use the Gemma 3 text encoder file that plugin.toml names"


def open_text_encoder(
    file: CheckpointFile, *, dtype: torch.dtype, fp8_path: Fp8Path
) -> StoredModule[Gemma3TextModel]:
    """The text model on the meta device, checked against its file; the picture tower in the file is left out.

    Raises CheckpointError for tensors that are not those of a Gemma 3.
    """
    config = text_encoder_config(file)
    with torch.device("meta"):
        module = Gemma3TextModel(config)
    computed = _computed(module, config)
    return StoredModule(module, [file], TEXT_ENCODER, dtype=dtype, fp8_path=fp8_path, computed=computed)


def text_encoder_blocks(stored: StoredModule[Gemma3TextModel]) -> list[Block]:
    """The layers in order of use; leave `layers` for later when the rest is loaded."""
    return [
        Block(module, partial(stored.read_under, f"layers.{index}"))
        for index, module in enumerate(stored.module.layers)
    ]


def text_encoder_config(file: CheckpointFile) -> Gemma3TextConfig:
    """Raises CheckpointError naming the tensor whose shape is missing or makes no sense."""
    vocab, hidden = _shape(file, "embed_tokens.weight", 2)
    (head_dim,) = _shape(file, "layers.0.self_attn.q_norm.weight", 1)
    query, _ = _shape(file, "layers.0.self_attn.q_proj.weight", 2)
    key, _ = _shape(file, "layers.0.self_attn.k_proj.weight", 2)
    intermediate, _ = _shape(file, "layers.0.mlp.gate_proj.weight", 2)
    for name, width in (("q_proj", query), ("k_proj", key)):
        if width % head_dim:
            problem = f"has {name} of width {width}, expected a multiple of the head size {head_dim}"
            raise CheckpointError(file.path, problem, advice=_ADVICE)
    return Gemma3TextConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=_layers(file),
        num_attention_heads=query // head_dim,
        num_key_value_heads=key // head_dim,
        head_dim=head_dim,
        query_pre_attn_scalar=head_dim,
        hidden_activation="gelu_pytorch_tanh",
        max_position_embeddings=131_072,
        rms_norm_eps=1e-6,
        attention_bias=False,
        attention_dropout=0.0,
        sliding_window=1024,
        layer_types=[
            "sliding_attention" if (layer + 1) % FULL_ATTENTION_EVERY else "full_attention"
            for layer in range(_layers(file))
        ],
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        **_rope_arguments(),
    )


def _rope_arguments() -> dict[str, Any]:
    """transformers 5 has one mapping for what transformers 4 has as three arguments."""
    if "rope_parameters" in inspect.signature(Gemma3TextConfig).parameters:
        return {
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "linear",
                    "rope_theta": GLOBAL_THETA,
                    "factor": GLOBAL_FACTOR,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_THETA},
            }
        }
    return {
        "rope_theta": GLOBAL_THETA,
        "rope_scaling": {"rope_type": "linear", "factor": GLOBAL_FACTOR},
        "rope_local_base_freq": LOCAL_THETA,
    }


def _computed(module: Gemma3TextModel, config: Gemma3TextConfig) -> dict[str, Tensor]:
    """Tensors that the model derives from its settings, under the names of either version of transformers.

    They are left without values on the meta device. Rotary frequencies of zero would leave the encoder without
    a sense of order, and nothing would fail.
    """
    slow = _inverse_frequencies(config.head_dim, GLOBAL_THETA) / GLOBAL_FACTOR
    fast = _inverse_frequencies(config.head_dim, LOCAL_THETA)
    known = {
        "embed_tokens.embed_scale": torch.tensor(config.hidden_size**0.5),
        "rotary_emb.inv_freq": slow,
        "rotary_emb.original_inv_freq": slow,
        "rotary_emb_local.inv_freq": fast,
        "rotary_emb_local.original_inv_freq": fast,
        "rotary_emb.full_attention_inv_freq": slow,
        "rotary_emb.full_attention_original_inv_freq": slow,
        "rotary_emb.sliding_attention_inv_freq": fast,
        "rotary_emb.sliding_attention_original_inv_freq": fast,
    }
    return {name: value.clone() for name, value in known.items() if _has(module, name)}


def _inverse_frequencies(head_dim: int, theta: float) -> Tensor:
    """theta^(-2 i / head_dim) for each pair of channels i, float32."""
    return 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)


def _has(module: torch.nn.Module, name: str) -> bool:
    parent, _, leaf = name.rpartition(".")
    try:
        return isinstance(getattr(module.get_submodule(parent), leaf, None), Tensor)
    except AttributeError:
        return False


def _layers(file: CheckpointFile) -> int:
    numbers = [int(found.group(1)) for key in file.keys if (found := re.match(r"model\.layers\.(\d+)\.", key))]
    return max(numbers) + 1


def _shape(file: CheckpointFile, name: str, dimensions: int) -> tuple[int, ...]:
    key = TEXT_ENCODER.to_published(name)
    shape = file.shapes.get(key)
    if shape is None or len(shape) != dimensions or 0 in shape:
        what = "no such tensor" if shape is None else f"shape {list(shape)}"
        problem = f"does not hold Gemma 3 as expected ({what}; expected {dimensions} dimensions)"
        raise CheckpointError(file.path, problem, keys=[key], advice=_ADVICE)
    return shape
