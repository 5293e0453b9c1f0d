"""The linear layers of LTX-2.3's transformer and text connectors: names and sizes, without building them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Shape = tuple[int, int]
"""(out, in)."""

TIMESTEP_EMBEDDING = 256


@dataclass(frozen=True)
class Size:
    """width, audio_width: of the streams of picture and sound. text: of all of the text encoder's states."""

    name: str
    width: int
    audio_width: int
    heads: int
    text: int
    blocks: int
    connector_blocks: int


PUBLISHED = Size(
    "LTX-2.3 (22B)", width=4096, audio_width=2048, heads=32, text=49 * 3840, blocks=48, connector_blocks=8
)
SMALL = Size("the small model", width=128, audio_width=128, heads=4, text=7 * 64, blocks=6, connector_blocks=2)


def linear_layers(size: Size) -> dict[str, Shape]:
    """{diffusers' name: (out, in)} of every linear layer."""
    video, audio = size.width, size.audio_width
    layers: dict[str, Shape] = {}
    for prefix, width in (("", video), ("audio_", audio)):
        layers |= {f"{prefix}proj_in": (width, 128), f"{prefix}proj_out": (128, width)}
        layers |= _timestep(f"{prefix}time_embed", width, 9)
        layers |= _timestep(f"{prefix}prompt_adaln", width, 2)
    for way, width, vectors in (
        ("video_scale_shift", video, 4),
        ("audio_scale_shift", audio, 4),
        ("video_a2v_gate", video, 1),
        ("audio_v2a_gate", audio, 1),
    ):
        layers |= _timestep(f"av_cross_attn_{way}", width, vectors)
    for block in range(size.blocks):
        layers |= {f"transformer_blocks.{block}.{name}": shape for name, shape in _block(size)}
    for stream, width in (("video", video), ("audio", audio)):
        layers[f"{stream}_text_proj_in"] = (width, size.text)
        for block in range(size.connector_blocks):
            inside = [*_attention("attn1", width, width, width, size.heads), *_feed_forward("ff", width)]
            layers |= {f"{stream}_connector.transformer_blocks.{block}.{name}": shape for name, shape in inside}
    return layers


def _timestep(name: str, width: int, vectors: int) -> dict[str, Shape]:
    embedder = f"{name}.emb.timestep_embedder"
    return {
        f"{embedder}.linear_1": (width, TIMESTEP_EMBEDDING),
        f"{embedder}.linear_2": (width, width),
        f"{name}.linear": (vectors * width, width),
    }


def _block(size: Size) -> Iterator[tuple[str, Shape]]:
    video, audio = size.width, size.audio_width
    for prefix, width in (("", video), ("audio_", audio)):
        for attention in ("attn1", "attn2"):
            yield from _attention(f"{prefix}{attention}", width, width, width, size.heads)
        yield from _feed_forward(f"{prefix}ff", width)
    yield from _attention("audio_to_video_attn", video, audio, audio, size.heads)
    yield from _attention("video_to_audio_attn", audio, video, audio, size.heads)


def _attention(name: str, asking: int, asked: int, inner: int, heads: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.to_q", (inner, asking)
    yield f"{name}.to_k", (inner, asked)
    yield f"{name}.to_v", (inner, asked)
    yield f"{name}.to_out.0", (asking, inner)
    yield f"{name}.to_gate_logits", (heads, asking)


def _feed_forward(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.net.0.proj", (4 * width, width)
    yield f"{name}.net.2", (width, 4 * width)
