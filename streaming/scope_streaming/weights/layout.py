"""Where each tensor of a block lies in one contiguous buffer, and how a module is bound to such a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

ALIGNMENT = 256
"""Bytes. What CUDA's allocator gives a tensor of its own, so matrix kernels chosen by pointer alignment stay."""


@dataclass(frozen=True)
class TensorPlace:
    name: str
    dtype: torch.dtype
    shape: torch.Size
    offset: int
    nbytes: int


@dataclass(frozen=True)
class BlockLayout:
    """Places of a block's parameters and buffers; `nbytes` is the size of its packed buffer."""

    places: tuple[TensorPlace, ...]
    nbytes: int


def block_tensors(block: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of `block` by its path, in definition order; shared tensors appear once."""
    return dict(chain(block.named_parameters(), block.named_buffers()))


def layout_of(tensors: Mapping[str, Tensor]) -> BlockLayout:
    """Places in the given order, each at a multiple of 256 bytes. Meta tensors will do: no data is read."""
    places = []
    offset = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        places.append(TensorPlace(name, tensor.dtype, tensor.shape, offset, nbytes))
        offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return BlockLayout(tuple(places), offset)


def views(buffer: Tensor, layout: BlockLayout) -> dict[str, Tensor]:
    """The block's tensors as views into `buffer` (1-D uint8, at least `layout.nbytes` long)."""
    if buffer.dtype != torch.uint8 or buffer.ndim != 1 or buffer.numel() < layout.nbytes:
        raise ValueError(
            f"a block of {layout.nbytes} bytes needs a 1-D uint8 buffer of that size, "
            f"got {buffer.dtype} {tuple(buffer.shape)}"
        )
    return {
        place.name: buffer[place.offset : place.offset + place.nbytes].view(place.dtype).view(place.shape)
        for place in layout.places
    }


def bind(block: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make the block's parameters and buffers the given tensors, without a copy."""
    for path, tensor in tensors.items():
        owner_path, _, name = path.rpartition(".")
        owner = block.get_submodule(owner_path)
        if name in dict(owner.named_parameters(recurse=False)):
            setattr(owner, name, nn.Parameter(tensor, requires_grad=False))
        else:
            setattr(owner, name, tensor)
