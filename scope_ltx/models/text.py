"""Prompt -> the two text contexts that the transformer attends to.

Gemma's hidden states of every layer, normalised per token and layer, go through one projection per modality
and then through that modality's connector, in which learned registers fill the sequence up to 1,024 places.
Source: Lightricks/LTX-2, ltx-core text encoder and embeddings connector.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

CONTEXT_TOKENS = 1024
_RMS_EPS = 1e-6


class Tokenizer(Protocol):
    def encode(self, text: str) -> list[int]:
        """Token ids, beginning with BOS, at most 1,024."""


@dataclass(frozen=True)
class TextContext:
    """video: (1, 1024, video width). audio: (1, 1024, audio width). No mask: registers fill every place."""

    video: Tensor
    audio: Tensor

    @property
    def nbytes(self) -> int:
        return self.video.nbytes + self.audio.nbytes


def blended(contexts: Sequence[tuple[TextContext, float]]) -> TextContext:
    """The mean of contexts by weight, which are relative to each other. Every place holds a token of the prompt or
    a register, so prompts blend place by place.

    Raises ValueError for no context, and for weights that are not above 0.
    """
    total = sum(weight for _, weight in contexts)
    if not contexts or min(weight for _, weight in contexts) <= 0:
        raise ValueError(f"weights of prompts must be above 0, got {[weight for _, weight in contexts]}")
    if len(contexts) == 1:
        return contexts[0][0]
    video, audio = (
        sum(getattr(context, name).float() * (weight / total) for context, weight in contexts)
        for name in ("video", "audio")
    )
    like = contexts[0][0]
    return TextContext(cast(Tensor, video).to(like.video.dtype), cast(Tensor, audio).to(like.audio.dtype))


class PromptEncoder:
    """Encodes prompts and remembers the latest ones: at most `cache_entries` that hold at most `cache_nbytes`
    together, and always the latest one.

    Only real tokens pass through Gemma and the projection: padding places would be zeroed and then replaced
    by registers. A context is 12 MB at full size.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        text_encoder: Any,
        connectors: Any,
        cache_entries: int = 16,
        cache_nbytes: int = 128 * 2**20,
    ) -> None:
        if cache_entries < 1:
            raise ValueError(f"cache_entries must be at least 1, got {cache_entries}")
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._connectors = connectors
        self._cache_entries = cache_entries
        self._cache_nbytes = cache_nbytes
        self._cache: OrderedDict[str, TextContext] = OrderedDict()

    def encode(self, prompt: str) -> TextContext:
        """Context of `prompt`, from the cache where it is known."""
        context = self._cache.get(prompt)
        if context is None:
            context = self._context(self._features(self._tokenizer.encode(prompt)))
            self._make_room(context.nbytes)
            self._cache[prompt] = context
        self._cache.move_to_end(prompt)
        return context

    def forget(self) -> None:
        """The weights that prompts go through have changed."""
        self._cache.clear()

    def _make_room(self, nbytes: int) -> None:
        held = sum(context.nbytes for context in self._cache.values())
        while self._cache and (len(self._cache) >= self._cache_entries or held + nbytes > self._cache_nbytes):
            held -= self._cache.popitem(last=False)[1].nbytes

    def _features(self, token_ids: list[int]) -> Tensor:
        """(1, tokens, width, layers + 1): hidden states with an RMS of 1 over the width."""
        embed = self._text_encoder.get_input_embeddings()
        device = self._connectors.video_connector.learnable_registers.device
        # The table of words may stay on the host: a prompt needs some dozens of its 262,208 rows.
        embedded = embed(torch.tensor([token_ids], device=embed.weight.device)).to(device)
        # The reference pads on the left to 1,024 and counts positions from the padding: same angles, same bits.
        positions = torch.arange(CONTEXT_TOKENS - len(token_ids), CONTEXT_TOKENS, device=device)[None]
        outputs = self._text_encoder(
            inputs_embeds=embedded, position_ids=positions, use_cache=False, output_hidden_states=True
        )
        layers = outputs.hidden_states
        # Layer by layer into place: stacked first, 1,024 tokens would hold another 400 MB.
        features = torch.empty(*layers[0].shape, len(layers), dtype=layers[0].dtype, device=device)
        for index, states in enumerate(layers):
            norm = torch.rsqrt(states.square().mean(dim=2, keepdim=True) + _RMS_EPS)
            torch.mul(states, norm, out=features[..., index])
        return features

    def _context(self, features: Tensor) -> TextContext:
        connectors = self._connectors
        width = features.shape[2]
        flat = features.flatten(2)
        return TextContext(
            video=_connect(connectors.video_connector, _project(connectors.video_text_proj_in, flat, width)),
            audio=_connect(connectors.audio_connector, _project(connectors.audio_text_proj_in, flat, width)),
        )


def _project(projection: Any, features: Tensor, width: int) -> Tensor:
    """Scaled by sqrt(output width / text width), so that both modalities see inputs of their own magnitude."""
    scaled: Tensor = projection(features * math.sqrt(projection.out_features / width))
    return scaled


def _connect(connector: Any, tokens: Tensor) -> Tensor:
    """Prompt tokens first, then register p mod 128 at place p, through the connector's layers unmasked."""
    registers = connector.learnable_registers.to(tokens.dtype)
    fill = registers.repeat(CONTEXT_TOKENS // len(registers), 1)[tokens.shape[1] :]
    hidden = torch.cat([tokens, fill[None]], dim=1)
    rotary = connector.rope(1, CONTEXT_TOKENS, device=hidden.device)
    for block in connector.transformer_blocks:
        hidden = block(hidden, attention_mask=None, rotary_emb=rotary)
    normed: Tensor = connector.norm_out(hidden)
    return normed
