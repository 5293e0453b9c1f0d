"""LTX-2.3 at toy sizes: diffusers' and transformers' own classes with random float32 weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2VocoderWithBWE
from torch import nn
from transformers import Gemma3TextConfig, Gemma3TextModel

HEADS, VIDEO_HEAD, AUDIO_HEAD, TEXT_WIDTH, TEXT_LAYERS = 2, 24, 16, 32, 7
VIDEO_WIDTH, AUDIO_WIDTH = HEADS * VIDEO_HEAD, HEADS * AUDIO_HEAD


def tiny_transformer(layers: int = 3) -> LTX2VideoTransformer3DModel:
    return LTX2VideoTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=VIDEO_HEAD,
        cross_attention_dim=VIDEO_WIDTH,
        audio_num_attention_heads=HEADS,
        audio_attention_head_dim=AUDIO_HEAD,
        audio_cross_attention_dim=AUDIO_WIDTH,
        gated_attn=True,
        cross_attn_mod=True,
        audio_gated_attn=True,
        audio_cross_attn_mod=True,
        num_layers=layers,
        caption_channels=TEXT_WIDTH,
        rope_type="split",
        use_prompt_embeddings=False,
        perturbed_attn=True,
    )


def tiny_connectors() -> LTX2TextConnectors:
    return LTX2TextConnectors(
        caption_channels=TEXT_WIDTH,
        text_proj_in_factor=TEXT_LAYERS + 1,
        video_connector_num_attention_heads=HEADS,
        video_connector_attention_head_dim=VIDEO_HEAD,
        video_gated_attn=True,
        audio_connector_num_attention_heads=HEADS,
        audio_connector_attention_head_dim=AUDIO_HEAD,
        audio_gated_attn=True,
        rope_type="split",
        per_modality_projections=True,
        video_hidden_dim=VIDEO_WIDTH,
        audio_hidden_dim=AUDIO_WIDTH,
        proj_bias=True,
    )


def tiny_text_encoder() -> Gemma3TextModel:
    return Gemma3TextModel(
        Gemma3TextConfig(
            vocab_size=64,
            hidden_size=TEXT_WIDTH,
            intermediate_size=48,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=1024,
        )
    )


def tiny_video_vae() -> AutoencoderKLLTX2Video:
    return AutoencoderKLLTX2Video(
        block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(8, 16, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True,) * 4,
        decoder_spatio_temporal_scaling=(True,) * 4,
        down_block_types=("LTX2VideoDownBlock3D",) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_type=("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
        upsample_residual=(False,) * 4,
        upsample_factor=(2, 2, 1, 2),
        decoder_inject_noise=(False,) * 5,
        timestep_conditioning=False,
        encoder_causal=True,
        decoder_causal=False,
        encoder_spatial_padding_mode="zeros",
        decoder_spatial_padding_mode="zeros",
    )


def tiny_audio_vae() -> AutoencoderKLLTX2Audio:
    vae = AutoencoderKLLTX2Audio(base_channels=8, num_res_blocks=1)
    # The class sizes its statistics by base_channels; they describe tokens of 8 channels x 16 mel places, which
    # is the same number only at full size.
    vae.register_buffer("latents_mean", torch.zeros(128))
    vae.register_buffer("latents_std", torch.ones(128))
    return vae


def tiny_vocoder(core_clamp: bool = True) -> LTX2VocoderWithBWE:
    """`core_clamp` is the reference's clamp before bandwidth extension (decision D12)."""
    vocoder = LTX2VocoderWithBWE(
        hidden_channels=64, bwe_hidden_channels=32, final_act_fn="clamp" if core_clamp else None
    )
    # The mel and STFT bases come from the file and start as zeros, which would silence the extension.
    for basis in (vocoder.mel_stft.mel_basis, vocoder.mel_stft.stft_fn.forward_basis):
        basis.copy_(torch.rand(basis.shape) * 0.1)
    return vocoder


class WordTokenizer:
    """One id per letter, BOS first."""

    def encode(self, text: str) -> list[int]:
        return [2] + [3 + ord(letter) % 61 for letter in text.strip()]


@dataclass
class TinyParts:
    transformer: Any
    connectors: Any
    text_encoder: Any
    video_vae: Any
    audio_vae: Any
    vocoder: Any
    tokenizer: WordTokenizer
    device: torch.device
    dtype: torch.dtype


def tiny_parts(seed: int = 0) -> TinyParts:
    """Every part of the model, freshly initialised; scale-shift tables and latent statistics made to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules: list[nn.Module] = [
            build().eval().requires_grad_(False)
            for build in (
                tiny_transformer,
                tiny_connectors,
                tiny_text_encoder,
                tiny_video_vae,
                tiny_audio_vae,
                tiny_vocoder,
            )
        ]
        for vae in modules[3:5]:
            vae.latents_mean.copy_(torch.randn(vae.latents_mean.shape) * 0.3)
            vae.latents_std.copy_(torch.rand(vae.latents_std.shape) + 0.5)
    return TinyParts(*modules, WordTokenizer(), torch.device("cpu"), torch.float32)
