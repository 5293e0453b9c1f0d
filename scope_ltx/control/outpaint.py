"""Guides for outpainting: the clip on a larger canvas whose pure black means "generate here".

Dark footage looks like that mark. A gamma of 2.0 before lifts it away from black and leaves 0 at 0; the inverse
restores the levels after generation. Both work on full-range RGB: on limited-range luma, black would be lifted
too and the mark be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scope_ltx.control.frames import check_frames, resize

GAMMA = 2.0


@dataclass(frozen=True)
class Letterboxed:
    """frames: uint8 (F, H, W, 3), RGB 0 outside the box. The clip fills rows `top...` and columns `left...`."""

    frames: Tensor
    top: int
    left: int
    height: int
    width: int


def letterbox(
    frames: Tensor,
    height: int,
    width: int,
    *,
    anchor: tuple[float, float] = (0.5, 0.5),
    scale: float = 1.0,
) -> Letterboxed:
    """Put the clip, its aspect kept, on a black canvas of `height` x `width`.

    frames: uint8 (F, H, W, 3).
    anchor: where the clip lies, as (x, y) fractions of the free space: (0, 0) top left, (0.5, 0.5) centred.
    scale: 1 is the largest size that fits; less leaves room on all sides.
    """
    check_frames(frames)
    if height < 1 or width < 1:
        raise ValueError(f"the canvas must be at least 1x1, got height {height} and width {width}")
    if not 0.0 < scale <= 1.0:
        raise ValueError(f"scale must be above 0 and at most 1, got {scale:g}")
    if not all(0.0 <= part <= 1.0 for part in anchor):
        raise ValueError(f"anchor must be two fractions within 0..1, got {anchor}")
    count, own_height, own_width, _ = frames.shape
    factor = min(height / own_height, width / own_width) * scale
    inner_height = min(height, max(1, round(own_height * factor)))
    inner_width = min(width, max(1, round(own_width * factor)))
    top = round((height - inner_height) * anchor[1])
    left = round((width - inner_width) * anchor[0])
    canvas = torch.zeros(count, height, width, 3, dtype=torch.uint8, device=frames.device)
    canvas[:, top : top + inner_height, left : left + inner_width] = resize(frames, inner_height, inner_width)
    return Letterboxed(canvas, top, left, inner_height, inner_width)


def lift_dark(frames: Tensor, gamma: float = GAMMA) -> Tensor:
    """255 * (level / 255) ** (1 / gamma), before generation. uint8 in and out; 0 stays 0 and 255 stays 255."""
    return _map_levels(frames, 1.0 / _checked(gamma))


def restore_dark(frames: Tensor, gamma: float = GAMMA) -> Tensor:
    """255 * (level / 255) ** gamma, on what was generated: undoes `lift_dark` to within one level."""
    return _map_levels(frames, _checked(gamma))


def _checked(gamma: float) -> float:
    if not 1.0 <= gamma <= 4.0:
        raise ValueError(f"gamma must be within 1..4, got {gamma:g}")
    return gamma


def _map_levels(frames: Tensor, exponent: float) -> Tensor:
    check_frames(frames)
    table = [round(255.0 * (level / 255.0) ** exponent) for level in range(256)]
    return torch.tensor(table, dtype=torch.uint8, device=frames.device)[frames.int()]
