"""The FP8 layer on a CUDA device, against a float64 reference of its own arithmetic."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from scope_quant.capability import MINIMUM_CAPABILITY, Fp8Path, probe_fp8
from scope_quant.fp8 import cast_to_fp8, per_tensor_scale, quantize_per_tensor
from scope_quant.linear import Fp8Linear

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")


def layer(path: Fp8Path, *, bias: bool = True, input_scale: float | None = None) -> Fp8Linear:
    generator = torch.Generator("cpu").manual_seed(1)
    made = Fp8Linear(
        4096, 2048, bias=bias, dtype=torch.bfloat16, device=CUDA, path=path, input_scale=input_scale is not None
    )
    quantized = quantize_per_tensor(torch.randn(2048, 4096, generator=generator).to(CUDA) / 64)
    made.weight, made.weight_scale = quantized.data, quantized.scale
    if bias:
        made.bias = torch.randn(2048, generator=generator).to(CUDA, torch.bfloat16)
    if input_scale is not None:
        made.input_scale = torch.tensor(input_scale, device=CUDA)
    return made


def reference(made: Fp8Linear, x: Tensor) -> Tensor:
    taken = x.double()
    if made.path is Fp8Path.SCALED_MM:
        scale = per_tensor_scale(x) if made.input_scale is None else made.input_scale
        taken = cast_to_fp8(x, scale).double() * scale.double()
    product = taken @ (made.weight.double() * made.weight_scale.double()).t()
    return product if made.bias is None else product + made.bias.double()


def test_the_probe_finds_the_matrix_unit() -> None:
    capable = torch.cuda.get_device_capability() >= MINIMUM_CAPABILITY
    assert (probe_fp8(CUDA).path is Fp8Path.SCALED_MM) == capable


def test_both_paths_match_their_reference() -> None:
    path = probe_fp8(CUDA).path
    for kind, bias, input_scale, rows in itertools.product(
        {path, Fp8Path.DEQUANTIZE}, (True, False), (None, 0.01), (1, 135, 2040)
    ):
        made = layer(kind, bias=bias, input_scale=input_scale)
        x = torch.randn(1, rows, 4096, device=CUDA, dtype=torch.bfloat16)
        got, want = made(x), reference(made, x)
        relative = float((got.double() - want).norm() / want.norm())
        assert got.dtype == torch.bfloat16
        assert relative < 1e-2, (kind, bias, input_scale, rows, relative)


def test_large_activations_saturate() -> None:
    made = layer(probe_fp8(CUDA).path, input_scale=1.0)
    assert torch.isfinite(made(torch.full((4, 4096), 3e4, device=CUDA, dtype=torch.bfloat16))).all()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_forward_never_waits_for_the_device_and_can_be_captured() -> None:
    made = layer(probe_fp8(CUDA).path)
    x = torch.randn(64, 4096, device=CUDA, dtype=torch.bfloat16)
    expected = made(x)
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        made(x)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = made(x)
    graph.replay()
    assert torch.equal(captured, expected)
