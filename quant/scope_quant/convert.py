"""Replacing linear layers of a model by FP8 ones, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from scope_quant.capability import Fp8Path
from scope_quant.linear import Fp8Linear


@dataclass(frozen=True)
class Fp8Layer:
    """What is stored beside a layer's weight."""

    input_scale: bool = False
    full_precision_matrix_mult: bool = False


def convert_linears(model: nn.Module, layers: Mapping[str, Fp8Layer], path: Fp8Path) -> None:
    """Replace each named `nn.Linear` by an `Fp8Linear` of its size, device and bias, with empty buffers.

    Nothing is quantized here: the caller assigns the stored tensors afterwards, so the model is
    normally on the meta device. Raises ValueError, before it changes anything, for names that are not
    linear layers of the model.
    """
    modules = dict(model.named_modules())
    wrong = [
        f"{name} ({type(modules[name]).__name__ if name in modules else 'no such module'})"
        for name in layers
        if not isinstance(modules.get(name), nn.Linear)
    ]
    if wrong:
        raise ValueError(f"expected names of linear layers, got {', '.join(wrong)}")
    for name, layer in layers.items():
        linear = modules[name]
        assert isinstance(linear, nn.Linear)
        parent, _, leaf = name.rpartition(".")
        replacement = Fp8Linear(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            dtype=linear.weight.dtype,
            device=linear.weight.device,
            path=path,
            input_scale=layer.input_scale,
            full_precision_matrix_mult=layer.full_precision_matrix_mult,
        )
        setattr(modules[parent], leaf, replacement.train(linear.training))
