"""Which shape, in which style, a mask is: the best overlap with the world's own shapes at the mask's size."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from training.world.shapes import coverage, distance, outlined, striped
from training.world.words import ADDED_STYLES, SHAPES, STYLES

_FRAMES = 10
_TRIES = (0.94, 1.0, 1.06)
"""Factors on the radius that the area gives: soft edges change the area by a few per cent."""


def classify_shape(alpha: Tensor) -> tuple[str, str, float] | None:
    """Shape, style and mean overlap 0..1 (least of union) of an object's shares (F, H, W).

    Judged on the largest views that do not touch the border. None where there is no such view.
    """
    chosen = _views(alpha)
    if not len(chosen):
        return None
    scores = {
        (shape, style): _overlap(chosen, shape, style) for shape in SHAPES for style in (*STYLES, *ADDED_STYLES)
    }
    shape, style = max(scores, key=lambda key: scores[key])
    return shape, style, scores[shape, style]


def _views(alpha: Tensor) -> Tensor:
    area = alpha.sum((1, 2))
    border = alpha[:, 0].sum(1) + alpha[:, -1].sum(1) + alpha[:, :, 0].sum(1) + alpha[:, :, -1].sum(1)
    usable = ((border < 1.0) & (area > 20.0)).nonzero()[:, 0]
    if not len(usable):
        return alpha[:0]
    # Spread over the better half: neighbouring frames show the same mistakes.
    order = usable[area[usable].argsort(descending=True)]
    order = order[: max(_FRAMES, len(order) // 2)]
    return alpha[order[:: max(1, len(order) // _FRAMES)]]


def _overlap(alpha: Tensor, shape: str, style: str) -> float:
    count, height, width = alpha.shape
    pixel_x, pixel_y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
    area = alpha.sum((1, 2))
    x = (alpha.sum(1) * pixel_x).sum(1) / area
    y = (alpha.sum(2) * pixel_y[:, 0]).sum(1) / area
    radius = (area / _unit_area(shape, style)).sqrt()
    best = torch.zeros(count)
    for factor in _TRIES:
        template = _template(shape, style, pixel_x - x[:, None, None], pixel_y - y[:, None, None], radius * factor)
        shared = torch.minimum(alpha, template).sum((1, 2)) / torch.maximum(alpha, template).sum((1, 2))
        best = torch.maximum(best, shared)
    return float(best.mean())


def _template(shape: str, style: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    size = radius[:, None, None]
    inside = distance(shape, x, y, size)
    if style == "outline":
        return coverage(outlined(inside, size))
    return coverage(inside) * striped(y, size) if style == "striped" else coverage(inside)


@cache
def _unit_area(shape: str, style: str) -> float:
    """Area for a named radius of 1, measured on a fine grid."""
    pixels = torch.arange(-100, 100) + 0.5
    template = _template(shape, style, pixels[None, None], pixels[None, :, None], torch.tensor([60.0]))
    return float(template.sum()) / 60.0**2
