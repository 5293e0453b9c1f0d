"""One published file, opened for reading: its tensors, its settings, and how its layers were quantized.

Tensors are read through a memory map: what `tensor` returns on the CPU in the file's own type occupies the
page cache once, however often it is asked for, and is read from disk when it is first touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scope_ltx.checkpoints.header import FETCH_AGAIN, read_header
from scope_ltx.errors import CheckpointError

QUANTIZATION_SUFFIX = ".comfy_quant"
FP8_FORMAT = "float8_e4m3fn"


class CheckpointFile:
    """A safetensors file that has been checked to be whole.

    Raises CheckpointError when it is opened if the file is missing, damaged, or something else. Keys are the
    published ones; nothing is renamed here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = read_header(path)
        self.metadata = header.metadata
        self._starts = {key: header.nbytes + entry.start for key, entry in header.tensors.items()}
        self.shapes: Mapping[str, tuple[int, ...]] = {key: entry.shape for key, entry in header.tensors.items()}
        self.dtypes: Mapping[str, str] = {key: entry.dtype for key, entry in header.tensors.items()}
        try:
            self._file: Any = safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(path, f"cannot be opened: {error}", advice=FETCH_AGAIN) from error

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def tensor(self, key: str) -> Tensor:
        """The tensor of a key, on the CPU, mapped from the file. Raises KeyError for an unknown key."""
        if key not in self.shapes:
            raise KeyError(key)
        tensor: Tensor = self._file.get_tensor(key)
        return tensor

    def read_into(self, key: str, target: Tensor, first_row: int = 0) -> None:
        """Read rows `first_row...` of a tensor's bytes into `target`, contiguous on the CPU and of its type.

        Unlike `tensor` this maps nothing, so a file larger than the host's memory passes through without
        counting as this process's own. Raises CheckpointError when the file has become shorter.
        """
        data: memoryview = target.view(-1).view(torch.uint8).numpy().data
        rows = self.shapes[key][0] if self.shapes[key] else 1
        row_nbytes = math.prod(self.shapes[key]) * target.element_size() // rows
        offset = self._starts[key] + first_row * row_nbytes
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            while data:
                count = file.readinto(data)
                if not count:
                    problem = f"has become shorter while it was read: {key} is cut off"
                    raise CheckpointError(self.path, problem, advice=FETCH_AGAIN)
                data = data[count:]

    def config(self) -> dict[str, Any]:
        """The model settings that the file carries: the JSON object in its metadata entry `config`."""
        if "config" not in self.metadata:
            raise CheckpointError(
                self.path,
                "has no metadata entry `config`",
                advice="Use the LTX-2.3 file as published: a converter may have dropped its metadata",
            )
        return self._json("metadata entry `config`", self.metadata["config"])

    @cached_property
    def quantization(self) -> Mapping[str, Mapping[str, Any]]:
        """How each quantized layer was stored, by the layer's published name.

        Two conventions exist, and a file may use either: a byte tensor `<layer>.comfy_quant` with JSON in it,
        or one metadata entry `_quantization_metadata` with a `layers` object. The tensor wins.
        """
        found: dict[str, Mapping[str, Any]] = {}
        entry = self.metadata.get("_quantization_metadata")
        if entry is not None:
            layers = self._json("metadata entry `_quantization_metadata`", entry).get("layers", {})
            for layer, settings in layers.items():
                found[layer] = self._checked(layer, settings)
        for key in self.keys:
            if key.endswith(QUANTIZATION_SUFFIX):
                layer = key.removesuffix(QUANTIZATION_SUFFIX)
                settings = self._json(f"tensor `{key}`", bytes(self.tensor(key).tolist()))
                found[layer] = self._checked(layer, settings)
        return found

    def _checked(self, layer: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        stored = settings.get("format")
        if stored != FP8_FORMAT:
            problem = f"layer `{layer}` is stored in format {stored!r}, expected {FP8_FORMAT!r}"
            raise CheckpointError(self.path, problem, advice="Use the fp8_scaled file that plugin.toml names")
        return settings

    def _json(self, what: str, text: str | bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError as error:
            raise CheckpointError(
                self.path, f"has a {what} that is not JSON: {error}", advice=FETCH_AGAIN
            ) from error
        if not isinstance(value, dict):
            problem = f"has a {what} that is not a JSON object, got {type(value).__name__}"
            raise CheckpointError(self.path, problem, advice=FETCH_AGAIN)
        return value
