"""All of LTX-2.3 at full size with random weights, as the pipeline gets it from the loaders."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2VocoderWithBWE
from torch import nn
from transformers import Gemma3TextConfig, Gemma3TextModel

from benchmarks.full_size import Drawing, build_transformer, materialize_rest
from scope_ltx.engine import EngineOptions
from scope_ltx.models.components import Components
from scope_ltx.models.connectors import CONNECTOR_BLOCKS, PROJECTIONS
from scope_ltx.models.placement import Block
from scope_ltx.models.split_linear import RowSplitLinear
from scope_quant.capability import probe_fp8
from scope_quant.convert import Fp8Layer, convert_linears


class LetterTokenizer:
    """One id per letter: as many tokens as a sentence has characters, which is four times what Gemma's has."""

    def encode(self, text: str) -> list[int]:
        return [2, *(3 + ord(letter) for letter in text)][:1024]


def build_components(device: torch.device, engine: EngineOptions, bf16_blocks: tuple[int, ...] = ()) -> Components:
    """Everything but the blocks has its random values on `device`; the blocks get theirs when they are placed."""
    fp8 = probe_fp8(device)
    transformer = build_transformer(fp8.path, bf16_blocks)
    materialize_rest(transformer, device)
    text_encoder = _text_encoder(fp8.path, device)
    connectors, connector_parts = _connectors(device)
    with torch.device(device):
        video_vae = AutoencoderKLLTX2Video(**VIDEO_VAE).to(torch.bfloat16)
        audio_vae = AutoencoderKLLTX2Audio().to(torch.bfloat16)
        vocoder = LTX2VocoderWithBWE(final_act_fn="clamp")
        vocoder.mel_stft.mel_basis.uniform_()
        vocoder.mel_stft.stft_fn.forward_basis.uniform_()
    for module in (video_vae, audio_vae, vocoder):
        module.eval().requires_grad_(False)
    read = Drawing(device)
    return Components(
        transformer=transformer,
        connectors=connectors,
        text_encoder=text_encoder,
        tokenizer=LetterTokenizer(),  # type: ignore[arg-type]
        video_vae=video_vae,
        audio_vae=audio_vae,
        vocoder=vocoder,
        device=device,
        dtype=torch.bfloat16,
        fp8=fp8,
        blocks=(
            [Block(block, read) for block in transformer.transformer_blocks],
            [Block(block, read) for block in (*text_encoder.layers, *connector_parts)],
        ),
        engine=engine,
        fixed_nbytes=torch.cuda.memory_reserved(device),
    )


VIDEO_VAE: dict[str, Any] = {
    "block_out_channels": (256, 512, 1024, 1024),
    "decoder_block_out_channels": (256, 512, 512, 1024),
    "layers_per_block": (4, 6, 4, 2, 2),
    "decoder_layers_per_block": (4, 6, 4, 2, 2),
    "spatio_temporal_scaling": (True,) * 4,
    "decoder_spatio_temporal_scaling": (True,) * 4,
    "down_block_types": ("LTX2VideoDownBlock3D",) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
    "upsample_residual": (False,) * 4,
    "upsample_factor": (2, 2, 1, 2),
    "decoder_inject_noise": (False,) * 5,
    "timestep_conditioning": False,
    "encoder_causal": True,
    "decoder_causal": False,
    "encoder_spatial_padding_mode": "zeros",
    "decoder_spatial_padding_mode": "zeros",
}


def _gemma_config(vocabulary: int, layers: int) -> Gemma3TextConfig:
    return Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=3840,
        intermediate_size=15360,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=1024,
    )


def full_text_encoder(path: Any, layers: int = 48) -> Gemma3TextModel:
    """All of Gemma 3 12B on `meta`, its layers in FP8."""
    with torch.device("meta"):
        model = Gemma3TextModel(_gemma_config(262_208, layers)).to(torch.bfloat16)
    _convert_layers(model, path)
    return model.eval().requires_grad_(False)


def _text_encoder(path: Any, device: torch.device) -> Gemma3TextModel:
    """Gemma 3 12B with its layers on `meta` in FP8, and a short table of words on the host."""
    config = _gemma_config(4096, 48)
    with torch.device("meta"):
        layers = Gemma3TextModel(config).to(torch.bfloat16).layers
    config.num_hidden_layers = 0
    model = Gemma3TextModel(config).to(torch.bfloat16)
    config.num_hidden_layers = 48
    model.layers = layers
    _convert_layers(model, path)
    for name, child in model.named_children():
        if name not in ("layers", "embed_tokens"):
            child.to(device)
    return model.eval().requires_grad_(False)


def _convert_layers(model: Gemma3TextModel, path: Any) -> None:
    children = model.layers.named_modules()
    linears = {f"layers.{name}": Fp8Layer() for name, child in children if isinstance(child, nn.Linear)}
    convert_linears(model, linears, path)


def full_video_vae() -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = AutoencoderKLLTX2Video(**VIDEO_VAE)
    return module


def full_audio_vae() -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = AutoencoderKLLTX2Audio()
    return module


def full_vocoder() -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = LTX2VocoderWithBWE(final_act_fn="clamp")
    return module


def full_connectors(text_states: int = 49) -> Any:
    """On `meta`; `text_states` is how many hidden states of the text encoder the projections take."""
    with torch.device("meta"):
        return LTX2TextConnectors(
            text_proj_in_factor=text_states,
            video_connector_num_attention_heads=32,
            video_connector_attention_head_dim=128,
            video_connector_num_layers=8,
            video_gated_attn=True,
            audio_connector_num_attention_heads=32,
            audio_connector_attention_head_dim=64,
            audio_connector_num_layers=8,
            audio_gated_attn=True,
            rope_type="split",
            per_modality_projections=True,
            proj_bias=True,
        ).to(torch.bfloat16)


def _connectors(device: torch.device) -> tuple[LTX2TextConnectors, list[nn.Module]]:
    """The connectors with projections and blocks on `meta`, and those in order of use."""
    model = full_connectors()
    parts: list[nn.Module] = []
    for projection, path in zip(PROJECTIONS, CONNECTOR_BLOCKS, strict=True):
        split = RowSplitLinear(getattr(model, projection))
        model.add_module(projection, split)
        parts += [*split.parts, *model.get_submodule(path).children()]
        connector = model.get_submodule(path.split(".")[0])
        registers = torch.randn_like(connector.learnable_registers, device=device)
        connector.learnable_registers = nn.Parameter(registers, requires_grad=False)
    return model.eval().requires_grad_(False), parts
