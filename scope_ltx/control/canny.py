"""Canny edges, white on black: what the union control LoRA expects of its `canny` group.

Follows the annotator of the published workflow: a 3x3 Sobel on the 0..255 scale, per pixel the colour channel
with the greatest magnitude |gx| + |gy|, thresholds 92 and 200 on that magnitude, and no blur: pixel for pixel
what OpenCV 5 draws. Source: Lightricks/ComfyUI-LTXVideo, example_workflows/2.3, union control. The method:
J. Canny, "A Computational Approach to Edge Detection", 1986.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from scope_ltx.control.frames import check_frames, white_where

_MAX_MAGNITUDE = 2040
"""|gx| + |gy| of a 3x3 Sobel on bytes cannot exceed 2 * 4 * 255."""

_GROUP_PIXELS = 1_000_000
"""Frames are worked on a few at a time: 8 of 384x320. All 129 at once are slower, out of every cache."""

_TAN_22_5 = math.sqrt(2.0) - 1.0
"""Gradients nearer to an axis than 22.5 degrees are compared along it, the others along a diagonal."""


@dataclass(frozen=True)
class CannyThresholds:
    """low, high: gradient magnitudes 0..2040; an edge is above `high`, or above `low` and joined to one.

    blur_sigma_px: Gaussian blur before the gradients, 0 for none. Noisy pictures (a webcam in the dark) give
    cleaner edges with 1.0 to 1.4; the LoRA was made with none.
    """

    low: float = 92.0
    high: float = 200.0
    blur_sigma_px: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.low <= self.high <= _MAX_MAGNITUDE:
            raise ValueError(
                f"canny thresholds must satisfy 0 <= low <= high <= {_MAX_MAGNITUDE}, "
                f"got low {self.low:g} and high {self.high:g}"
            )
        if not 0.0 <= self.blur_sigma_px <= 16.0:
            raise ValueError(f"blur_sigma_px must be within 0..16, got {self.blur_sigma_px:g}")


def canny(frames: Tensor, thresholds: CannyThresholds | None = None) -> Tensor:
    """Edges of uint8 (F, H, W, 3), white on black in the same shape, one pixel wide."""
    check_frames(frames)
    settings = thresholds or CannyThresholds()
    count, height, width, _ = frames.shape
    plane = (height + 2) * (width + 2)
    group = max(1, _GROUP_PIXELS // (height * width))
    weak, strong = [], []
    for first in range(0, count, group):
        magnitude, gx, gy = _gradients(frames[first : first + group], settings.blur_sigma_px)
        thin = _thin(magnitude, gx, gy, settings.low)
        weak.append(thin + first * plane)
        strong.append(thin[magnitude.flatten()[thin] > settings.high] + first * plane)
    edges = _connect(torch.cat(strong), torch.cat(weak), count * plane, width + 2)
    return white_where(edges.view(count, height + 2, width + 2)[:, 1:-1, 1:-1])


def _gradients(frames: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """|gx| + |gy|, gx and gy of the strongest channel, int16 (F, H + 2, W + 2): a border of zeros around."""
    count, height, width, _ = frames.shape
    best = torch.zeros(3, count, height, width, dtype=torch.int16, device=frames.device)
    for channel in range(3):
        values = frames[..., channel].float()
        if sigma > 0:
            values = _blur(values, sigma)
        # Replicated outwards, so that the picture's own frame is no edge.
        outer = pad(values[:, None], (1, 1, 1, 1), mode="replicate")[:, 0].to(torch.int16)
        smooth = outer[:, :-2] + 2 * outer[:, 1:-1] + outer[:, 2:]
        gx = smooth[:, :, 2:] - smooth[:, :, :-2]
        slope = outer[:, 2:] - outer[:, :-2]
        gy = slope[:, :, :-2] + 2 * slope[:, :, 1:-1] + slope[:, :, 2:]
        found = torch.stack([gx.abs() + gy.abs(), gx, gy])
        best = torch.where(found[0] > best[0], found, best)
    magnitude, gx, gy = pad(best, (1, 1, 1, 1))
    return magnitude, gx, gy


def _blur(values: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (F, H, W), cut at three sigma, rounded to whole levels like an 8 bit picture."""
    radius = math.ceil(3.0 * sigma)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    for axis in (1, 2):
        length = values.shape[axis]
        index = torch.arange(-radius, length + radius, device=values.device).clamp(0, length - 1)
        outer = values.index_select(axis, index)
        # Shifted sums: three times faster than a one-channel convolution on a CPU.
        values = torch.zeros_like(values)
        for offset, weight in enumerate(weights):
            values.add_(outer.narrow(axis, offset, length), alpha=weight / sum(weights))
    return values.round()


def _thin(magnitude: Tensor, gx: Tensor, gy: Tensor, low: float) -> Tensor:
    """Flat indices of the pixels above `low` that are the greatest across their edge.

    Only candidates are looked at: a tenth of the pixels in ordinary pictures. Of two equal neighbours along an
    axis the first stays, so that a step between two pixels gives one line; along a diagonal neither does. So it
    is in OpenCV, which drew what the LoRA was trained on, and the result is the same to the pixel.
    """
    stride = magnitude.shape[2]
    values = magnitude.flatten()
    found = (values > low).nonzero()[:, 0]
    x, y = gx.flatten()[found].float(), gy.flatten()[found].float()
    across, along = x.abs() * _TAN_22_5 > y.abs(), y.abs() * _TAN_22_5 > x.abs()
    step = torch.where((x < 0) == (y < 0), stride + 1, stride - 1)
    step = torch.where(across, 1, torch.where(along, stride, step))
    middle, after = values[found], values[found + step]
    greatest = (middle > after) | ((middle == after) & (across | along))
    return found[(middle > values[found - step]) & greatest]


def _connect(strong: Tensor, weak: Tensor, cells: int, stride: int) -> Tensor:
    """Hysteresis: mask (cells,) of `strong` and of all in `weak` that touch it, through others or at once.

    A front moves from the strong pixels outwards, in all frames at once; it ends when it finds nothing new.
    Each pixel is visited once, so the work is that of the edges and not of the picture. The border of each
    frame is never in `weak`, which keeps the front within its frame.
    """
    waiting = torch.zeros(cells, dtype=torch.bool, device=weak.device)
    waiting[weak] = True
    waiting[strong] = False
    edges = torch.zeros_like(waiting)
    edges[strong] = True
    around = [-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1]
    offsets = torch.tensor(around, device=weak.device)
    front = strong
    while front.numel():
        near = (front[:, None] + offsets).flatten()
        front = torch.unique(near[waiting[near]])
        waiting[front] = False
        edges[front] = True
    return edges
