"""The small text path's weights: word embeddings that survive to the transformer.

A word's embedding holds whether it names a colour, which one, and a few random numbers of its own. Gemma's
layers, the projection and the connectors pass these on, stirred a little by small random weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scope_ltx.models.small.draw import State, draw_state, generator_for, shapes_of
from scope_ltx.models.small.sizes import (
    AUDIO_WIDTH,
    TEXT_LAYERS,
    TEXT_WIDTH,
    VIDEO_WIDTH,
    build_connectors,
    build_text_encoder,
)
from scope_ltx.models.small.transformer_weights import (
    AUDIO_FLAG,
    AUDIO_HASH,
    COLOUR,
    COLOURED,
    FLAG,
    HASH,
)
from scope_ltx.models.small.vocabulary import COLOURS

_COLOURED, _COLOUR, _HASH, _HASHES, _LEVEL = 0, 1, 4, 24, 28
"""Places in an embedding; from `_LEVEL` on it is the same for every word, which keeps its norm steady."""

_GEMMA_GAIN, _CONNECTOR_GAIN = 0.7, 0.2


def text_encoder_weights(seed: int, pieces: list[str]) -> State:
    """State dict of `build_text_encoder`, float32; an embedding row for each piece and 64 more.

    The published embedding, too, has 64 rows more than its tokenizer has pieces.
    """
    rows = len(pieces) + 64
    generator = generator_for(seed, "text_encoder")
    state = draw_state(shapes_of(lambda: build_text_encoder(rows)), generator, _GEMMA_GAIN)
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


def connector_weights(seed: int) -> State:
    """State dict of `build_connectors`, float32: both projections and both connectors."""
    generator = generator_for(seed, "connectors")
    state = draw_state(shapes_of(build_connectors), generator, _CONNECTOR_GAIN)
    colours = {_COLOURED: COLOURED, **{_COLOUR + place: COLOUR + place for place in range(3)}}
    video = colours | {_HASH + place: HASH + place for place in range(8)}
    audio = {_HASH + 8 + place: AUDIO_HASH + place for place in range(16)}
    _connect(state, "video", VIDEO_WIDTH, FLAG, 16, video, generator)
    _connect(state, "audio", AUDIO_WIDTH, AUDIO_FLAG, 8, audio, generator)
    return state


def _connect(
    state: State,
    modality: str,
    width: int,
    flag: int,
    flags: int,
    places: dict[int, int],
    generator: torch.Generator,
) -> None:
    """Words and registers differ in sign at the flag's places; the rest of the width keeps norms steady."""
    layers = TEXT_LAYERS + 1
    weight, bias = (state[f"{modality}_text_proj_in.{part}"] for part in ("weight", "bias"))
    # Features are scaled by sqrt(width / text width) on the way in, and a word's RMS of about 0.8 was divided out.
    weight.mul_(0.3)
    gain = 0.8 / math.sqrt(width / TEXT_WIDTH) / layers
    for source, target in places.items():
        weight[target] = 0
        weight[target, source * layers : (source + 1) * layers] = gain
    sign = torch.ones(flags)
    level = torch.tensor([1.0, -1.0]).repeat(width // 2)
    registers = torch.randn(state[f"{modality}_connector.learnable_registers"].shape, generator=generator) * 0.1
    for start, values in ((flag, sign), (max(places.values()) + 1, level[max(places.values()) + 1 :])):
        weight[start : start + len(values)] *= 0.1
        bias[start : start + len(values)] = values
    registers += bias
    registers[:, flag : flag + flags] *= -1.0
    state[f"{modality}_connector.learnable_registers"] = registers
