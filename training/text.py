"""Captions -> what the text projections take: the frozen small Gemma's hidden states of every layer.

The encoder is laid out by hand and not trained: a caption is a row of common words, each with an embedding of its
own, and the connectors, which are trained, make sense of them. Its layers are rounded as they are published. It is
the same whatever a stage's --seed: clips of a bank drawn with another one would be captioned in a foreign tongue.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scope_ltx.models.small import SEED
from scope_ltx.models.small.published import is_fp8_in_text_encoder
from scope_ltx.models.small.sizes import TEXT_LAYERS, TEXT_WIDTH, build_text_encoder
from scope_ltx.models.small.text_weights import text_encoder_weights
from scope_ltx.models.small.vocabulary import read_pieces, train_tokenizer
from scope_ltx.models.tokenizer import Tokenizer
from scope_quant.fp8 import dequantize, quantize_per_tensor
from training.world.grammar import vocabulary

SLOTS = 48
"""Tokens of a caption at most: the longest of 5,000 paraphrases had 40."""
FEATURES = TEXT_WIDTH * (TEXT_LAYERS + 1)

_RMS_EPS = 1e-6
_BATCH = 512


def world_tokenizer() -> bytes:
    """A SentencePiece model that knows every word of the world's grammar beside its built-in ones."""
    return train_tokenizer(vocabulary())


def text_encoder_state(tokenizer: bytes) -> dict[str, Tensor]:
    """State dict of the small Gemma, float32, as it comes back from the published file."""
    state = text_encoder_weights(SEED, read_pieces(tokenizer))
    for name, weight in state.items():
        if is_fp8_in_text_encoder(name, weight):
            quantized = quantize_per_tensor(weight)
            state[name] = dequantize(quantized.data, quantized.scale, torch.float32)
        else:
            state[name] = weight.bfloat16().float()
    return state


class CaptionEncoder:
    """Features of many captions at once, on one device."""

    def __init__(self, device: torch.device) -> None:
        tokenizer = world_tokenizer()
        self._tokenizer = Tokenizer(tokenizer)
        state = text_encoder_state(tokenizer)
        encoder = build_text_encoder(len(state["embed_tokens.weight"]))
        encoder.load_state_dict(state)
        self._encoder = encoder.to(device).eval().requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def features(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """((N, SLOTS, FEATURES) bfloat16, zero beyond a caption's end; (N,) numbers of tokens).

        Raises ValueError for a caption of more than SLOTS tokens.
        """
        tokens = [self._tokenizer.encode(caption) for caption in captions]
        longest = max(map(len, tokens))
        if longest > SLOTS:
            raise ValueError(f"a caption has {longest} tokens, {SLOTS} at most are taken")
        lengths = torch.tensor([len(one) for one in tokens], device=self._device)
        padded = torch.zeros(len(tokens), SLOTS, dtype=torch.int64)
        for row, one in zip(padded, tokens, strict=True):
            row[: len(one)] = torch.tensor(one)
        parts = [self._batch(part.to(self._device)) for part in torch.split(padded, _BATCH)]
        features = torch.cat(parts)
        beyond = torch.arange(SLOTS, device=self._device)[None] >= lengths[:, None]
        return features.masked_fill_(beyond[..., None], 0.0), lengths

    def _batch(self, tokens: Tensor) -> Tensor:
        # Attention is causal, so what pads a caption behind its end changes nothing before it.
        states = self._encoder(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states
        stacked = torch.stack(states, dim=3).float()
        normed = stacked * torch.rsqrt(stacked.square().mean(dim=2, keepdim=True) + _RMS_EPS)
        return normed.flatten(2).bfloat16()
