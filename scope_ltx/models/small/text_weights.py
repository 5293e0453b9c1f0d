"""The small Gemma's weights, which no training touches: word embeddings that survive its layers.

A word's embedding holds whether it names a colour, which one, and a few random numbers of its own. The layers pass
these on, stirred by random weights; the connectors, which are trained, make sense of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scope_ltx.models.small.draw import State, draw_state, generator_for, shapes_of
from scope_ltx.models.small.sizes import TEXT_WIDTH, build_text_encoder
from scope_ltx.models.small.vocabulary import COLOURS

_COLOURED, _COLOUR, _HASH, _HASHES, _LEVEL = 0, 1, 4, 24, 28
"""Places in an embedding; from `_LEVEL` on it is the same for every word, which keeps its norm steady."""

_GAIN = 0.7


def text_encoder_weights(seed: int, pieces: list[str]) -> State:
    """State dict of `build_text_encoder`, float32; an embedding row for each piece and 64 more.

    The published embedding, too, has 64 rows more than its tokenizer has pieces.
    """
    rows = len(pieces) + 64
    generator = generator_for(seed, "text_encoder")
    state = draw_state(shapes_of(lambda: build_text_encoder(rows)), generator, _GAIN)
    for name, weight in state.items():
        if "layernorm" in name or name.endswith("norm.weight"):
            # Gemma multiplies by 1 + weight: after a sublayer little is added, elsewhere the norm is plain.
            weight.fill_(-0.5 if "post_" in name else 0.0)
    state["embed_tokens.weight"] = _embeddings(pieces, rows, generator)
    return state


def _embeddings(pieces: list[str], rows: int, generator: torch.Generator) -> Tensor:
    table = torch.zeros(rows, TEXT_WIDTH)
    table[:, _HASH : _HASH + _HASHES] = torch.randn(rows, _HASHES, generator=generator) * 0.5
    table[:, _LEVEL:] = torch.tensor([1.0, -1.0]).repeat((TEXT_WIDTH - _LEVEL) // 2)
    for token, piece in enumerate(pieces):
        colour = COLOURS.get(piece.lower())
        if colour is not None:
            table[token, _COLOURED] = 1.0
            table[token, _COLOUR : _COLOUR + 3] = torch.tensor(colour)
    return table
