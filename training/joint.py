"""Transformer and connectors as one module for training: batches of noisy latents and captions -> velocities.

It runs diffusers' own blocks as `scope_ltx.sampling.denoiser` does, but for batches and with gradients: the same
places of text (1,024, registers behind the words), the same noise level for each network (`sampling.modulation`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scope_ltx.models.text import CONTEXT_TOKENS
from scope_ltx.sampling.modulation import TIMESTEP_SCALE
from scope_ltx.sampling.workspace import call_block

LEVELS = 3
"""Distinct shares of the noise level among a sample's tokens: 1 generated, 0 given, and one between."""

_FORMS = 64

RotaryTable = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Places:
    """Rotary tables of a geometry, each (1, heads, tokens, dim): of both modalities, and of the ways between."""

    video: RotaryTable
    audio: RotaryTable
    video_cross: RotaryTable
    audio_cross: RotaryTable


class JointModel(nn.Module):
    def __init__(self, transformer: nn.Module, connectors: nn.Module, *, compiled: bool = False) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.connectors: Any = connectors
        if compiled:
            # Two sizes, two batches, with gradients and without: more forms of a block than are allowed.
            torch._dynamo.config.recompile_limit = _FORMS
        self._call = torch.compile(call_block, dynamic=False) if compiled else call_block
        self._connect = torch.compile(_connector_block, dynamic=False) if compiled else _connector_block
        self._text_places: dict[str, RotaryTable] = {}

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.transformer.proj_in.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self.transformer.proj_in.weight.device
        return device

    def places(self, video_coords: Tensor, audio_coords: Tensor) -> Places:
        """coords: (1, 3, Tv, 2) and (1, 1, Ta, 2) bounds, as conditions lay them out."""
        model = self.transformer
        return Places(
            model.rope(video_coords),
            model.audio_rope(audio_coords),
            model.cross_attn_rope(video_coords[:, :1]),
            model.cross_attn_audio_rope(audio_coords),
        )

    def contexts(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, slots, features) and (B,) words -> contexts (B, 1024, width) of video and audio."""
        return self._context("video", features, lengths), self._context("audio", features, lengths)

    def _context(self, modality: str, features: Tensor, lengths: Tensor) -> Tensor:
        connector = getattr(self.connectors, f"{modality}_connector")
        project = getattr(self.connectors, f"{modality}_text_proj_in")
        slots = features.shape[1]
        layers = self.connectors.config.text_proj_in_factor
        scale = math.sqrt(project.out_features / (project.in_features // layers))
        words = project(features.to(self.dtype) * scale)
        registers = connector.learnable_registers
        fill = registers.repeat(CONTEXT_TOKENS // len(registers), 1).expand(len(words), -1, -1)
        is_word = torch.arange(slots, device=words.device)[None] < lengths[:, None]
        head = torch.where(is_word[..., None], words, fill[:, :slots])
        hidden = torch.cat([head, fill[:, slots:]], dim=1)
        if modality not in self._text_places:
            self._text_places[modality] = connector.rope(1, CONTEXT_TOKENS, device=hidden.device)
        rotary = _spread(self._text_places[modality], len(hidden))
        for block in connector.transformer_blocks:
            hidden = self._connect(block, hidden, rotary)
        normed: Tensor = connector.norm_out(hidden)
        return normed

    def forward(
        self, inputs: Mapping[str, Tensor], places: Places, contexts: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Velocities (B, Tv, 128) and (B, Ta, 128) of

        video, audio: noisy latents. sigma, audio_sigma: (B,). video_shares, audio_shares: (B, LEVELS) of the
        noise level; video_share_of, audio_share_of: (B, T) which of them is a token's.
        """
        model, batch = self.transformer, len(inputs["sigma"])
        video, audio = inputs["video"].to(self.dtype), inputs["audio"].to(self.dtype)
        sigma, audio_sigma = (inputs[name] * TIMESTEP_SCALE for name in ("sigma", "audio_sigma"))
        # What all tokens share is counted from the target's own level; of a frozen sound that is 0.
        video_levels = inputs["video_shares"] * sigma[:, None]
        audio_levels = inputs["audio_shares"] * audio_sigma[:, None]
        levels = torch.arange(LEVELS, device=video.device)
        video_of, audio_of = (
            (inputs[name][..., None] == levels).to(self.dtype) for name in ("video_share_of", "audio_share_of")
        )

        def embed(network: Any, timesteps: Tensor) -> tuple[Tensor, Tensor]:
            made = network(timesteps.flatten(), batch_size=timesteps.numel(), hidden_dtype=self.dtype)
            return made[0].view(batch, -1, made[0].shape[-1]), made[1].view(batch, -1, made[1].shape[-1])

        temb, head = (video_of @ rows for rows in embed(model.time_embed, video_levels))
        temb_audio, head_audio = (audio_of @ rows for rows in embed(model.audio_time_embed, audio_levels))
        shared: dict[str, Any] = {
            "temb": temb,
            "temb_audio": temb_audio,
            "temb_ca_scale_shift": video_of @ embed(model.av_cross_attn_video_scale_shift, video_levels)[0],
            "temb_ca_audio_scale_shift": audio_of @ embed(model.av_cross_attn_audio_scale_shift, audio_levels)[0],
            "temb_ca_gate": embed(model.av_cross_attn_video_a2v_gate, audio_sigma)[0],
            "temb_ca_audio_gate": embed(model.av_cross_attn_audio_v2a_gate, sigma)[0],
            "temb_prompt": embed(model.prompt_adaln, sigma)[0],
            "temb_prompt_audio": embed(model.audio_prompt_adaln, audio_sigma)[0],
            "video_rotary_emb": _spread(places.video, batch),
            "audio_rotary_emb": _spread(places.audio, batch),
            "ca_video_rotary_emb": _spread(places.video_cross, batch),
            "ca_audio_rotary_emb": _spread(places.audio_cross, batch),
        }
        states = model.proj_in(video), model.audio_proj_in(audio)
        for block in model.transformer_blocks:
            states = self._call(block, *states, contexts, False, None, shared)
        return (
            _head(states[0], head, model.norm_out, model.scale_shift_table, model.proj_out),
            _head(
                states[1], head_audio, model.audio_norm_out, model.audio_scale_shift_table, model.audio_proj_out
            ),
        )


def _connector_block(block: Any, hidden: Tensor, rotary: RotaryTable) -> Tensor:
    result: Tensor = block(hidden, attention_mask=None, rotary_emb=rotary)
    return result


def _spread(table: RotaryTable, batch: int) -> RotaryTable:
    return table[0].expand(batch, -1, -1, -1), table[1].expand(batch, -1, -1, -1)


def _head(state: Tensor, embedding: Tensor, norm: Any, table: Tensor, project: Any) -> Tensor:
    shift, scale = (table[None, None] + embedding[:, :, None]).unbind(2)
    result: Tensor = project(norm(state) * (1 + scale) + shift)
    return result
