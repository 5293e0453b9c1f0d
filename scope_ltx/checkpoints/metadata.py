"""Settings of the published files -> arguments of the diffusers classes.

Each file carries a JSON object `config` with a section per part of the model. Sizes come from there, or from
the shapes of tensors where no setting gives them, so a small model in the published layout needs no code of
its own. Constants of LTX-2.3 are written here and compared with the file: the reference code's defaults for
absent keys belong to older models (connector positions 1, gate multiplier 1, decode noise on, reflected
padding), and diffusers' are others again.

Key names are those that Lightricks/LTX-2 (ltx-core, the `model_configurator` modules) reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scope_ltx.checkpoints.keys import (
    CONNECTORS,
    TRANSFORMER,
    VAE_STAGES,
    VIDEO_VAE,
    VOCODER,
    KeyMap,
)
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.checkpoints.settings import ADVICE, Section
from scope_ltx.errors import CheckpointError

Kwargs = dict[str, Any]

_CAUSAL_ROPE = {
    "positional_embedding_type": "rope",
    "positional_embedding_theta": 10000.0,
    "rope_type": "split",
    "frequencies_precision": "float64",
}

_TRANSFORMER_CONSTANTS: Mapping[str, Any] = {
    **_CAUSAL_ROPE,
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_eps": 1e-6,
    "norm_elementwise_affine": False,
    "qk_norm": "rms_norm",
    "standardization_norm": "rms_norm",
    "num_embeds_ada_norm": 1000,
    "positional_embedding_max_pos": (20, 2048, 2048),
    "audio_positional_embedding_max_pos": (20,),
    "use_middle_indices_grid": True,
    "causal_temporal_positioning": True,
    "timestep_scale_multiplier": 1000,
    "av_ca_timestep_scale_multiplier": 1000,
    "av_cross_ada_norm": True,
    "cross_attention_adaln": True,
    "apply_gated_attention": True,
    "caption_proj_before_connector": True,
    "use_prompt_adaln_single": True,
    "ff_bias": True,
    "audio_ff_bias": True,
    "use_keyframes_abs_pos_embedding": False,
}

_CONNECTOR_CONSTANTS: Mapping[str, Any] = {
    **_CAUSAL_ROPE,
    "use_embeddings_connector": True,
    "connector_positional_embedding_max_pos": (4096,),
    "connector_norm_output": True,
    "connector_apply_gated_attention": True,
    "connector_ff_bias": True,
    "caption_projection_first_linear": False,
    "caption_projection_second_linear": False,
    "caption_proj_input_norm": False,
    "caption_proj_before_connector": True,
    "text_encoder_norm_type": "per_token_rms",
}


def transformer_kwargs(file: CheckpointFile) -> Kwargs:
    """Section `transformer` -> LTX2VideoTransformer3DModel."""
    settings = _section(file, "transformer")
    settings.constants(_TRANSFORMER_CONSTANTS)
    widths = _Widths(file, TRANSFORMER)
    return {
        "in_channels": settings.integer("in_channels"),
        "out_channels": settings.integer("out_channels"),
        "num_attention_heads": settings.integer("num_attention_heads"),
        "attention_head_dim": settings.integer("attention_head_dim"),
        "cross_attention_dim": settings.integer("cross_attention_dim"),
        "audio_in_channels": widths.of("audio_proj_in.weight", 1),
        "audio_out_channels": settings.integer("audio_out_channels"),
        "audio_num_attention_heads": settings.integer("audio_num_attention_heads"),
        "audio_attention_head_dim": settings.integer("audio_attention_head_dim"),
        "audio_cross_attention_dim": settings.integer("audio_cross_attention_dim"),
        "num_layers": settings.integer("num_layers"),
        "caption_channels": settings.integer("caption_channels"),
        "gated_attn": True,
        "cross_attn_mod": True,
        "audio_gated_attn": True,
        "audio_cross_attn_mod": True,
        "use_prompt_embeddings": False,
        "rope_type": "split",
        "rope_theta": 10000.0,
        "rope_double_precision": True,
        "pos_embed_max_pos": 20,
        "base_height": 2048,
        "base_width": 2048,
        "audio_pos_embed_max_pos": 20,
        "timestep_scale_multiplier": 1000,
        "cross_attn_timestep_scale_multiplier": 1000,
        "norm_eps": 1e-6,
        # Selects the attention processor that perturbed guidance needs; adds no weights.
        "perturbed_attn": True,
    }


def connectors_kwargs(transformer_file: CheckpointFile, projection_file: CheckpointFile) -> Kwargs:
    """Section `transformer` (it holds the connectors' settings too) -> LTX2TextConnectors.

    `audio_connector_num_layers` defaults to `connector_num_layers`, as the reference has it. The number of
    hidden states that are projected comes from the projection's shape.
    """
    settings = _section(transformer_file, "transformer")
    settings.constants(_CONNECTOR_CONSTANTS)
    text_width = settings.integer("caption_channels")
    layers = settings.integer("connector_num_layers")
    registers = settings.integer("connector_num_learnable_registers")
    projection = _Widths(projection_file, CONNECTORS)
    stacked = projection.of("video_text_proj_in.weight", 1)
    if stacked % text_width:
        problem = f"projects {stacked} values, expected a multiple of the text width {text_width}"
        raise CheckpointError(
            projection_file.path, problem, advice="Use the projection that belongs to the transformer"
        )
    video_heads = settings.integer("connector_num_attention_heads")
    video_head_dim = settings.integer("connector_attention_head_dim")
    audio_heads = settings.integer("audio_connector_num_attention_heads")
    audio_head_dim = settings.integer("audio_connector_attention_head_dim")
    return {
        "caption_channels": text_width,
        "text_proj_in_factor": stacked // text_width,
        "video_connector_num_attention_heads": video_heads,
        "video_connector_attention_head_dim": video_head_dim,
        "video_connector_num_layers": layers,
        "video_connector_num_learnable_registers": registers,
        "video_gated_attn": True,
        "audio_connector_num_attention_heads": audio_heads,
        "audio_connector_attention_head_dim": audio_head_dim,
        "audio_connector_num_layers": settings.integer("audio_connector_num_layers", layers),
        "audio_connector_num_learnable_registers": registers,
        "audio_gated_attn": True,
        "connector_rope_base_seq_len": 4096,
        "rope_theta": 10000.0,
        "rope_double_precision": True,
        "causal_temporal_positioning": False,
        "rope_type": "split",
        "per_modality_projections": True,
        "video_hidden_dim": video_heads * video_head_dim,
        "audio_hidden_dim": audio_heads * audio_head_dim,
        "proj_bias": True,
    }


def video_vae_kwargs(file: CheckpointFile) -> Kwargs:
    """Section `vae` -> AutoencoderKLLTX2Video.

    `encoder_blocks` and `decoder_blocks` are lists of [name, settings], residual blocks (`res_x`, with
    `num_layers`) in turn with resamplers (`compress_{space,time,all}`, in the encoder with `_res` appended;
    `multiplier` is the change of width). The decoder's list runs from the output to the input. Block widths
    come from shapes: an encoder's multiplier need not be whole.
    """
    settings = _section(file, "vae")
    settings.constants(
        {
            "_class_name": "CausalVideoAutoencoder",
            "dims": 3,
            "norm_layer": "pixel_norm",
            "latent_log_var": "uniform",
            "causal_decoder": False,
            "timestep_conditioning": False,
            "spatial_padding_mode": "zeros",
            "encoder_spatial_padding_mode": "zeros",
            "scaling_factor": 1.0,
            "patch_size": 4,
        }
    )
    widths = _Widths(file, VIDEO_VAE)
    latent_channels = widths.of("decoder.conv_in.conv.weight", 1)
    settings.constants({"latent_channels": latent_channels})
    encoder_layers, down = _stages(settings, "encoder_blocks", "_res")
    decoder_layers, up = _stages(settings, "decoder_blocks", "")
    stages = range(VAE_STAGES)
    after_down = [f"encoder.down_blocks.{stage + 1}" for stage in stages[:-1]] + ["encoder.mid_block"]
    before_up = [f"decoder.up_blocks.{stage}.upsamplers.0.conv.conv.weight" for stage in reversed(stages)]
    return {
        "in_channels": settings.integer("in_channels"),
        "out_channels": settings.integer("out_channels"),
        "latent_channels": latent_channels,
        "block_out_channels": tuple(widths.of(f"{block}.resnets.0.conv1.conv.weight", 0) for block in after_down),
        "down_block_types": ("LTX2VideoDownBlock3D",) * VAE_STAGES,
        "layers_per_block": encoder_layers,
        "spatio_temporal_scaling": (True,) * VAE_STAGES,
        "downsample_type": tuple(_RESAMPLING[name] for name, _ in down),
        "decoder_block_out_channels": tuple(widths.of(key, 1) for key in before_up),
        "decoder_layers_per_block": decoder_layers,
        "decoder_spatio_temporal_scaling": (True,) * VAE_STAGES,
        "decoder_inject_noise": (False,) * (VAE_STAGES + 1),
        # diffusers lists types from the latent to the picture, and all else as the file does.
        "upsample_type": tuple(_RESAMPLING[name] for name, _ in reversed(up)),
        "upsample_residual": tuple(bool(block.get("residual", False)) for _, block in up),
        "upsample_factor": tuple(int(block.get("multiplier", 1)) for _, block in up),
        "timestep_conditioning": False,
        "patch_size": 4,
        "patch_size_t": 1,
        "encoder_causal": True,
        "decoder_causal": False,
        "encoder_spatial_padding_mode": "zeros",
        "decoder_spatial_padding_mode": "zeros",
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    }


_RESAMPLING = {"compress_space": "spatial", "compress_time": "temporal", "compress_all": "spatiotemporal"}

Block = tuple[str, Mapping[str, Any]]


def _stages(settings: Section, key: str, suffix: str) -> tuple[tuple[int, ...], Sequence[Block]]:
    """Layers of each residual block, and the resamplers between them with `suffix` taken off their names."""
    blocks = settings.blocks(key)
    residual, resamplers = blocks[::2], blocks[1::2]
    names = [name for name, _ in blocks]
    right = (
        len(blocks) == 2 * VAE_STAGES + 1
        and all(name == "res_x" and isinstance(block.get("num_layers"), int) for name, block in residual)
        and all(name in {known + suffix for known in _RESAMPLING} for name, _ in resamplers)
    )
    if not right:
        expected = (
            f"{VAE_STAGES + 1} blocks res_x (with num_layers) in turn with {VAE_STAGES} of compress_*{suffix}"
        )
        raise settings.mismatch(key, expected, names)
    layers = tuple(int(block["num_layers"]) for _, block in residual)
    return layers, [(name.removesuffix(suffix), block) for name, block in resamplers]


def audio_vae_kwargs(file: CheckpointFile) -> Kwargs:
    """Section `audio_vae` -> AutoencoderKLLTX2Audio.

    Sizes are in `model.params.ddconfig`, the sampling rate in `model.params`, the spectrogram in
    `preprocessing.stft` and `preprocessing.mel`.
    """
    settings = _section(file, "audio_vae")
    parameters = settings.section("model", "params")
    parameters.constants({"sampling_rate": 16000})
    sizes = parameters.section("ddconfig")
    sizes.constants(
        {
            "attn_resolutions": (),
            "norm_type": "pixel",
            "causality_axis": "height",
            "mid_block_add_attention": False,
            "resamp_with_conv": True,
            "double_z": True,
            "resolution": 256,
            "mel_bins": 64,
        }
    )
    if settings.has("preprocessing"):
        spectrogram = settings.section("preprocessing", "stft")
        spectrogram.constants({"hop_length": 160, "filter_length": 1024, "causal": True})
    return {
        "base_channels": sizes.integer("ch"),
        "ch_mult": sizes.integers("ch_mult"),
        "num_res_blocks": sizes.integer("num_res_blocks"),
        "in_channels": sizes.integer("in_channels", 2),
        "output_channels": sizes.integer("out_ch", 2),
        "latent_channels": sizes.integer("z_channels"),
        "attn_resolutions": None,
        "norm_type": "pixel",
        "causality_axis": "height",
        "mid_block_add_attention": False,
        "double_z": True,
        "resolution": 256,
        "sample_rate": 16000,
        "mel_hop_length": 160,
        "mel_bins": 64,
        "is_causal": True,
    }


_GENERATOR_CONSTANTS: Mapping[str, Any] = {
    "resblock": "AMP1",
    "activation": "snakebeta",
    "stereo": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}


def vocoder_kwargs(file: CheckpointFile) -> Kwargs:
    """Section `vocoder` -> LTX2VocoderWithBWE.

    Its sub-sections `vocoder` (to 16 kHz) and `bwe` (bandwidth extension, to 48 kHz) both hold
    `upsample_initial_channel`, `upsample_rates`, `upsample_kernel_sizes`, `resblock_kernel_sizes` and
    `resblock_dilation_sizes`; `bwe` also the rates and its spectrogram (`n_fft`, `hop_length`, `num_mels`).
    """
    settings = _section(file, "vocoder")
    core, extension = settings.section("vocoder"), settings.section("bwe")
    widths = _Widths(file, VOCODER)
    n_fft = extension.integer("n_fft")
    return {
        # The reference clamps the 16 kHz waveform before it extends it, and not again within the extension.
        **_generator(core, widths, "vocoder", prefix="", final_act_fn="clamp"),
        **_generator(extension, widths, "bwe_generator", prefix="bwe_", final_act_fn=None),
        "filter_length": n_fft,
        "window_length": n_fft,
        "hop_length": extension.integer("hop_length"),
        "num_mel_channels": extension.integer("num_mels"),
        "input_sampling_rate": extension.integer("input_sampling_rate"),
        "output_sampling_rate": extension.integer("output_sampling_rate"),
    }


def _generator(
    settings: Section, widths: _Widths, module: str, *, prefix: str, final_act_fn: str | None
) -> Kwargs:
    settings.constants(_GENERATOR_CONSTANTS)
    kwargs: Kwargs = {
        "in_channels": widths.of(f"{module}.conv_in.weight", 1),
        "hidden_channels": settings.integer("upsample_initial_channel"),
        "out_channels": widths.of(f"{module}.conv_out.weight", 0),
        "upsample_kernel_sizes": list(settings.integers("upsample_kernel_sizes")),
        "upsample_factors": list(settings.integers("upsample_rates")),
        "resnet_kernel_sizes": list(settings.integers("resblock_kernel_sizes")),
        "resnet_dilations": [list(row) for row in settings.integer_lists("resblock_dilation_sizes")],
        "act_fn": "snakebeta",
        "antialias": True,
        "antialias_ratio": 2,
        "antialias_kernel_size": 12,
        "final_act_fn": final_act_fn,
        "final_bias": False,
    }
    return {prefix + name: value for name, value in kwargs.items()}


class _Widths:
    """Extents of a file's tensors, by the module's names."""

    def __init__(self, file: CheckpointFile, keymap: KeyMap) -> None:
        self._file = file
        self._keymap = keymap
        self._shapes = {keymap.to_module(key): shape for key, shape in file.shapes.items()}

    def of(self, name: str, axis: int) -> int:
        shape = self._shapes.get(name)
        if shape is None or len(shape) <= axis:
            raise CheckpointError(
                self._file.path,
                f"does not hold the {self._keymap.name} as expected",
                keys=[self._keymap.to_published(name)],
                advice=ADVICE,
            )
        return shape[axis]


def _section(file: CheckpointFile, name: str) -> Section:
    return Section(file.path, "config", file.config()).section(name)
