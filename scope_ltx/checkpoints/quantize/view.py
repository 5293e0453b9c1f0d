"""A bfloat16 transformer file that reads like an FP8 one: weights are quantized when they are asked for.

It has the keys, types and shapes of the published FP8 layout, so loaders, streaming and LoRA merging need to know
nothing of it, and a file written from it holds what it reads as. Nothing is kept but one scale per layer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from scope_ltx.checkpoints.keys import TRANSFORMER
from scope_ltx.checkpoints.quantize.layers import FP8, QUANTIZABLE, fp8_layers, holds_fp8
from scope_ltx.checkpoints.reader import FP8_FORMAT, QUANTIZATION_SUFFIX, CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_quant.fp8 import FP8_DTYPE, cast_to_fp8, per_tensor_scale

MergeWeight = Callable[[str, Tensor], Tensor]
"""(module name of a weight, its value on the CPU in the file's type) -> the value to use, of the same shape.

Returned in float32 it is rounded once, when it is quantized or stored."""

TORCH_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": FP8_DTYPE,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "I64": torch.int64,
    "F64": torch.float64,
}

PIECE_ELEMENTS = 4 * 2**20
"""Cast at a time: 16 MiB in float32, so that the largest weight (67 million) needs no float32 copy of its own."""

_SCALE_SUFFIX = ".weight_scale"
_NOTE = json.dumps({"format": FP8_FORMAT}).encode()
_CPU = torch.device("cpu")


class Fp8View(CheckpointFile):
    """`file` with the weights of `layers` in FP8, each with a scale of max|W| / 448 and a note beside it.

    merge    applied to every weight matrix of the transformer before it is stored; None leaves them.
    device   where weights are quantized. What comes back is on the CPU.

    May be read from several threads: they read the file at once, and quantize in turn, because casting a layer
    keeps all cores busy, and so that memory for it is needed once.

    Reading raises CheckpointError for a weight that is not finite, and ValueError for a merge of another shape.
    """

    def __init__(
        self,
        file: CheckpointFile,
        layers: Collection[str],
        *,
        merge: MergeWeight | None = None,
        device: torch.device = _CPU,
    ) -> None:
        # Everything that the base class would open is open in `file`.
        self.path = file.path
        self.metadata = dict(file.metadata)
        shapes, dtypes = dict(file.shapes), dict(file.dtypes)
        strays = [
            name
            for layer in layers
            for name in (layer + _SCALE_SUFFIX, layer + QUANTIZATION_SUFFIX, layer + ".input_scale")
            if name in shapes
        ]
        if strays:
            advice = "Use a file in bfloat16 as published, or an FP8 file as it is"
            raise CheckpointError(
                file.path, "holds scales or notes beside weights that are not FP8", keys=strays, advice=advice
            )
        for layer in layers:
            dtypes[f"{layer}.weight"] = FP8
            shapes[layer + _SCALE_SUFFIX], dtypes[layer + _SCALE_SUFFIX] = (), "F32"
            shapes[layer + QUANTIZATION_SUFFIX], dtypes[layer + QUANTIZATION_SUFFIX] = (len(_NOTE),), "U8"
        self.shapes, self.dtypes = shapes, dtypes
        self._file = file
        self._layers = frozenset(layers)
        self._merge = merge
        self._device = device
        self._scales: dict[str, Tensor] = {}
        self._turn = threading.Lock()

    def tensor(self, key: str) -> Tensor:
        if key not in self.shapes:
            raise KeyError(key)
        if not self._is_made(key):
            stored: Tensor = self._file.tensor(key)
            return stored
        made = torch.empty(self.shapes[key], dtype=TORCH_TYPES[self.dtypes[key]])
        self.read_into(key, made)
        return made

    def read_into(self, key: str, target: Tensor, first_row: int = 0) -> None:
        if not self._is_made(key):
            self._file.read_into(key, target, first_row)
            return
        whole = tuple(target.shape) == self.shapes[key]
        value = target if whole else torch.empty(self.shapes[key], dtype=target.dtype)
        self._make(key, value)
        if not whole:
            target.copy_(value[first_row : first_row + len(target)] if value.ndim else value.reshape(target.shape))

    def _is_made(self, key: str) -> bool:
        """Whether the value of a key is not simply that of the file."""
        return key not in self._file.shapes or self.dtypes[key] != self._file.dtypes[key] or self._is_merged(key)

    def _is_merged(self, key: str) -> bool:
        named = TRANSFORMER.to_module(key) is not None and key.endswith(".weight")
        is_matrix = len(self._file.shapes[key]) == 2 and self._file.dtypes[key] in QUANTIZABLE
        return self._merge is not None and named and is_matrix

    def _make(self, key: str, value: Tensor) -> None:
        """Write the value of a made key into `value`."""
        layer, _, leaf = key.rpartition(".")
        if layer in self._layers and leaf == "weight":
            self._quantize(layer, value)
        elif layer in self._layers and key.endswith(_SCALE_SUFFIX):
            if layer not in self._scales:
                self._quantize(layer, None)
            value.copy_(self._scales[layer].reshape(value.shape))
        elif layer in self._layers and key.endswith(QUANTIZATION_SUFFIX):
            value.copy_(torch.tensor(list(_NOTE), dtype=torch.uint8))
        else:
            merged = self._weight(key)
            value.copy_(merged)
            if not bool(torch.isfinite(value).all()):
                raise self._not_finite(key)

    def _weight(self, key: str) -> Tensor:
        """The weight to store, on the CPU. Read, not mapped: a file larger than memory passes through."""
        weight = torch.empty(self.shapes[key], dtype=TORCH_TYPES[self._file.dtypes[key]])
        self._file.read_into(key, weight)
        if self._merge is None:
            return weight
        name = TRANSFORMER.to_module(key)
        assert name is not None
        merged = self._merge(name, weight)
        if merged.shape != weight.shape or not merged.is_floating_point():
            found = f"{tuple(merged.shape)} {merged.dtype}"
            raise ValueError(f"merging into {name} must keep its shape {tuple(weight.shape)}, got {found}")
        return merged

    def _quantize(self, layer: str, target: Tensor | None) -> None:
        """Find the scale of a layer, and write its weight in FP8 into `target` unless that is None."""
        weight = self._weight(f"{layer}.weight")
        with self._turn:
            placed = weight.to(self._device)
            extremes = torch.stack(torch.aminmax(placed))
            if not bool(torch.isfinite(extremes).all()):
                raise self._not_finite(f"{layer}.weight")
            scale = per_tensor_scale(extremes)
            self._scales[layer] = scale.cpu()
            if target is not None:
                rows = max(1, PIECE_ELEMENTS // placed.shape[1])
                for first in range(0, len(placed), rows):
                    target[first : first + rows] = cast_to_fp8(placed[first : first + rows], scale)

    def _not_finite(self, key: str) -> CheckpointError:
        advice = "The file is damaged: download it again. If LoRAs are merged into it, lower their strengths"
        return CheckpointError(self.path, "has a weight with NaN or infinity", keys=[key], advice=advice)


def quantized_view(
    file: CheckpointFile,
    *,
    keep_blocks: Collection[int] | None = None,
    merge: MergeWeight | None = None,
    device: torch.device = _CPU,
) -> Fp8View:
    """`file`, a transformer in bfloat16, as FP8. Raises what `fp8_layers` and `Fp8View` do."""
    return Fp8View(file, fp8_layers(file, keep_blocks), merge=merge, device=device)


def as_fp8(
    file: CheckpointFile, *, keep_blocks: Collection[int] | None = None, device: torch.device = _CPU
) -> CheckpointFile:
    """`file` itself if it holds FP8 weights, else `quantized_view` of it: what a loader of FP8 models opens."""
    if holds_fp8(file):
        return file
    return quantized_view(file, keep_blocks=keep_blocks, device=device)
