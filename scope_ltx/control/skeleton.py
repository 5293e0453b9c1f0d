"""Skeletons as OpenPose draws them: 18 joints, 17 limbs, one hue each, on black.

Limb k has hue k / 18 of the colour circle at 60 % brightness, joint k the same hue at full brightness. The neck,
which COCO lacks, is halfway between the shoulders. Source: CMU OpenPose's COCO-18 output format.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

JOINT_SCORE = 0.3
"""Joints that the model is less sure of are left out, and the limbs that end in them."""

LIMB_BRIGHTNESS = 0.6

_FROM_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""COCO's joint for each of OpenPose's: nose, neck, right arm, left arm, right leg, left leg, eyes, ears."""

_SHOULDERS = (5, 6)

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

_Point = tuple[float, float] | None


def draw_skeletons(people: Sequence[Tensor], height: int, width: int) -> Tensor:
    """One picture per entry of `people` (people, 17, 3; COCO joints as x, y in pixels and score).

    Returns uint8 (len(people), height, width, 3) on the CPU: drawing a few lines does not pay on a device.
    """
    pictures = np.zeros((len(people), height, width, 3), dtype=np.uint8)
    for index, joints in enumerate(people):
        image = Image.new("RGB", (width, height))
        for person in joints.tolist():
            _draw(ImageDraw.Draw(image), _openpose(person), max(1.0, min(height, width) / 128))
        pictures[index] = np.asarray(image)
    return torch.from_numpy(pictures)


def _draw(draw: ImageDraw.ImageDraw, joints: Sequence[_Point], radius: float) -> None:
    """Limbs first, joints over them. `radius` is 4 pixels at a short side of 512."""
    for number, (start, end) in enumerate(LIMBS):
        first, last = joints[start], joints[end]
        if first is not None and last is not None:
            draw.line([first, last], fill=_colour(number, LIMB_BRIGHTNESS), width=max(1, round(2 * radius)))
    for number, point in enumerate(joints):
        if point is not None:
            x, y = point
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_colour(number, 1.0))


def _openpose(coco: Sequence[Sequence[float]]) -> list[_Point]:
    """OpenPose's 18 joints from COCO's 17 (x, y, score); None for what was not seen."""
    seen: list[_Point] = [(x, y) if score >= JOINT_SCORE else None for x, y, score in coco]
    left, right = (seen[index] for index in _SHOULDERS)
    neck = None if left is None or right is None else ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
    return [neck if index is None else seen[index] for index in _FROM_COCO]


def _colour(number: int, brightness: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number / 18, 1.0, 255 * brightness)
    return round(red), round(green), round(blue)
