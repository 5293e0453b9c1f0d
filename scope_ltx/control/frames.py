"""The one form of pictures here: uint8 (F, H, W, 3) RGB in full range."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

FrameFunction = Callable[[Tensor], Tensor]
"""Frames uint8 (F, H, W, 3) to frames of the same shape on the same device."""


def check_frames(frames: Tensor) -> None:
    """Raises ValueError unless `frames` is uint8 (F, H, W, 3) with at least one pixel."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.numel() == 0:
        raise ValueError(
            f"frames must be uint8 (F, H, W, 3) RGB with F, H and W at least 1, "
            f"got {str(frames.dtype).removeprefix('torch.')} {tuple(frames.shape)}"
        )


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bilinear resize of uint8 (F, H, W, 3). Frames that fit already come back as they are."""
    if tuple(frames.shape[1:3]) == (height, width):
        return frames
    planes = frames.permute(0, 3, 1, 2).float()
    planes = interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return to_bytes(planes.permute(0, 2, 3, 1))


def to_bytes(values: Tensor) -> Tensor:
    """Floats 0..255 to uint8, rounded to the nearest level."""
    return values.round().clamp(0, 255).to(torch.uint8).contiguous()


def batches(values: Tensor, size: int) -> Iterator[Tensor]:
    """`values` in pieces of at most `size` along the first axis."""
    for first in range(0, len(values), size):
        yield values[first : first + size]


def white_where(edges: Tensor) -> Tensor:
    """A mask (F, H, W) as white on black, uint8 (F, H, W, 3)."""
    return (edges.to(torch.uint8) * 255)[..., None].expand(*edges.shape, 3).contiguous()
