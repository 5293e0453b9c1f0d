"""Guides for inpainting: the mask painted into the clip, in the way the LoRA at hand was trained on.

Two ways exist. The community's masked text-to-video LoRA saw masks made of 8x8 blocks; its fill colour is not
published: black is the likelier of the two that its users name, the other is magenta. The official in- and
outpainting LoRA saw binary masks, dilated, filled with RGB (102, 255, 0). Source of the latter:
Lightricks/ComfyUI-LTXVideo, vanish_nodes.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from scope_ltx.control.frames import check_frames

MaskStyle = Literal["blocks", "fill"]

BLOCK_PX = 8
FILL_RGB = (102, 255, 0)
MAX_DILATION_PX = 300


@dataclass(frozen=True)
class MaskPaint:
    """How a mask is painted: see `BLOCKS` and `FILL`.

    style: `blocks` paints every 8x8 block that the mask touches, `fill` the mask itself.
    rgb: the fill colour. dilation_px: how far the mask grows first, to each side.
    """

    style: MaskStyle
    rgb: tuple[int, int, int]
    dilation_px: int = 0

    def __post_init__(self) -> None:
        if self.style not in ("blocks", "fill"):
            raise ValueError(f"style must be 'blocks' or 'fill', got {self.style!r}")
        if len(self.rgb) != 3 or not all(0 <= level <= 255 for level in self.rgb):
            raise ValueError(f"rgb must be three levels within 0..255, got {self.rgb}")
        if not 0 <= self.dilation_px <= MAX_DILATION_PX:
            raise ValueError(f"dilation_px must be within 0..{MAX_DILATION_PX}, got {self.dilation_px}")


BLOCKS = MaskPaint("blocks", (0, 0, 0))
"""For ltx23_inpaint_masked_t2v. The colour is unverified: `replace(BLOCKS, rgb=...)` tries another."""

FILL = MaskPaint("fill", FILL_RGB, dilation_px=5)
"""For the official in-outpainting LoRA, first stage; use 32 where the result is blended into the clip."""


def paint_mask(frames: Tensor, mask: Tensor, paint: MaskPaint) -> Tensor:
    """The guide: `frames` with what is to be generated painted over.

    frames: uint8 (F, H, W, 3), at the guide's own size.
    mask: (F, H, W) or (1, H, W) for all frames; bool, or uint8 0..255, or floats 0..1. White is generated.
    """
    check_frames(frames)
    count, height, width, _ = frames.shape
    if mask.ndim != 3 or mask.shape[0] not in (1, count) or tuple(mask.shape[1:]) != (height, width):
        raise ValueError(
            f"the mask must be ({count}, {height}, {width}) like the frames, or (1, {height}, {width}), "
            f"got {tuple(mask.shape)}"
        )
    if paint.style == "blocks" and (height % BLOCK_PX or width % BLOCK_PX):
        raise ValueError(
            f"a mask of blocks needs height and width divisible by {BLOCK_PX}, got {height}x{width}: "
            "resize the clip first"
        )
    covered = grow_mask(_binary(mask.to(frames.device)), paint.dilation_px)
    if paint.style == "blocks":
        covered = _whole_blocks(covered)
    colour = torch.tensor(paint.rgb, dtype=torch.uint8, device=frames.device)
    return torch.where(covered[..., None], colour, frames)


def grow_mask(mask: Tensor, radius_px: int) -> Tensor:
    """Dilate a bool mask (F, H, W) by a square of `radius_px` to each side."""
    if radius_px == 0:
        return mask
    size = 2 * radius_px + 1
    planes = mask[:, None].float()
    # One axis after the other: 2 * size reads per pixel and not size squared.
    planes = max_pool2d(planes, (size, 1), stride=1, padding=(radius_px, 0))
    return max_pool2d(planes, (1, size), stride=1, padding=(0, radius_px))[:, 0] > 0


def _binary(mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return mask
    if mask.dtype == torch.uint8:
        return mask > 127
    if mask.is_floating_point():
        return mask > 0.5
    raise ValueError(f"the mask must be bool, uint8 or floating point, got {mask.dtype}")


def _whole_blocks(mask: Tensor) -> Tensor:
    blocks = max_pool2d(mask[:, None].float(), BLOCK_PX)[:, 0] > 0
    return blocks.repeat_interleave(BLOCK_PX, 1).repeat_interleave(BLOCK_PX, 2)
