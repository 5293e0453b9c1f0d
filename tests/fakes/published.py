"""A tiny LTX-2.3 in the published layout: the five files, written from random modules.

`PublishedFiles.edit` rewrites one file with a change, for tests of damage.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scope_ltx.checkpoints import keys
from scope_ltx.checkpoints.keys import KeyMap
from scope_ltx.manifest import ModelFiles
from scope_quant.fp8 import quantize_per_tensor
from tests.tiny import (
    tiny_audio_vae,
    tiny_connectors,
    tiny_text_encoder,
    tiny_transformer,
    tiny_video_vae,
    tiny_vocoder,
)

State = dict[str, Tensor]


@dataclass(frozen=True)
class Parts:
    transformer: Any
    connectors: Any
    text_encoder: Any
    video_vae: Any
    audio_vae: Any
    vocoder: Any


def tiny_modules(seed: int = 0) -> Parts:
    """bfloat16 values in float32 modules, so that a bfloat16 file holds them exactly."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules: list[nn.Module] = [
            tiny_transformer(),
            tiny_connectors(),
            tiny_text_encoder(),
            tiny_video_vae(),
            tiny_audio_vae(),
            tiny_vocoder(),
        ]
        for module in modules:
            for tensor in module.state_dict().values():
                noise = torch.randn(tensor.shape) * 0.1
                tensor.copy_((tensor + noise).to(torch.bfloat16))
    return Parts(*(module.eval().requires_grad_(False) for module in modules))


def published_state(module: nn.Module, keymap: KeyMap) -> State:
    state = module.state_dict().items()
    return {keymap.to_published(name): tensor.to(torch.bfloat16).contiguous() for name, tensor in state}


def quantize_layers(state: State, layers: Iterable[str], **notes: Any) -> None:
    """Store the weights of published layers as FP8, with scale and note."""
    note = json.dumps({"format": "float8_e4m3fn", **notes}).encode()
    for layer in layers:
        quantized = quantize_per_tensor(state[f"{layer}.weight"].float())
        state[f"{layer}.weight"] = quantized.data
        state[f"{layer}.weight_scale"] = quantized.scale
        state[f"{layer}.comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)


def tokenizer_proto() -> bytes:
    writer = io.BytesIO()
    words = ["a red ball", "the blue sea", "hello world", "quick brown fox", "lazy dog", "zebra vexing jump"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 3),
        model_writer=writer,
        vocab_size=32,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return writer.getvalue()


def transformer_settings(transformer: Any, connectors: Any) -> dict[str, Any]:
    model, text = transformer.config, connectors.config
    return {
        "_class_name": "AVTransformer3DModel",
        "num_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "attention_head_dim": model.attention_head_dim,
        "in_channels": 128,
        "out_channels": 128,
        "cross_attention_dim": model.cross_attention_dim,
        "caption_channels": text.caption_channels,
        "norm_eps": 1e-6,
        "rope_type": "split",
        "frequencies_precision": "float64",
        "positional_embedding_max_pos": [20, 2048, 2048],
        "timestep_scale_multiplier": 1000,
        "av_ca_timestep_scale_multiplier": 1000.0,
        "audio_num_attention_heads": model.audio_num_attention_heads,
        "audio_attention_head_dim": model.audio_attention_head_dim,
        "audio_out_channels": 128,
        "audio_cross_attention_dim": model.audio_cross_attention_dim,
        "cross_attention_adaln": True,
        "apply_gated_attention": True,
        "connector_num_layers": text.video_connector_num_layers,
        "connector_num_attention_heads": text.video_connector_num_attention_heads,
        "connector_attention_head_dim": text.video_connector_attention_head_dim,
        "audio_connector_num_attention_heads": text.audio_connector_num_attention_heads,
        "audio_connector_attention_head_dim": text.audio_connector_attention_head_dim,
        "connector_positional_embedding_max_pos": [4096],
        "connector_num_learnable_registers": text.video_connector_num_learnable_registers,
        "caption_proj_before_connector": True,
    }


def video_vae_settings() -> dict[str, Any]:
    res = ["res_x", {"num_layers": 1}]
    down = [("compress_space_res", 2), ("compress_time_res", 2), ("compress_all_res", 2), ("compress_all_res", 1)]
    up = [("compress_space", 2), ("compress_time", 2), ("compress_all", 1), ("compress_all", 2)]

    def blocks(resamplers: list[tuple[str, int]]) -> list[Any]:
        listed: list[Any] = [res]
        for name, multiplier in resamplers:
            listed += [[name, {"multiplier": multiplier}], res]
        return listed

    return {
        "_class_name": "CausalVideoAutoencoder",
        "dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 128,
        "encoder_blocks": blocks(down),
        "decoder_blocks": blocks(up),
        "norm_layer": "pixel_norm",
        "patch_size": 4,
        "latent_log_var": "uniform",
        "causal_decoder": False,
        "timestep_conditioning": False,
        "spatial_padding_mode": "zeros",
    }


def audio_settings(audio_vae: Any, vocoder: Any) -> dict[str, Any]:
    vae, model = audio_vae.config, vocoder.config
    common = {
        "resblock": "AMP1",
        "activation": "snakebeta",
        "stereo": True,
        "use_tanh_at_final": False,
        "use_bias_at_final": False,
    }

    def generator(prefix: str) -> dict[str, Any]:
        return {
            **common,
            "upsample_initial_channel": model[f"{prefix}hidden_channels"],
            "upsample_rates": list(model[f"{prefix}upsample_factors"]),
            "upsample_kernel_sizes": list(model[f"{prefix}upsample_kernel_sizes"]),
            "resblock_kernel_sizes": list(model[f"{prefix}resnet_kernel_sizes"]),
            "resblock_dilation_sizes": [list(row) for row in model[f"{prefix}resnet_dilations"]],
        }

    extension = {
        "input_sampling_rate": 16000,
        "output_sampling_rate": 48000,
        "n_fft": model.filter_length,
        "hop_length": model.hop_length,
        "num_mels": model.num_mel_channels,
    }
    sizes = {
        "ch": vae.base_channels,
        "ch_mult": list(vae.ch_mult),
        "num_res_blocks": vae.num_res_blocks,
        "z_channels": vae.latent_channels,
        "attn_resolutions": [],
        "mid_block_add_attention": False,
        "mel_bins": 64,
    }
    return {
        "audio_vae": {"model": {"params": {"ddconfig": sizes, "sampling_rate": 16000}}},
        "vocoder": {"vocoder": generator(""), "bwe": {**generator("bwe_"), **extension}},
    }


@dataclass(frozen=True)
class PublishedFiles:
    """The files, and the modules that they hold (unquantized)."""

    directory: Path
    files: ModelFiles
    modules: Parts

    def edit(self, role: str, change: Callable[[State, dict[str, Any]], None]) -> Path:
        """Rewrite a file after `change(state, config)` altered its tensors and its settings in place."""
        path: Path = getattr(self.files, role)
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        config = json.loads(metadata["config"]) if "config" in metadata else {}
        change(state, config)
        if config:
            metadata["config"] = json.dumps(config)
        else:
            metadata.pop("config", None)
        _write(path, state, metadata)
        return path


def write_published(directory: Path, *, fp8: bool = True) -> PublishedFiles:
    """All five files below `directory`. With `fp8` every linear layer of a block is stored in FP8."""
    parts, files = tiny_modules(), ModelFiles.below(directory)

    transformer = published_state(parts.transformer, keys.TRANSFORMER)
    connectors = published_state(parts.connectors, keys.CONNECTORS)
    projection = {key: connectors.pop(key) for key in list(connectors) if key.startswith("text_embedding")}
    text = published_state(parts.text_encoder, keys.TEXT_ENCODER)
    if fp8:
        quantize_layers(transformer, _block_linears(parts.transformer, keys.TRANSFORMER, "transformer_blocks."))
        quantize_layers(text, _block_linears(parts.text_encoder, keys.TEXT_ENCODER, "layers."))
    text[keys.SPIECE_MODEL] = torch.frombuffer(bytearray(tokenizer_proto()), dtype=torch.uint8)
    text["vision_model.embeddings.patch_embedding.weight"] = torch.zeros(2, 2, dtype=torch.bfloat16)
    # The published transformer keeps its tables in float32.
    for key in [key for key in transformer if "scale_shift_table" in key]:
        transformer[key] = transformer[key].float()
    audio = published_state(parts.audio_vae, keys.AUDIO_VAE) | published_state(parts.vocoder, keys.VOCODER)
    video = published_state(parts.video_vae, keys.VIDEO_VAE)
    video["per_channel_statistics.mean-of-stds"] = torch.zeros(128, dtype=torch.bfloat16)

    settings = {"transformer": transformer_settings(parts.transformer, parts.connectors)}
    _write(files.transformer, transformer | connectors, _config(settings))
    _write(files.text_projection, projection, {})
    _write(files.text_encoder, text, {})
    _write(files.video_vae, video, _config({"vae": video_vae_settings()}))
    _write(files.audio_vae, audio, _config(audio_settings(parts.audio_vae, parts.vocoder)))
    return PublishedFiles(directory, files, parts)


def _block_linears(module: nn.Module, keymap: KeyMap, prefix: str) -> list[str]:
    linears = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    names = [keymap.to_published(f"{name}.weight") for name in linears if name.startswith(prefix)]
    return [name.removesuffix(".weight") for name in names]


def _config(settings: dict[str, Any]) -> dict[str, str]:
    return {"config": json.dumps(settings)}


def _write(path: Path, state: State, metadata: dict[str, str]) -> None:
    """A new file in place of the old one: the old may still be mapped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    save_file(state, draft, metadata)
    draft.replace(path)
