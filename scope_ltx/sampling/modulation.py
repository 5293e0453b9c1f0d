"""AdaLN modulations of every denoising step, computed once per chunk.

They depend on nothing but the noise levels and the denoise masks, so all steps go through each small network
in one batch: the loop itself then only indexes a table.

Which noise level feeds which network (Lightricks/LTX-2, ltx-core transformer_args.py, confirmed by ComfyUI
pull request 14097):
    time_embed, cross-attention scale and shift   the modality's own per-token level (mask * sigma)
    prompt_adaln                                   the modality's scalar sigma
    cross-attention gates                          the *other* modality's scalar sigma
A frozen modality has scalar sigma 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence

TIMESTEP_SCALE = 1000.0


@dataclass(frozen=True)
class ModulationTable:
    """values: (S, K, W) over S steps and K distinct mask levels. level_of_token: (T,) int64, or None where
    all tokens share one row."""

    values: Tensor
    level_of_token: Tensor | None = None

    def row(self, step: Tensor) -> Tensor:
        """(1, 1 or T, W) at `step`, a (1,) int64 tensor: indexing on the device keeps the step in a graph."""
        row = self.values.index_select(0, step)
        return row if self.level_of_token is None else row.index_select(1, self.level_of_token)


@dataclass(frozen=True)
class Modulation:
    """blocks: under the argument names of diffusers' block. heads: video and audio output scale and shift."""

    blocks: dict[str, ModulationTable]
    heads: tuple[ModulationTable, ModulationTable]

    @property
    def layout(self) -> tuple[bool, bool]:
        """Whether video and audio tokens differ in level: what decides the shapes of the rows."""
        return (self.heads[0].level_of_token is not None, self.heads[1].level_of_token is not None)


def build_modulation(
    model: Any, video: TokenSequence, audio: TokenSequence, sigmas: tuple[float, ...], dtype: torch.dtype
) -> Modulation:
    """Tables for every step of `sigmas` (the final 0 is no step). `model` is diffusers' LTX-2 transformer."""
    steps = torch.tensor(sigmas[:-1], dtype=torch.float32, device=video.latents.device)[:, None] * TIMESTEP_SCALE
    video_scalar = torch.zeros_like(steps) if video.frozen else steps
    audio_scalar = torch.zeros_like(steps) if audio.frozen else steps
    video_levels, video_index = _levels(video)
    audio_levels, audio_index = _levels(audio)
    video_tokens, audio_tokens = steps * video_levels, steps * audio_levels

    def embed(network: Any, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        modulation, embedding = network(timesteps.flatten(), batch_size=timesteps.numel(), hidden_dtype=dtype)
        return modulation.unflatten(0, timesteps.shape), embedding.unflatten(0, timesteps.shape)

    def table(network: Any, timesteps: Tensor, index: Tensor | None = None) -> ModulationTable:
        return ModulationTable(embed(network, timesteps)[0], index)

    video_temb, video_head = embed(model.time_embed, video_tokens)
    audio_temb, audio_head = embed(model.audio_time_embed, audio_tokens)
    return Modulation(
        blocks={
            "temb": ModulationTable(video_temb, video_index),
            "temb_audio": ModulationTable(audio_temb, audio_index),
            "temb_ca_scale_shift": table(model.av_cross_attn_video_scale_shift, video_tokens, video_index),
            "temb_ca_audio_scale_shift": table(model.av_cross_attn_audio_scale_shift, audio_tokens, audio_index),
            "temb_ca_gate": table(model.av_cross_attn_video_a2v_gate, audio_scalar),
            "temb_ca_audio_gate": table(model.av_cross_attn_audio_v2a_gate, video_scalar),
            "temb_prompt": table(model.prompt_adaln, video_scalar),
            "temb_prompt_audio": table(model.audio_prompt_adaln, audio_scalar),
        },
        heads=(ModulationTable(video_head, video_index), ModulationTable(audio_head, audio_index)),
    )


def _levels(sequence: TokenSequence) -> tuple[Tensor, Tensor | None]:
    """Distinct mask values (K,) and each token's index into them; (1.0) and None without a mask."""
    if sequence.denoise_mask is None:
        return torch.ones(1, device=sequence.latents.device), None
    levels, index = torch.unique(sequence.denoise_mask[0, :, 0], return_inverse=True)
    return levels, index
