"""Which way FP8 linear layers are computed on a device: decided once, by trying it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from scope_quant.fp8 import dequantize, quantize_per_tensor

ScaledMatmul = Callable[[Tensor, Tensor, Tensor, Tensor, torch.dtype], Tensor]
"""(a, b, scale_a, scale_b, out_dtype) -> (a * scale_a) @ (b * scale_b), for float8 a (M, K) and b (K, N)."""

MINIMUM_CAPABILITY = (8, 9)
"""First CUDA compute capability whose matrix units multiply float8 (Ada)."""


class Fp8Path(Enum):
    """How an FP8 linear layer is computed."""

    SCALED_MM = "scaled_mm"
    """Activations are quantized too, and the matrix unit multiplies float8 by float8."""
    DEQUANTIZE = "dequantize"
    """Weights are expanded to the activation's type before an ordinary product: slower, and closer."""


@dataclass(frozen=True)
class Fp8Support:
    """The path to take on a device, and why, in words for a person."""

    path: Fp8Path
    reason: str


def scaled_mm(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, out_dtype: torch.dtype) -> Tensor:
    """PyTorch's product of float8 matrices; a is row-major, b column-major, scales are float32 scalars."""
    return torch._scaled_mm(a, b, scale_a=scale_a, scale_b=scale_b, out_dtype=out_dtype, use_fast_accum=True)


def probe_fp8(device: torch.device) -> Fp8Support:
    """Decide the FP8 path for `device`, with one real product where the device claims to have it."""
    if device.type != "cuda":
        return Fp8Support(Fp8Path.DEQUANTIZE, f"{device.type} has no float8 matrix unit")
    capability = torch.cuda.get_device_capability(device)
    if capability < MINIMUM_CAPABILITY:
        have, need = (".".join(map(str, version)) for version in (capability, MINIMUM_CAPABILITY))
        return Fp8Support(Fp8Path.DEQUANTIZE, f"compute capability {have} is below {need}")
    return try_scaled_mm(device, scaled_mm)


def try_scaled_mm(device: torch.device, matmul: ScaledMatmul) -> Fp8Support:
    """Multiply two small matrices on `device` and compare with the same product in float32."""
    generator = torch.Generator("cpu").manual_seed(0)
    a, b = (quantize_per_tensor(torch.randn(rows, 64, generator=generator).to(device)) for rows in (32, 48))
    expected = dequantize(a.data, a.scale, torch.float32) @ dequantize(b.data, b.scale, torch.float32).t()
    try:
        got = matmul(a.data, b.data.t(), a.scale, b.scale, torch.bfloat16).float()
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Fp8Support(Fp8Path.DEQUANTIZE, f"the scaled product failed: {said}")
    relative = float((got - expected).norm() / expected.norm())
    # bfloat16 output alone is off by 2e-3; fast accumulation adds less than 1e-2. NaN fails the comparison.
    if not relative < 2e-2:
        return Fp8Support(Fp8Path.DEQUANTIZE, f"the scaled product is wrong: relative error {relative:.1e}")
    return Fp8Support(Fp8Path.SCALED_MM, "the scaled product works")
