"""The camera's movement, read from the lines of the ground: how their left and right halves travel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from training.world.masks import ColouredObject, Ground

Floats = npt.NDArray[np.float64]

_LEAST_CONTRAST = 4.0
"""Of a line's profile on the 0..255 scale: the lines have 76, and a wall without lines has noise."""
_LAG_S = 0.75
_PAN_PER_S = 0.03
_ZOOM_PER_S = 0.03


def classify_camera(ground: Ground, objects: tuple[ColouredObject, ...], fps: float) -> str:
    """One of words.CAMERAS; `static` also where no lines show."""
    profiles = _profiles(ground, objects)
    if np.median(profiles.max(1) - np.median(profiles, 1)) < _LEAST_CONTRAST:
        return "static"
    frames, width = profiles.shape
    lag = min(round(_LAG_S * fps), frames - 1)
    starts = range(0, frames - lag, max(1, lag // 6))
    half = width // 2
    moves = [
        (_shift(before[:half], after[:half]), _shift(before[half:], after[half:]))
        for before, after in ((profiles[start], profiles[start + lag]) for start in starts)
    ]
    left, right = np.median(np.array(moves), axis=0) / width / (lag / fps)
    # A zoom moves the middles of the halves, a quarter of the width from the centre, apart or together.
    pan, zoom = (left + right) / 2.0, (right - left) * 2.0
    if abs(pan) > _PAN_PER_S and abs(pan) * 2.0 > abs(zoom):
        return "pans left" if pan > 0 else "pans right"
    if abs(zoom) > _ZOOM_PER_S:
        return "zooms in" if zoom > 0 else "zooms out"
    return "static"


def _profiles(ground: Ground, objects: tuple[ColouredObject, ...]) -> Floats:
    """(F, W'): how far each column's median lightness is from the ground's, without the objects' pixels."""
    light = (ground.picture.mean(1) - ground.rgb.mean()).abs()
    for one in objects:
        light = torch.where(one.alpha > 0, torch.nan, light)
    return light.nanmedian(1).values.nan_to_num(0.0).double().numpy()


def _shift(before: Floats, after: Floats) -> float:
    """By how many columns `after` lies further right, to a fraction of one, by the best correlation."""
    reach = len(before) // 3
    before, after = before - before.mean(), after - after.mean()
    lags = np.arange(-reach, reach + 1)
    scores = []
    for lag in lags:
        first, second = (before[: len(before) - lag], after[lag:]) if lag >= 0 else (before[-lag:], after[:lag])
        scores.append(float(first @ second) / max(float(np.sqrt((first @ first) * (second @ second))), 1e-9))
    best = int(np.argmax(scores))
    if 0 < best < len(lags) - 1:
        low, top, high = scores[best - 1 : best + 2]
        bend = low - 2.0 * top + high
        return float(lags[best] + (0.5 * (low - high) / bend if bend < 0 else 0.0))
    return float(lags[best])
