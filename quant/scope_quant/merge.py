"""Adding low-rank changes to the weight of one linear layer, once and for all: no cost when it computes.

The inputs stay as they are. Whoever keeps them can merge another set of changes, or none, from the same
weight: merging twice in a row would round twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scope_quant.fp8 import FP8_DTYPE, FP8_MAX, Quantized, per_tensor_scale


@dataclass(frozen=True)
class LowRank:
    """The change scale * up @ down. down: (r, in). up: (out, r). Any floating type, any device."""

    down: Tensor
    up: Tensor
    scale: float


def merge_fp8(weight: Tensor, weight_scale: Tensor, changes: Sequence[LowRank]) -> Quantized:
    """The FP8 form of W' = weight * weight_scale + all changes, computed in float32 on the weight's device.

    weight: float8_e4m3fn (out, in). weight_scale: one float32 value. The new scale is max|W'| / 448.

    The only rounding that matters is this one requantization. e4m3 keeps 3 bits of mantissa, and below 2**-6 a
    fixed step of 2**-9, so each value of the result is off from W' by at most

        max(2**-4 * |W'|, 2**-10 * scale)

    which is never more than 16 * scale, or max|W'| / 28. Needs 5 bytes per weight beside the inputs and the
    result. Reads whether the result is finite on the host, so this is no part of a forward pass.

    Raises ValueError for shapes that do not fit, and for a result that is not finite.
    """
    if weight.dtype != FP8_DTYPE or weight_scale.numel() != 1:
        found = f"{weight.dtype} with {weight_scale.numel()} scales"
        raise ValueError(f"expected a weight in {FP8_DTYPE} with one scale, got {found}")
    merged = weight.to(torch.float32)
    merged.mul_(weight_scale.to(merged.device).reshape(()))
    extremes = _add(merged, changes)
    scale = per_tensor_scale(extremes)
    # In place: the widest layer of a 22B model has 67 million weights, 256 MiB in float32.
    return Quantized(merged.div_(scale).clamp_(-FP8_MAX, FP8_MAX).to(FP8_DTYPE), scale)


def merge_plain(weight: Tensor, changes: Sequence[LowRank]) -> Tensor:
    """weight (out, in) plus all changes, summed in float32 on the weight's device and rounded once to its type.

    Raises ValueError for shapes that do not fit, and for a result that is not finite.
    """
    if not weight.is_floating_point() or weight.element_size() == 1:
        raise ValueError(f"expected a weight of a floating type of 2 bytes or more, got {weight.dtype}")
    merged = weight.to(torch.float32, copy=True)
    extremes = _add(merged, changes)
    if not bool(torch.isfinite(extremes.to(weight.dtype)).all()):
        raise ValueError(f"the merged weight does not fit {weight.dtype}")
    return merged.to(weight.dtype)


def _add(merged: Tensor, changes: Sequence[LowRank]) -> Tensor:
    """Add the changes in place. Returns the smallest and the largest value (2)."""
    for change in changes:
        rank, width = change.down.shape
        if (change.up.shape[0], width) != tuple(merged.shape) or change.up.shape[1] != rank:
            raise ValueError(
                f"a weight {tuple(merged.shape)} takes changes (out, r) x (r, in), "
                f"got {tuple(change.up.shape)} x {tuple(change.down.shape)}"
            )
        up, down = (factor.to(merged.device).to(torch.float32) for factor in (change.up, change.down))
        merged.addmm_(up, down, alpha=change.scale)
    extremes = torch.stack(torch.aminmax(merged))
    if not bool(torch.isfinite(extremes).all()):
        raise ValueError("the merged weight is not finite")
    return extremes
