"""Signed distances of the four shapes in pixels, negative inside. x, y point right and down from the centre."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_REACH = {"circle": 1.0, "square": 0.89, "triangle": 1.25, "star": 1.3}
"""Radius of the named size to the shape's own: half side, or distance of the corners. Evens out the areas."""

_STAR_INNER = 0.42
"""Inner to outer corners: rounder than the pentagram's 0.38, so that the arms survive compression."""

_STROKE = 0.34
"""Outline thickness in units of the named radius: 17 pixels of a medium object in a default frame."""


_STRIPES_PER_RADIUS = 2.5


def distance(shape: str, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Broadcasts. Exact along edges; beyond corners smaller than the true distance, which antialiasing never sees.

    Raises ValueError for an unknown shape.
    """
    if shape not in _REACH:
        raise ValueError(f"shape {shape!r} is none of {', '.join(_REACH)}")
    reach = radius * _REACH[shape]
    if shape == "circle":
        return torch.hypot(x, y) - reach
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - reach
    if shape == "triangle":
        # Pointing up, its centroid at the origin: the base is half the corners' distance below it.
        return torch.maximum(y, x.abs() * (math.sqrt(3.0) / 2.0) - y * 0.5) - reach * 0.5
    return _star(x, y, reach)


def outlined(inside: Tensor, radius: Tensor) -> Tensor:
    """The distance to a stroke along the inner side of the edge of distance `inside`."""
    half = radius * (_STROKE * 0.5)
    return (inside + half).abs() - half


def striped(y: Tensor, radius: Tensor) -> Tensor:
    """What is left of a shape, 0..1, without every second horizontal band. A band runs through the middle."""
    band = radius / _STRIPES_PER_RADIUS
    away = (torch.remainder(y + band, 2.0 * band) - band).abs()
    return coverage(away - band * 0.5)


def coverage(inside: Tensor) -> Tensor:
    """How much of each pixel the shape covers, 0..1."""
    return (0.5 - inside).clamp(0.0, 1.0)


def _star(x: Tensor, y: Tensor, reach: Tensor) -> Tensor:
    """Five corners, one on top: every tenth of the turn is folded onto the one edge between two corners."""
    tenth = math.pi / 5.0
    angle = torch.atan2(x, -y).abs()
    angle = (torch.remainder(angle + tenth, 2.0 * tenth) - tenth).abs()
    away = torch.hypot(x, y)
    # The edge runs from (1, 0) to the inner corner; its normal points out of the star.
    inner_x, inner_y = _STAR_INNER * math.cos(tenth), _STAR_INNER * math.sin(tenth)
    length = math.hypot(1.0 - inner_x, inner_y)
    normal_x, normal_y = inner_y / length, (1.0 - inner_x) / length
    return away * (torch.cos(angle) * normal_x + torch.sin(angle) * normal_y) - reach * normal_x
