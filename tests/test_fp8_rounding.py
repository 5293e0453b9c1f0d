"""Rounding to FP8 with the inputs in mind, against rounding to the nearest value."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scope_quant.fp8 import Quantized, dequantize, quantize_per_tensor
from scope_quant.rounding import quantize_for_inputs


def drawn(out: int, width: int, seed: int, *, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """A weight (out, in), and twice 256 inputs (256, in) that lie near a space of `rank` directions."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, width, generator=generator)
    mixing = torch.randn(rank, width, generator=generator)
    inputs = torch.randn(512, rank, generator=generator) @ mixing
    inputs += 0.1 * torch.randn(512, width, generator=generator)
    return weight, inputs[:256], inputs[256:]


def output_error(weight: Tensor, quantized: Quantized, inputs: Tensor) -> float:
    rounded = dequantize(quantized.data, quantized.scale, torch.float32)
    return float((inputs @ (rounded - weight).T).square().mean() / (inputs @ weight.T).square().mean())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([16, 33, 64]))
def test_what_the_layer_makes_of_such_inputs_stays(seed: int, rank: int, width: int) -> None:
    weight, inputs, others = drawn(24, width, seed, rank=rank)
    nearest, better = quantize_per_tensor(weight), quantize_for_inputs(weight, inputs.T @ inputs)
    assert torch.equal(better.scale, nearest.scale)
    assert better.data.dtype == nearest.data.dtype
    for some in (inputs, others):
        assert output_error(weight, better, some) < 0.7 * output_error(weight, nearest, some)


@pytest.mark.parametrize("moment", [torch.eye(8), 5 * torch.eye(8), torch.zeros(8, 8)])
def test_inputs_that_say_nothing_leave_the_nearest_value(moment: Tensor) -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantize_for_inputs(weight, moment).data.float(), quantize_per_tensor(weight).data.float())


def test_an_input_that_never_comes_and_two_that_are_the_same_break_nothing() -> None:
    weight, inputs, _ = drawn(6, 16, 5, rank=3)
    inputs[:, 2] = 0.0
    inputs[:, 7] = inputs[:, 8]
    quantized = quantize_for_inputs(weight, inputs.T @ inputs)
    assert bool(torch.isfinite(quantized.data.float()).all())
    nearest = quantize_per_tensor(weight)
    assert torch.equal(quantized.data[:, 2].float(), nearest.data[:, 2].float())
    assert output_error(weight, quantized, inputs) < output_error(weight, nearest, inputs)


def test_what_cannot_be_is_named() -> None:
    weight = torch.ones(4, 8)
    with pytest.raises(ValueError, match=r"got \(4, 8\) and \(4, 4\)"):
        quantize_for_inputs(weight, torch.eye(4))
    with pytest.raises(ValueError, match="finite sums"):
        quantize_for_inputs(weight, torch.full((8, 8), math.inf))
    with pytest.raises(ValueError, match="finite weights"):
        quantize_for_inputs(weight * math.nan, torch.eye(8))
