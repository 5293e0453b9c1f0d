"""Attention strength: the bias, its storage for every head, and when there is none."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scope_ltx.conditioning.attention import attention_bias, token_weights
from scope_ltx.conditioning.sequence import TokenSequence, append
from scope_ltx.models.text import TextContext
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.workspace import BlockArguments, CallBlock, Pass, call_block
from tests.tiny import AUDIO_WIDTH, HEADS, VIDEO_WIDTH, tiny_transformer


def sequence(tokens: int, *groups: tuple[int, float | Tensor]) -> TokenSequence:
    made = TokenSequence(torch.randn(1, tokens, 128), torch.rand(1, 3, tokens, 2))
    for count, attention in groups:
        clean, coords = torch.randn(1, count, 128), torch.rand(1, 3, count, 2)
        made = append(made, clean, coords, 1.0, attention=attention)
    return made


def grown(target: int, groups: list[tuple[int, float]]) -> Tensor | None:
    """The reference's way: one matrix that grows by a border for every group."""
    weights: Tensor | None = None
    total = target
    for count, weight in groups:
        if weights is None and weight == 1.0:
            total += count
            continue
        larger = torch.zeros(total + count, total + count)
        larger[:total, :total] = 1.0 if weights is None else weights
        larger[total:, total:] = 1.0
        larger[:target, total:] = larger[total:, :target] = weight
        weights, total = larger, total + count
    return weights


@settings(deadline=None)
@given(
    target=st.integers(1, 5),
    groups=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.25, 1.0])), max_size=4),
)
def test_the_bias_is_the_logarithm_of_the_weights(target: int, groups: list[tuple[int, float]]) -> None:
    bias, weights = attention_bias(sequence(target, *groups), torch.float32), grown(target, groups)
    if weights is None:
        assert bias is None, "no bias: attention keeps its fast kernels"
        return
    assert bias is not None
    torch.testing.assert_close(bias.exp(), weights)
    assert bool(bias.isfinite().all())


def test_weights_of_each_token() -> None:
    bias = attention_bias(sequence(2, (2, torch.tensor([0.5, 0.0]))), torch.bfloat16)
    assert bias is not None
    assert bias.dtype == torch.bfloat16
    none = torch.finfo(torch.bfloat16).min
    half = float(torch.tensor(math.log(0.5)).bfloat16())
    assert bias.tolist() == [[0, 0, half, none], [0, 0, half, none], [half, half, 0, 0], [none, none, 0, 0]]


def test_a_mask_over_pixels_is_averaged_over_each_token() -> None:
    mask = torch.zeros(9, 64, 64)
    mask[0, :32] = 1.0
    mask[1:5, :, :16] = 1.0
    weights = token_weights(mask, (2, 2, 2), 0.5)
    assert isinstance(weights, Tensor)
    # First frame: the upper half. The others: half a cell's width for half of the eight frames.
    assert weights.tolist() == [0.5, 0.5, 0, 0, 0.125, 0, 0.125, 0]
    assert token_weights(torch.ones(9, 32, 32), (2, 1, 1), 1.0) == 1.0
    with pytest.raises(ValueError, match=r"2 latent frames must be \(9, height, width\), got \(8, 4, 4\)"):
        token_weights(torch.ones(8, 4, 4), (2, 1, 1), 1.0)


@torch.inference_mode()
def test_a_block_gets_one_matrix_for_all_heads() -> None:
    """No stride between heads, else each would get a copy of its own, and rows a multiple of 16 elements apart."""
    seen: list[BlockArguments] = []

    class Forms:
        busy = False

        def form(self, shape: object, rehearse: object) -> tuple[str, CallBlock]:
            def call(*args: object) -> tuple[Tensor, Tensor]:
                seen.append(args[-1])  # type: ignore[arg-type]
                return call_block(*args)  # type: ignore[arg-type]

            return "watched", call

    torch.manual_seed(0)
    denoiser = Denoiser(tiny_transformer(1).eval(), forms=Forms())
    audio = TokenSequence(torch.randn(1, 3, 128), torch.rand(1, 1, 3, 2))
    context = TextContext(torch.randn(1, 4, VIDEO_WIDTH), torch.randn(1, 4, AUDIO_WIDTH))

    def velocity(video: TokenSequence) -> Tensor:
        prepared = denoiser.prepare(video, audio, [Pass(context)], (1.0, 0.0))
        never = type("Never", (), {"is_set": lambda self: False})()
        return denoiser.velocities(prepared, video.latents, audio.latents, 0, never)[0].video.clone()

    base = sequence(6, (4, 0.5))
    first = velocity(base)
    bias = seen[-1]["self_attention_mask"]
    assert isinstance(bias, Tensor)
    assert bias.shape == (HEADS, 10, 10)
    assert bias.stride() == (0, 16, 1)
    plain = TokenSequence(base.latents, base.coords, base.denoise_mask, base.clean)
    assert float((velocity(plain) - first).abs().max()) > 1e-5, "the bias must matter"
    assert "self_attention_mask" not in seen[-1]
