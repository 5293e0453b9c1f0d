"""Merging a set of LoRAs into weights on their way from the file to their place.

Always from the pristine weight, which is read again: so a set can be changed any number of times, and taking
everything out gives the bytes of the file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.loras import NO_LORAS, LoraSet
from scope_quant.fp8 import FP8_DTYPE
from scope_quant.merge import LowRank, merge_fp8, merge_plain

MERGED = ("weight", "weight_scale")
"""The tensors of a layer that a LoRA changes. An FP8 layer has both; biases and input scales stay as they are."""


class ReadTensor(Protocol):
    def __call__(self, name: str, target: Tensor) -> None:
        """Write the value of tensor `name` into `target`."""


class LoraMerger:
    """Holds the set that is in use, and merges on `device`. One layer at a time, however many threads ask.

    Changing the set changes nothing by itself: whoever owns the weights then writes those of `changed_modules`
    again, through readers made here. No read may be under way meanwhile.
    """

    def __init__(self, device: torch.device, loras: LoraSet = NO_LORAS) -> None:
        self.device = device
        self.loras = loras
        # One thread of its own: 8 readers that merge the widest layer at once would need 2.7 GB of the device, and
        # each thread that multiplies matrices there keeps a workspace of 32 MiB.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="lora-merge")

    def use(self, loras: LoraSet) -> None:
        self.loras = loras

    def reader(
        self, path: str, tensors: Mapping[str, Tensor], read: ReadTensor, *, first_row: int = 0
    ) -> MergedReader:
        """A reader of the module at `path` that gives merged values, over one that gives pristine ones.

        `tensors` are the module's, by name; only their shapes and types matter. `first_row`: the module is a part
        of the layer at `path`, which starts at this row.
        """
        return MergedReader(self, path, tensors, read, first_row)

    def write_again(self, module: nn.Module, changed: Iterable[str], read: ReadTensor) -> None:
        """Write the layers `changed` of `module` in place, merged or pristine: those that stay on the device.

        `read` takes the module's own names. Raises LoraError.
        """
        tensors = dict(chain(module.named_parameters(), module.named_buffers()))
        reader = self.reader("", tensors, read)
        for name in tensor_names(changed, "", tensors):
            reader(name, tensors[name].detach())

    def merged(self, module: str, weight: Tensor, scale: Tensor | None, rows: slice) -> dict[str, Tensor]:
        """{leaf: value} of a layer on `device`, in the order of the caller's stream. `scale` is an FP8 weight's.
        Raises LoraError."""
        changes = self.loras.changes(module, rows)
        try:
            return self._worker.submit(self._merged, weight, scale, changes, self._callers_stream()).result()
        except ValueError as error:
            files = self.loras.acting_on(module)
            told = ", ".join(f"{file.facts.name} at {strength:g}" for file, strength in files)
            problem = f"cannot be merged into layer {module} ({told}): {error}"
            raise LoraError(files[0][0].path, problem, advice="Lower the strength, or take it out") from error

    def _callers_stream(self) -> torch.cuda.Stream | None:
        """The worker has a current stream of its own, the default one: what it makes there would neither be done
        nor be kept when a caller on another stream reads it."""
        return torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None

    def _merged(
        self, weight: Tensor, scale: Tensor | None, changes: list[LowRank], stream: torch.cuda.Stream | None
    ) -> dict[str, Tensor]:
        with torch.cuda.stream(stream):
            placed = weight.to(self.device)
            if scale is None:
                return {"weight": merge_plain(placed, changes)}
            made = merge_fp8(placed, scale, changes)
            return {"weight": made.data, "weight_scale": made.scale}


@dataclass
class _Layer:
    """One linear layer of a module that is being read, and what of it was made but not asked for yet."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made_for: LoraSet = NO_LORAS
    waiting: dict[str, Tensor] = field(default_factory=dict)


class MergedReader:
    """Writes merged values for the weights that the present set changes, and passes everything else on.

    A layer's weight and scale may be asked for in any order and from several threads: whichever comes first makes
    both, and the other waits in here until it is asked for. Read in the order of a module's tensors that is only
    ever a scale.
    """

    def __init__(
        self, merger: LoraMerger, path: str, tensors: Mapping[str, Tensor], read: ReadTensor, first_row: int
    ) -> None:
        self._merger = merger
        self._path = path
        self._read = read
        self._first_row = first_row
        self._forms = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        self._layers = {layer_of(name): _Layer() for name in self._forms if name.rpartition(".")[2] == "weight"}

    def __call__(self, name: str, target: Tensor) -> None:
        """Raises LoraError, and what the pristine reader raises."""
        leaf, layer = name.rpartition(".")[2], layer_of(name)
        module = ".".join(part for part in (self._path, layer) if part)
        loras = self._merger.loras
        if leaf not in MERGED or module not in loras.modules:
            self._read(name, target)
            return
        state = self._layers[layer]
        with state.lock:
            if state.made_for != loras:
                state.waiting.clear()
                state.made_for = loras
            value = state.waiting.pop(leaf, None)
            if value is None:
                state.waiting = self._merge(module, layer, target if leaf == "weight" else None)
                value = state.waiting.pop(leaf)
            target.copy_(value.reshape(target.shape))

    def _merge(self, module: str, layer: str, target: Tensor | None) -> dict[str, Tensor]:
        """Both values of a layer. The pristine weight passes through `target` if that is where it is going."""
        prefix = f"{layer}." if layer else ""
        weight = self._pristine(f"{prefix}weight", target)
        scale = self._pristine(f"{prefix}weight_scale") if weight.dtype == FP8_DTYPE else None
        rows = slice(self._first_row, self._first_row + weight.shape[0])
        return self._merger.merged(module, weight, scale, rows)

    def _pristine(self, name: str, target: Tensor | None = None) -> Tensor:
        if target is None:
            shape, dtype = self._forms[name]
            target = torch.empty(shape, dtype=dtype)
        self._read(name, target)
        return target


def layer_of(name: str) -> str:
    """The path of the layer that a tensor belongs to."""
    return name.rpartition(".")[0]


def tensor_names(modules: Iterable[str], path: str, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What has to be written again in the module at `path` with these tensors, when `modules` have changed."""
    prefix = f"{path}." if path else ""
    # A part of a layer that is split by rows is that layer itself.
    inside = {
        "" if module == path else module.removeprefix(prefix)
        for module in modules
        if f"{module}.".startswith(prefix)
    }
    return tuple(name for name in tensors if layer_of(name) in inside and name.rpartition(".")[2] in MERGED)
