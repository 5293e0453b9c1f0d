"""Key maps: exact in both directions over every tensor of the real model's modules."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2VocoderWithBWE
from torch import nn

from scope_ltx.checkpoints import keys


def transformer() -> nn.Module:
    return LTX2VideoTransformer3DModel(
        gated_attn=True,
        cross_attn_mod=True,
        audio_gated_attn=True,
        audio_cross_attn_mod=True,
        rope_type="split",
        use_prompt_embeddings=False,
    )


def connectors() -> nn.Module:
    return LTX2TextConnectors(
        video_connector_num_attention_heads=32,
        video_connector_num_layers=8,
        video_gated_attn=True,
        audio_connector_num_attention_heads=32,
        audio_connector_attention_head_dim=64,
        audio_connector_num_layers=8,
        audio_gated_attn=True,
        rope_type="split",
        per_modality_projections=True,
        proj_bias=True,
    )


def video_vae() -> nn.Module:
    return AutoencoderKLLTX2Video(
        block_out_channels=(256, 512, 1024, 1024),
        decoder_block_out_channels=(256, 512, 512, 1024),
        layers_per_block=(4, 6, 4, 2, 2),
        decoder_layers_per_block=(4, 6, 4, 2, 2),
        decoder_spatio_temporal_scaling=(True,) * 4,
        decoder_inject_noise=(False,) * 5,
        upsample_type=("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
        upsample_residual=(False,) * 4,
        upsample_factor=(2, 2, 1, 2),
    )


PARTS = [
    (keys.TRANSFORMER, transformer, 4186),
    (keys.CONNECTORS, connectors, 262),
    (keys.VIDEO_VAE, video_vae, 170),
    (keys.AUDIO_VAE, AutoencoderKLLTX2Audio, 102),
    (keys.VOCODER, LTX2VocoderWithBWE, 1227),
]


@pytest.mark.parametrize(("keymap", "build", "count"), PARTS, ids=lambda value: getattr(value, "name", ""))
def test_every_name_of_the_real_module_round_trips(keymap, build, count) -> None:
    with torch.device("meta"):
        names = list(build().state_dict())
    assert len(names) == count
    published = [keymap.to_published(name) for name in names]
    assert len(set(published)) == count
    assert [keymap.to_module(key) for key in published] == names


def test_parts_do_not_claim_each_others_tensors() -> None:
    with torch.device("meta"):
        stored = {
            keymap.name: [keymap.to_published(name) for name in build().state_dict()] for keymap, build, _ in PARTS
        }
    for keymap, _, _ in PARTS:
        for owner, published in stored.items():
            if owner == keymap.name or (keymap is keys.VIDEO_VAE and owner != "audio VAE"):
                continue
            if owner == "video VAE":  # bare names: never in one file with another part
                continue
            assert {keymap.to_module(key) for key in published} == {None}, (keymap.name, owner)


@pytest.mark.parametrize(
    ("keymap", "published", "module"),
    [
        (
            keys.TRANSFORMER,
            "model.diffusion_model.transformer_blocks.3.attn1.q_norm.weight",
            "transformer_blocks.3.attn1.norm_q.weight",
        ),
        (
            keys.TRANSFORMER,
            "model.diffusion_model.audio_patchify_proj.weight",
            "audio_proj_in.weight",
        ),
        (
            keys.TRANSFORMER,
            "model.diffusion_model.adaln_single.emb.timestep_embedder.linear_1.weight",
            "time_embed.emb.timestep_embedder.linear_1.weight",
        ),
        (
            keys.TRANSFORMER,
            "model.diffusion_model.transformer_blocks.0.scale_shift_table_a2v_ca_video",
            "transformer_blocks.0.video_a2v_cross_attn_scale_shift_table",
        ),
        (
            keys.TRANSFORMER,
            "model.diffusion_model.transformer_blocks.0.ff.net.2.weight_scale",
            "transformer_blocks.0.ff.net.2.weight_scale",
        ),
        (
            keys.CONNECTORS,
            "model.diffusion_model.video_embeddings_connector.transformer_1d_blocks.7.attn1.k_norm.weight",
            "video_connector.transformer_blocks.7.attn1.norm_k.weight",
        ),
        (
            keys.CONNECTORS,
            "text_embedding_projection.audio_aggregate_embed.bias",
            "audio_text_proj_in.bias",
        ),
        (
            keys.VIDEO_VAE,
            "encoder.down_blocks.8.res_blocks.1.conv1.conv.bias",
            "encoder.mid_block.resnets.1.conv1.conv.bias",
        ),
        (
            keys.VIDEO_VAE,
            "encoder.down_blocks.1.conv.conv.bias",
            "encoder.down_blocks.0.downsamplers.0.conv.conv.bias",
        ),
        (
            keys.VIDEO_VAE,
            "decoder.up_blocks.2.res_blocks.0.conv1.conv.bias",
            "decoder.up_blocks.0.resnets.0.conv1.conv.bias",
        ),
        (
            keys.VIDEO_VAE,
            "decoder.up_blocks.7.conv.conv.bias",
            "decoder.up_blocks.3.upsamplers.0.conv.conv.bias",
        ),
        (keys.VIDEO_VAE, "per_channel_statistics.std-of-means", "latents_std"),
        (keys.AUDIO_VAE, "audio_vae.per_channel_statistics.mean-of-means", "latents_mean"),
        (
            keys.VOCODER,
            "vocoder.vocoder.resblocks.0.acts1.0.downsample.lowpass.filter",
            "vocoder.resnets.0.acts1.0.downsample.filter",
        ),
        (keys.VOCODER, "vocoder.bwe_generator.conv_pre.weight", "bwe_generator.conv_in.weight"),
        (keys.TEXT_ENCODER, "model.layers.5.mlp.up_proj.weight", "layers.5.mlp.up_proj.weight"),
    ],
)
def test_published_names(keymap, published, module) -> None:
    assert keymap.to_module(published) == module
    assert keymap.to_published(module) == published


@pytest.mark.parametrize(
    ("keymap", "key", "module"),
    [
        (keys.TRANSFORMER, "proj_out.weight", "proj_out.weight"),
        (keys.TRANSFORMER, "adaln_single.linear.bias", "time_embed.linear.bias"),
        (
            keys.CONNECTORS,
            "audio_embeddings_connector.learnable_registers",
            "audio_connector.learnable_registers",
        ),
        (
            keys.VIDEO_VAE,
            "vae.decoder.up_blocks.0.res_blocks.0.conv1.conv.bias",
            "decoder.mid_block.resnets.0.conv1.conv.bias",
        ),
    ],
)
def test_other_spellings_are_accepted_on_reading(keymap, key, module) -> None:
    assert keymap.to_module(key) == module


@pytest.mark.parametrize(
    ("keymap", "key"),
    [
        (keys.TRANSFORMER, "model.diffusion_model.video_embeddings_connector.learnable_registers"),
        (keys.TRANSFORMER, "text_embedding_projection.video_aggregate_embed.bias"),
        (keys.CONNECTORS, "model.diffusion_model.transformer_blocks.0.scale_shift_table"),
        (keys.VIDEO_VAE, "per_channel_statistics.mean-of-stds_over_std-of-means"),
        (keys.AUDIO_VAE, "vocoder.vocoder.conv_pre.weight"),
        (keys.VOCODER, "vocoder.resampler.filter"),
        (keys.TEXT_ENCODER, "vision_model.embeddings.patch_embedding.weight"),
        (keys.TEXT_ENCODER, "spiece_model"),
    ],
)
def test_what_another_part_owns_is_not_claimed(keymap, key) -> None:
    assert keymap.to_module(key) is None


def test_an_unknown_key_stays_visible() -> None:
    for keymap, _, _ in PARTS:
        assert keymap.to_module("surprise.weight") == "surprise.weight"


def test_a_foreign_module_name_is_refused() -> None:
    with pytest.raises(
        ValueError, match=re.escape("expected a name of the text connectors, got 'proj_in.weight'")
    ):
        keys.CONNECTORS.to_published("proj_in.weight")
