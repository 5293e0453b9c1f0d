"""A linear layer whose weight is float8_e4m3fn with one scale.

All that the layer needs to compute is registered in it as a buffer, so it moves, streams and saves
as one. Which arithmetic it uses is an argument, decided once for a device (`capability.probe_fp8`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from scope_quant.capability import Fp8Path, scaled_mm
from scope_quant.fp8 import FP8_DTYPE, cast_to_fp8, dequantize, per_tensor_scale

ALIGNMENT = 16
"""float8 matrix units take widths that are multiples of this."""


class Fp8Linear(nn.Module):
    """y = x @ (weight * weight_scale).T + bias, for x (..., in_features) of a floating type.

    Buffers: `weight` float8 (out, in), `weight_scale` float32 (), `input_scale` float32 () if the
    layer was calibrated, `bias` (out,). They start empty: whoever makes the layer fills them.

    SCALED_MM quantizes x as well: by `input_scale` if there is one, otherwise by amax(x) / 448 of this
    very call, clamped to the range either way; it never waits for the device. A layer takes DEQUANTIZE
    instead if its file asks for the full-precision product (`full_precision_matrix_mult`) or if one of
    its widths is not a multiple of 16; `path` tells what it uses.
    """

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
        path: Fp8Path,
        input_scale: bool = False,
        full_precision_matrix_mult: bool = False,
    ) -> None:
        """`dtype` is the bias's; it does not limit the type of x."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        aligned = in_features % ALIGNMENT == 0 and out_features % ALIGNMENT == 0
        self.path = path if aligned and not full_precision_matrix_mult else Fp8Path.DEQUANTIZE
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=FP8_DTYPE, device=device))
        self.register_buffer("weight_scale", torch.empty((), dtype=torch.float32, device=device))
        self.register_buffer(
            "input_scale", torch.empty((), dtype=torch.float32, device=device) if input_scale else None
        )
        self.register_buffer("bias", torch.empty(out_features, dtype=dtype, device=device) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.path is Fp8Path.DEQUANTIZE:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return nn.functional.linear(x, dequantize(self.weight, self.weight_scale, x.dtype), bias)
        rows = x.reshape(-1, self.in_features)
        scale = per_tensor_scale(rows) if self.input_scale is None else self.input_scale
        product = scaled_mm(cast_to_fp8(rows, scale), self.weight.t(), scale, self.weight_scale, x.dtype)
        if self.bias is not None:
            product = product + self.bias.to(x.dtype)
        return product.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        calibrated = self.input_scale is not None
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, input_scale={calibrated}, path={self.path.value}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves are fine. Raises TypeError for a cast: it would drop the scale from the weight's meaning."""
        changed: Any = fn(torch.empty(0, dtype=FP8_DTYPE, device=self.weight.device)).dtype
        if changed != FP8_DTYPE:
            raise TypeError(f"an FP8 layer cannot be cast to {changed}: cast the model before it is converted")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
