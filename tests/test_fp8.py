"""FP8 tensors and layers against a float64 reference of their own arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scope_quant.capability import Fp8Path, probe_fp8, scaled_mm, try_scaled_mm
from scope_quant.convert import Fp8Layer, convert_linears
from scope_quant.fp8 import FP8_DTYPE, FP8_MAX, cast_to_fp8, dequantize, quantize_per_tensor
from scope_quant.linear import Fp8Linear

CPU = torch.device("cpu")


def e4m3(value: float) -> float:
    """The format by its definition: 3 bits of mantissa, exponents down to -6, subnormals below."""
    if value == 0 or math.isnan(value):
        return value
    exponent = max(math.floor(math.log2(abs(value))), -6)
    step = 2.0 ** (exponent - 3)
    return float(round(value / step) * step)  # Python rounds half to even, as the cast does


def e4m3_tensor(values: Tensor) -> Tensor:
    flat = [e4m3(value) for value in values.double().flatten().tolist()]
    return torch.tensor(flat, dtype=torch.float64).reshape(values.shape)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.sampled_from([1e-20, 1e-3, 1.0, 1e6]),
)
def test_quantize_matches_the_format(values: list[float], magnitude: float) -> None:
    weight = torch.tensor(values, dtype=torch.float32) * magnitude
    quantized = quantize_per_tensor(weight)
    assert quantized.data.dtype == FP8_DTYPE
    assert quantized.scale.dtype == torch.float32
    assert quantized.scale.shape == ()
    expected = e4m3_tensor((weight / quantized.scale).clamp(-FP8_MAX, FP8_MAX))
    assert torch.equal(quantized.data.double(), expected)
    # Half a step of the largest value's binade is the worst that quantizing may do to any value. The scale is
    # never subnormal; for weights of 1e-41 it is so coarse that half a step of FP8's own subnormals is worse.
    error = (dequantize(quantized.data, quantized.scale, torch.float32) - weight).abs().max()
    coarse = float(quantized.scale) * 2**-10
    assert error <= max(float(weight.abs().max()) / FP8_MAX * 16, coarse) * (1 + 1e-5)


def test_zero_weights_stay_zero() -> None:
    quantized = quantize_per_tensor(torch.zeros(4, 4))
    assert quantized.scale.item() == 1.0
    assert not dequantize(quantized.data, quantized.scale, torch.float32).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_no_scale_holds_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite weights"):
        quantize_per_tensor(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="with values"):
        quantize_per_tensor(torch.empty(0))


def test_the_cast_clamps() -> None:
    cast = cast_to_fp8(torch.tensor([1e6, -1e6, 449.0]), torch.tensor(1.0))
    assert cast.float().tolist() == [448.0, -448.0, 448.0]


def layer(path: Fp8Path, *, bias: bool = True, input_scale: float | None = None, out: int = 48) -> Fp8Linear:
    torch.manual_seed(3)
    made = Fp8Linear(
        32, out, bias=bias, dtype=torch.float32, device=CPU, path=path, input_scale=input_scale is not None
    )
    quantized = quantize_per_tensor(torch.randn(out, 32))
    made.weight, made.weight_scale = quantized.data, quantized.scale
    if input_scale is not None:
        made.input_scale = torch.tensor(input_scale)
    if bias:
        made.bias = torch.randn(out)
    return made


def reference(made: Fp8Linear, x: Tensor, input_scale: float | None) -> Tensor:
    """The layer's arithmetic in float64; `input_scale` None means that x is not quantized."""
    weight = made.weight.double() * made.weight_scale.double()
    x = x.double()
    if input_scale is not None:
        x = e4m3_tensor((x.float() / torch.tensor(input_scale)).clamp(-FP8_MAX, FP8_MAX)) * input_scale
    return x @ weight.t() + (0 if made.bias is None else made.bias.double())


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)])
def test_dequantize_path(bias: bool, dtype: torch.dtype, tolerance: float) -> None:
    made = layer(Fp8Path.DEQUANTIZE, bias=bias)
    x = torch.randn(2, 5, 32).to(dtype)
    got = made(x)
    assert got.dtype == dtype
    assert got.shape == (2, 5, 48)
    assert relative(got, reference(made, x, None)) < tolerance


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("input_scale", [None, 0.02, 1.0])
def test_scaled_path(bias: bool, input_scale: float | None) -> None:
    """torch._scaled_mm has a CPU form, so this is the layer that runs on a GPU."""
    made = layer(Fp8Path.SCALED_MM, bias=bias, input_scale=input_scale)
    x = torch.randn(2, 5, 32)
    used = float(x.abs().max() / torch.tensor(FP8_MAX)) if input_scale is None else input_scale
    got = made(x)
    assert got.shape == (2, 5, 48)
    assert relative(got, reference(made, x, used)) < 1e-6
    # Quantizing x as well costs a few percent, never more.
    assert relative(got, reference(made, x, None)) < 0.05


def test_static_scale_saturates_and_never_gives_nan() -> None:
    made = layer(Fp8Path.SCALED_MM, input_scale=0.001)
    x = torch.randn(4, 32) * 1e4
    got = made(x)
    assert torch.isfinite(got).all()
    assert relative(got, reference(made, x, 0.001)) < 1e-6


def test_zero_activations_give_the_bias() -> None:
    made = layer(Fp8Path.SCALED_MM)
    assert torch.equal(made(torch.zeros(3, 32)), made.bias.expand(3, 48))


def test_layers_that_cannot_or_must_not_scale_take_the_other_path() -> None:
    assert layer(Fp8Path.SCALED_MM).path is Fp8Path.SCALED_MM
    assert layer(Fp8Path.SCALED_MM, out=40).path is Fp8Path.DEQUANTIZE
    kept = Fp8Linear(
        32,
        48,
        bias=False,
        dtype=torch.float32,
        device=CPU,
        path=Fp8Path.SCALED_MM,
        full_precision_matrix_mult=True,
    )
    assert kept.path is Fp8Path.DEQUANTIZE


def test_everything_travels_in_the_state_dict() -> None:
    made = layer(Fp8Path.DEQUANTIZE, input_scale=0.5)
    assert set(made.state_dict()) == {"weight", "weight_scale", "input_scale", "bias"}
    assert not list(made.parameters())
    on_meta = layer(Fp8Path.DEQUANTIZE).to("meta")
    assert {buffer.device.type for buffer in on_meta.buffers()} == {"meta"}


def test_a_cast_is_refused_and_changes_nothing() -> None:
    made = layer(Fp8Path.DEQUANTIZE)
    with pytest.raises(TypeError, match=r"cannot be cast to torch\.bfloat16"):
        made.to(torch.bfloat16)
    assert made.weight.dtype == FP8_DTYPE
    assert made.weight_scale.dtype == torch.float32


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32, bias=False))
        self.norm = nn.LayerNorm(32)


def test_convert_replaces_exactly_the_named_layers() -> None:
    with torch.device("meta"):
        block = Block()
    convert_linears(block, {"inner.0": Fp8Layer(input_scale=True)}, Fp8Path.SCALED_MM)
    converted = block.inner[0]
    assert isinstance(converted, Fp8Linear)
    assert (converted.in_features, converted.out_features) == (32, 48)
    assert converted.input_scale is not None
    assert converted.bias is not None
    assert converted.weight.is_meta
    assert type(block.inner[2]) is nn.Linear


def test_convert_refuses_what_is_not_a_linear_and_changes_nothing() -> None:
    block = Block()
    names = {"inner.0": Fp8Layer(), "norm": Fp8Layer(), "nowhere": Fp8Layer()}
    with pytest.raises(ValueError, match=r"norm \(LayerNorm\), nowhere \(no such module\)"):
        convert_linears(block, names, Fp8Path.DEQUANTIZE)
    assert type(block.inner[0]) is nn.Linear


def test_probe_says_why() -> None:
    support = probe_fp8(CPU)
    assert support.path is Fp8Path.DEQUANTIZE
    assert support.reason == "cpu has no float8 matrix unit"


def test_probe_tries_the_product() -> None:
    assert try_scaled_mm(CPU, scaled_mm).path is Fp8Path.SCALED_MM


def _wrong(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, out_dtype: torch.dtype) -> Tensor:
    return scaled_mm(a, b, scale_a * 1.1, scale_b, out_dtype)


def _nan(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, out_dtype: torch.dtype) -> Tensor:
    return scaled_mm(a, b, scale_a, scale_b, out_dtype) * math.nan


def _fails(*_: object) -> Tensor:
    raise RuntimeError("no kernel image\nfor this device")


@pytest.mark.parametrize(
    ("matmul", "reason"),
    [
        (_wrong, "the scaled product is wrong: relative error 1.0e-01"),
        (_nan, "the scaled product is wrong: relative error nan"),
        (_fails, "the scaled product failed: no kernel image"),
    ],
)
def test_probe_rejects_a_product_that_does_not_hold(matmul, reason: str) -> None:
    support = try_scaled_mm(CPU, matmul)
    assert support.path is Fp8Path.DEQUANTIZE
    assert support.reason == reason
