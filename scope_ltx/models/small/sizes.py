"""How large the small model is: its modules, and the metadata its files carry.

The metadata has the keys of the published files. Both come from the same constants, so that they cannot
disagree.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2VocoderWithBWE
from torch import nn
from transformers import Gemma3TextConfig, Gemma3TextModel

HEADS = 4
VIDEO_HEAD, AUDIO_HEAD = 32, 32
VIDEO_WIDTH, AUDIO_WIDTH = HEADS * VIDEO_HEAD, HEADS * AUDIO_HEAD
LAYERS = 6
LATENT_CHANNELS = 128

CONNECTOR_LAYERS = 2
REGISTERS = 128

TEXT_WIDTH = 64
TEXT_LAYERS = 6
"""One full-attention layer after five sliding ones: a whole period of Gemma's pattern."""
TEXT_HEADS, TEXT_KV_HEADS, TEXT_HEAD = 4, 2, 16
TEXT_HIDDEN = 128

ENCODER_CHANNELS = (64, 64, 64, 128)
ENCODER_LAYERS = (1, 1, 1, 1, 1)
DECODER_CHANNELS = (16, 32, 32, 64)
"""Must be (c, 2c, 2c, 4c): the decoder's upsamplers divide by (2, 2, 1, 2)."""
DECODER_LAYERS = (1, 1, 2, 3, 3)
"""From the output to the input. Depth next to the latent is nearly free on a CPU: its grid is a 480th of the
output's."""

AUDIO_CHANNELS = 16
AUDIO_MULTIPLIERS = (1, 2, 4)
AUDIO_RES_BLOCKS = 1
AUDIO_LATENT_CHANNELS, AUDIO_LATENT_MELS, MELS = 8, 16, 64

VOCODER_CHANNELS, BWE_CHANNELS = 256, 32
VOCODER_KERNELS, VOCODER_FACTORS = (3, 11, 4, 4, 4, 8), (1, 5, 2, 2, 2, 4)
"""The published core has kernels (11, 4, 4, 4, 4, 4) and factors (5, 2, 2, 2, 2, 2). At these widths it needs a
stage at the rate of the mel frames: the first upsampler then makes samples of what that stage has understood,
instead of the later ones having to understand a spectrogram in fifths."""
BWE_KERNELS, BWE_FACTORS = (12, 11, 4, 4, 4), (6, 5, 2, 2, 2)
VOCODER_RESNET_KERNELS, BWE_RESNET_KERNELS = (3, 5), (3,)
RESNET_DILATIONS = (1, 3)
"""Published: kernels 3, 7, 11 and dilations 1, 3, 5 in both generators. Nearly all of the vocoder's time on a CPU
is in the anti-aliased activations of these blocks, whatever the width."""

STFT_LENGTH, STFT_HOP = 512, 80
VOCODER_RATE, OUTPUT_RATE = 16_000, 48_000


def build_transformer() -> nn.Module:
    module: nn.Module = LTX2VideoTransformer3DModel(
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        attention_head_dim=VIDEO_HEAD,
        cross_attention_dim=VIDEO_WIDTH,
        audio_num_attention_heads=HEADS,
        audio_attention_head_dim=AUDIO_HEAD,
        audio_cross_attention_dim=AUDIO_WIDTH,
        caption_channels=TEXT_WIDTH,
        gated_attn=True,
        cross_attn_mod=True,
        audio_gated_attn=True,
        audio_cross_attn_mod=True,
        use_prompt_embeddings=False,
        rope_type="split",
        perturbed_attn=True,
    )
    return module


def build_connectors() -> nn.Module:
    module: nn.Module = LTX2TextConnectors(
        caption_channels=TEXT_WIDTH,
        text_proj_in_factor=TEXT_LAYERS + 1,
        video_connector_num_attention_heads=HEADS,
        video_connector_attention_head_dim=VIDEO_HEAD,
        video_connector_num_layers=CONNECTOR_LAYERS,
        video_connector_num_learnable_registers=REGISTERS,
        video_gated_attn=True,
        audio_connector_num_attention_heads=HEADS,
        audio_connector_attention_head_dim=AUDIO_HEAD,
        audio_connector_num_layers=CONNECTOR_LAYERS,
        audio_connector_num_learnable_registers=REGISTERS,
        audio_gated_attn=True,
        connector_rope_base_seq_len=4096,
        rope_type="split",
        per_modality_projections=True,
        video_hidden_dim=VIDEO_WIDTH,
        audio_hidden_dim=AUDIO_WIDTH,
        proj_bias=True,
    )
    return module


def build_text_encoder(vocabulary: int) -> nn.Module:
    module: nn.Module = Gemma3TextModel(
        Gemma3TextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_HIDDEN,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_HEADS,
            num_key_value_heads=TEXT_KV_HEADS,
            head_dim=TEXT_HEAD,
            query_pre_attn_scalar=TEXT_HEAD,
        )
    )
    return module


def build_video_vae() -> nn.Module:
    module: nn.Module = AutoencoderKLLTX2Video(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=ENCODER_CHANNELS,
        decoder_block_out_channels=DECODER_CHANNELS,
        layers_per_block=ENCODER_LAYERS,
        decoder_layers_per_block=DECODER_LAYERS,
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
    return module


def build_audio_vae() -> nn.Module:
    module: nn.Module = AutoencoderKLLTX2Audio(
        base_channels=AUDIO_CHANNELS,
        ch_mult=AUDIO_MULTIPLIERS,
        num_res_blocks=AUDIO_RES_BLOCKS,
        latent_channels=AUDIO_LATENT_CHANNELS,
    )
    return module


def _dilations(kernels: tuple[int, ...]) -> list[list[int]]:
    return [list(RESNET_DILATIONS) for _ in kernels]


def build_vocoder() -> nn.Module:
    module: nn.Module = LTX2VocoderWithBWE(
        hidden_channels=VOCODER_CHANNELS,
        upsample_kernel_sizes=list(VOCODER_KERNELS),
        upsample_factors=list(VOCODER_FACTORS),
        resnet_kernel_sizes=list(VOCODER_RESNET_KERNELS),
        resnet_dilations=_dilations(VOCODER_RESNET_KERNELS),
        bwe_hidden_channels=BWE_CHANNELS,
        bwe_resnet_kernel_sizes=list(BWE_RESNET_KERNELS),
        bwe_resnet_dilations=_dilations(BWE_RESNET_KERNELS),
    )
    return module


def transformer_metadata() -> dict[str, Any]:
    """Connector settings are in here too: the published transformer file holds both."""
    return {
        "transformer": {
            "_class_name": "AVTransformer3DModel",
            "num_layers": LAYERS,
            "num_attention_heads": HEADS,
            "attention_head_dim": VIDEO_HEAD,
            "in_channels": LATENT_CHANNELS,
            "out_channels": LATENT_CHANNELS,
            "cross_attention_dim": VIDEO_WIDTH,
            "caption_channels": TEXT_WIDTH,
            "activation_fn": "gelu-approximate",
            "attention_bias": True,
            "norm_eps": 1e-6,
            "norm_elementwise_affine": False,
            "qk_norm": "rms_norm",
            "standardization_norm": "rms_norm",
            "num_embeds_ada_norm": 1000,
            "positional_embedding_type": "rope",
            "positional_embedding_theta": 10000.0,
            "positional_embedding_max_pos": [20, 2048, 2048],
            "rope_type": "split",
            "frequencies_precision": "float64",
            "use_middle_indices_grid": True,
            "causal_temporal_positioning": True,
            "timestep_scale_multiplier": 1000,
            "av_ca_timestep_scale_multiplier": 1000.0,
            "audio_num_attention_heads": HEADS,
            "audio_attention_head_dim": AUDIO_HEAD,
            "audio_in_channels": LATENT_CHANNELS,
            "audio_out_channels": LATENT_CHANNELS,
            "audio_cross_attention_dim": AUDIO_WIDTH,
            "audio_positional_embedding_max_pos": [20],
            "av_cross_ada_norm": True,
            "cross_attention_adaln": True,
            "apply_gated_attention": True,
            "use_embeddings_connector": True,
            "connector_num_layers": CONNECTOR_LAYERS,
            "connector_num_attention_heads": HEADS,
            "connector_attention_head_dim": VIDEO_HEAD,
            "audio_connector_num_attention_heads": HEADS,
            "audio_connector_attention_head_dim": AUDIO_HEAD,
            "connector_positional_embedding_max_pos": [4096],
            "connector_num_learnable_registers": REGISTERS,
            "connector_norm_output": True,
            "connector_apply_gated_attention": True,
            "caption_projection_first_linear": False,
            "caption_projection_second_linear": False,
            "caption_proj_input_norm": False,
            "caption_proj_before_connector": True,
            "text_encoder_norm_type": "per_token_rms",
        }
    }


def video_vae_metadata() -> dict[str, Any]:
    """Decoder blocks are listed from the output towards the input, as published."""
    encoder_base = LATENT_CHANNELS
    down = [out / before for before, out in zip((encoder_base, *ENCODER_CHANNELS), ENCODER_CHANNELS, strict=False)]
    encoder_names = ("compress_space_res", "compress_time_res", "compress_all_res", "compress_all_res")
    decoder_names = ("compress_space", "compress_time", "compress_all", "compress_all")
    decoder_factors = (2, 2, 1, 2)
    encoder_blocks: list[Any] = [["res_x", {"num_layers": ENCODER_LAYERS[0]}]]
    decoder_blocks: list[Any] = [["res_x", {"num_layers": DECODER_LAYERS[0]}]]
    for name, factor, layers in zip(encoder_names, down, ENCODER_LAYERS[1:], strict=True):
        multiplier = int(factor) if factor.is_integer() else factor
        encoder_blocks += [[name, {"multiplier": multiplier}], ["res_x", {"num_layers": layers}]]
    for name, factor, layers in zip(decoder_names, decoder_factors, DECODER_LAYERS[1:], strict=True):
        decoder_blocks += [[name, {"multiplier": factor}], ["res_x", {"num_layers": layers}]]
    return {
        "vae": {
            "_class_name": "CausalVideoAutoencoder",
            "dims": 3,
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": LATENT_CHANNELS,
            "encoder_blocks": encoder_blocks,
            "decoder_blocks": decoder_blocks,
            "encoder_base_channels": encoder_base,
            "decoder_base_channels": DECODER_CHANNELS[0] // 2,
            "scaling_factor": 1.0,
            "norm_layer": "pixel_norm",
            "patch_size": 4,
            "latent_log_var": "uniform",
            "use_quant_conv": False,
            "causal_decoder": False,
            "timestep_conditioning": False,
            "spatial_padding_mode": "zeros",
        }
    }


def audio_metadata() -> dict[str, Any]:
    """Sections `audio_vae` and `vocoder` of the audio file."""
    ddconfig = {
        "ch": AUDIO_CHANNELS,
        "in_channels": 2,
        "out_ch": 2,
        "ch_mult": list(AUDIO_MULTIPLIERS),
        "num_res_blocks": AUDIO_RES_BLOCKS,
        "attn_resolutions": [],
        "resolution": 256,
        "z_channels": AUDIO_LATENT_CHANNELS,
        "double_z": True,
        "mel_bins": MELS,
        "norm_type": "pixel",
        "causality_axis": "height",
        "dropout": 0.0,
        "mid_block_add_attention": False,
    }
    generator = {
        "resblock": "AMP1",
        "activation": "snakebeta",
        "use_tanh_at_final": False,
        "use_bias_at_final": False,
        "stereo": True,
    }
    return {
        "audio_vae": {
            "model": {"params": {"ddconfig": ddconfig, "sampling_rate": VOCODER_RATE}},
            "preprocessing": {
                "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True},
                "mel": {"n_mel_channels": MELS, "mel_fmin": 0, "mel_fmax": 8000},
            },
        },
        "vocoder": {
            "vocoder": {
                **generator,
                "resblock_kernel_sizes": list(VOCODER_RESNET_KERNELS),
                "resblock_dilation_sizes": _dilations(VOCODER_RESNET_KERNELS),
                "upsample_initial_channel": VOCODER_CHANNELS,
                "upsample_rates": list(VOCODER_FACTORS),
                "upsample_kernel_sizes": list(VOCODER_KERNELS),
            },
            "bwe": {
                **generator,
                "resblock_kernel_sizes": list(BWE_RESNET_KERNELS),
                "resblock_dilation_sizes": _dilations(BWE_RESNET_KERNELS),
                "upsample_initial_channel": BWE_CHANNELS,
                "upsample_rates": list(BWE_FACTORS),
                "upsample_kernel_sizes": list(BWE_KERNELS),
                "apply_final_activation": False,
                "input_sampling_rate": VOCODER_RATE,
                "output_sampling_rate": OUTPUT_RATE,
                "hop_length": STFT_HOP,
                "n_fft": STFT_LENGTH,
                "num_mels": MELS,
            },
        },
    }
