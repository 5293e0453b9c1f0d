"""The whole model, loaded once: every part on one device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2VocoderWithBWE
from transformers import Gemma3TextModel

from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.models.connectors import load_connectors
from scope_ltx.models.text_encoder import load_text_encoder
from scope_ltx.models.tokenizer import Tokenizer, load_tokenizer
from scope_ltx.models.transformer import build_transformer
from scope_ltx.models.video_vae import load_video_vae
from scope_quant.capability import Fp8Support, probe_fp8


@dataclass(frozen=True)
class Components:
    """Parts of one model, in evaluation mode and without gradients.

    dtype: what everything computes in, except the vocoder (float32). fp8: how FP8 layers are computed, and why.
    """

    transformer: LTX2VideoTransformer3DModel
    connectors: LTX2TextConnectors
    text_encoder: Gemma3TextModel
    tokenizer: Tokenizer
    video_vae: AutoencoderKLLTX2Video
    audio_vae: AutoencoderKLLTX2Audio
    vocoder: LTX2VocoderWithBWE
    device: torch.device
    dtype: torch.dtype
    fp8: Fp8Support


def compute_dtype(device: torch.device) -> torch.dtype:
    """float32 on the CPU, whose bfloat16 is slow; bfloat16, in which the model was trained, elsewhere."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def load_components(files: ModelFiles, device: torch.device) -> Components:
    """Load every part onto `device`. All files are opened, and so checked to be whole, before any is read.

    Raises CheckpointError naming the file, the keys and what to do.
    """
    transformer_file = CheckpointFile(files.transformer)
    projection_file = CheckpointFile(files.text_projection)
    text_file = CheckpointFile(files.text_encoder)
    video_file = CheckpointFile(files.video_vae)
    audio_file = CheckpointFile(files.audio_vae)
    dtype, fp8 = compute_dtype(device), probe_fp8(device)

    tokenizer = load_tokenizer(text_file)
    text_encoder = load_text_encoder(text_file, device=device, dtype=dtype, fp8_path=fp8.path)
    connectors = load_connectors(transformer_file, projection_file, device=device, dtype=dtype, fp8_path=fp8.path)
    _require_same_text_width(text_file, text_encoder, connectors)
    return Components(
        transformer=build_transformer(transformer_file, device=device, dtype=dtype, fp8_path=fp8.path),
        connectors=connectors,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        video_vae=load_video_vae(video_file, device=device, dtype=dtype),
        audio_vae=load_audio_vae(audio_file, device=device, dtype=dtype),
        vocoder=load_vocoder(audio_file, device=device),
        device=device,
        dtype=dtype,
        fp8=fp8,
    )


def _require_same_text_width(
    file: CheckpointFile, text_encoder: Gemma3TextModel, connectors: LTX2TextConnectors
) -> None:
    """The projection takes every hidden state of the text encoder: the embedding's and each layer's."""
    gives = (text_encoder.config.hidden_size, text_encoder.config.num_hidden_layers + 1)
    takes = (connectors.config.caption_channels, connectors.config.text_proj_in_factor)
    if gives != takes:
        problem = (
            f"gives {gives[1]} hidden states of width {gives[0]}, the projection takes {takes[1]} of {takes[0]}"
        )
        raise CheckpointError(file.path, problem, advice="Use the text encoder that belongs to the projection")
