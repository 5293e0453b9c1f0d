"""AdaLN modulations of every denoising step, computed once per chunk.

They depend on nothing but the noise levels and the denoise masks, so all steps go through each small network
in one batch: the loop itself then only indexes a table.

Which noise level feeds which network (facts: Lightricks/LTX-2, ltx-core transformer_args.py, confirmed by
ComfyUI pull request 14097):
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
class ModalityModulation:
    """Tables over S steps and K distinct mask levels, for one modality of width D.

    tokens: (S, K, 9 D). output: (S, K, D). cross: (S, K, 4 D). gate: (S, 1, D). prompt: (S, 1, 2 D).
    level_of_token: (T,) int64, or None when every token has the same level.
    """

    tokens: Tensor
    output: Tensor
    cross: Tensor
    gate: Tensor
    prompt: Tensor
    level_of_token: Tensor | None

    def per_token(self, table: Tensor, step: int) -> Tensor:
        """(1, 1 or T, ...): the step's row, spread to tokens where their levels differ."""
        row = table[step : step + 1]
        return row if self.level_of_token is None else row[:, self.level_of_token]


@dataclass(frozen=True)
class Modulation:
    video: ModalityModulation
    audio: ModalityModulation


def build_modulation(
    model: Any, video: TokenSequence, audio: TokenSequence, sigmas: tuple[float, ...], dtype: torch.dtype
) -> Modulation:
    """Tables for every step of `sigmas` (the final 0 is no step). `model` is diffusers' LTX-2 transformer."""
    steps = torch.tensor(sigmas[:-1], dtype=torch.float32, device=video.latents.device) * TIMESTEP_SCALE
    video_scalar = torch.zeros_like(steps) if video.frozen else steps
    audio_scalar = torch.zeros_like(steps) if audio.frozen else steps
    video_levels, video_index = _levels(video)
    audio_levels, audio_index = _levels(audio)

    def table(network: Any, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        modulation, embedding = network(timesteps.flatten(), batch_size=timesteps.numel(), hidden_dtype=dtype)
        return modulation.unflatten(0, timesteps.shape), embedding.unflatten(0, timesteps.shape)

    def modality(
        names: tuple[str, str, str, str], levels: Tensor, index: Tensor | None, own: Tensor, other: Tensor
    ) -> ModalityModulation:
        embed, cross, gate, prompt = (getattr(model, name) for name in names)
        timesteps = steps[:, None] * levels[None]
        tokens, output = table(embed, timesteps)
        return ModalityModulation(
            tokens=tokens,
            output=output,
            cross=table(cross, timesteps)[0],
            gate=table(gate, other[:, None])[0],
            prompt=table(prompt, own[:, None])[0],
            level_of_token=index,
        )

    video_names = ("time_embed", "av_cross_attn_video_scale_shift", "av_cross_attn_video_a2v_gate", "prompt_adaln")
    audio_names = (
        "audio_time_embed",
        "av_cross_attn_audio_scale_shift",
        "av_cross_attn_audio_v2a_gate",
        "audio_prompt_adaln",
    )
    return Modulation(
        video=modality(video_names, video_levels, video_index, video_scalar, audio_scalar),
        audio=modality(audio_names, audio_levels, audio_index, audio_scalar, video_scalar),
    )


def _levels(sequence: TokenSequence) -> tuple[Tensor, Tensor | None]:
    """Distinct mask values (K,) and each token's index into them; (1.0) and None without a mask."""
    if sequence.denoise_mask is None:
        return torch.ones(1, device=sequence.latents.device), None
    levels, index = torch.unique(sequence.denoise_mask[0, :, 0], return_inverse=True)
    return levels, None if len(levels) == 1 else index
