"""From an object's masks to its movement: centre, size and visibility over time, and the motion they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.world.motion import CameraTrack

Floats = npt.NDArray[np.float64]

_VISIBLE = 0.3
"""Of the area in the frames where it is largest: below it an object counts as gone."""
_BLINK_SHARE = 0.1
_STILL = 0.06
"""Fractions of the frame: a slide covers 0.2 in two seconds, a bounce between two objects 0.14."""
_GROWTH_PER_S = 0.045
"""Of the logarithm of the radius: growing and shrinking are 0.09 to 0.17."""


@dataclass(frozen=True)
class Measured:
    """One object over time, each (F,). x, y: centre as fractions; radius: root of the area as a fraction of the
    shorter side. All three are meaningless where `visible` is False."""

    x: Floats
    y: Floats
    radius: Floats
    visible: npt.NDArray[np.bool_]

    def seen_by(self, camera: CameraTrack) -> Measured:
        """The same with the camera's own movement taken out."""
        return Measured(
            (self.x - 0.5) / camera.zoom + 0.5 - camera.shift,
            (self.y - 0.5) / camera.zoom + 0.5,
            self.radius / camera.zoom,
            self.visible,
        )


def measure(alpha: Tensor) -> Measured:
    """Of an object's shares (F, H, W)."""
    _, height, width = alpha.shape
    area = alpha.sum((1, 2))
    across = (torch.arange(width) + 0.5) / width
    down = (torch.arange(height) + 0.5) / height
    safe = area.clamp_min(1e-3)
    x = (alpha.sum(1) * across).sum(1) / safe
    y = (alpha.sum(2) * down).sum(1) / safe
    radius = area.sqrt() / min(height, width)
    full = torch.quantile(area, 0.9)
    # A growing object begins at a quarter of its last area, so the neighbours in time decide as well.
    nearby = torch.nn.functional.max_pool1d(area[None, None], 49, 1, 24)[0, 0]
    visible = (area > _VISIBLE * torch.minimum(nearby, full)) & (area > 0.02 * full)
    return Measured(x.double().numpy(), y.double().numpy(), radius.double().numpy(), visible.numpy())


def classify_motion(measured: Measured, fps: float) -> str | None:
    """One of words.MOTIONS, or None for a movement that is none of them."""
    shown = measured.visible
    if shown.sum() < 4:
        return None
    if 1.0 - shown.mean() >= _BLINK_SHARE:
        return "blinks slowly"
    seconds = np.flatnonzero(shown) / fps
    x, y = measured.x[shown], measured.y[shown]
    span_x, span_y = _span(x), _span(y)
    if max(span_x, span_y) > _STILL:
        return _travel(seconds, x, y, span_x, span_y)
    growth = float(np.polyfit(seconds, np.log(np.maximum(measured.radius[shown], 1e-4)), 1)[0])
    if abs(growth) > _GROWTH_PER_S:
        return "grows slowly" if growth > 0 else "shrinks slowly"
    return "stays still"


def _travel(seconds: Floats, x: Floats, y: Floats, span_x: float, span_y: float) -> str | None:
    narrow = 0.35
    if span_y < narrow * span_x:
        slope, straight = _line(seconds, x)
        return ("slides right" if slope > 0 else "slides left") if straight else None
    if span_x < narrow * span_y:
        slope, straight = _line(seconds, y)
        return ("moves down" if slope > 0 else "moves up") if straight else "bounces steadily"
    return "circles around"


def _line(seconds: Floats, values: Floats) -> tuple[float, bool]:
    """Slope, and whether a line explains nine tenths of the variance."""
    slope, offset = np.polyfit(seconds, values, 1)
    left = values - slope * seconds - offset
    return float(slope), bool(left.var() < 0.1 * values.var())


def _span(values: Floats) -> float:
    low, high = np.percentile(values, [4, 96])
    return float(high - low)
