"""Finding coloured objects in frames: which colours there are, and how much of each pixel is theirs.

Everything is judged by chroma (colour less its mean): a moving camera's lines are lighter or darker than the
ground but of no other hue, so they vanish, and shading of a generated picture matters less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from training.world.words import BACKGROUNDS, COLOURS

_SIDE = 160
"""Pictures are averaged down to about so many pixels on the shorter side."""

_LEAST_CHROMA = 40.0
"""On the 0..255 scale: the least of the palette on any ground is 77 (purple on navy)."""

_LEAST_SHARE = 0.0015
"""Of all pixels of the clip: below it a colour is an artefact. The smallest object has 0.006."""

_COLOUR_STRIDE = 4
"""Colours are counted in every fourth frame."""


@dataclass(frozen=True)
class ColouredObject:
    """alpha: (F, H', W') float32 in 0..1, the object's share of each pixel of the picture averaged down."""

    colour: str
    alpha: Tensor

    @property
    def mean_y(self) -> float:
        """Height of its middle over the whole clip, as a fraction from the top."""
        rows = self.alpha.sum((0, 2))
        places = (torch.arange(rows.shape[0]) + 0.5) / rows.shape[0]
        return float((rows * places).sum() / rows.sum().clamp_min(1e-6))


@dataclass(frozen=True)
class Ground:
    """rgb: (3,) of the background on the 0..255 scale. picture: (F, 3, H', W') averaged down, likewise."""

    name: str
    rgb: Tensor
    picture: Tensor


def find_ground(frames: npt.NDArray[np.uint8]) -> Ground:
    """The background of uint8 (F, H, W, 3): the median of the border, and the nearest named ground."""
    picture = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    factor = max(1, min(picture.shape[-2:]) // _SIDE)
    picture = avg_pool2d(picture, factor) if factor > 1 else picture
    sides = [picture[..., :2], picture[..., -2:], picture[..., :2, :].mT, picture[..., -2:, :].mT]
    border = torch.cat([side.permute(1, 0, 2, 3).reshape(3, -1) for side in sides], 1)
    rgb = border.median(1).values
    return Ground(_nearest(rgb, BACKGROUNDS), rgb, picture)


def find_objects(ground: Ground, count: int) -> tuple[ColouredObject, ...]:
    """Up to `count` objects of different colours, the largest ones, from top to bottom."""
    chroma = _chroma((ground.picture - ground.rgb[:, None, None]).movedim(1, -1))
    measured = _colours(ground, chroma, count)
    if not measured:
        return ()
    names = list(measured)
    targets = _chroma(torch.stack([measured[name] - ground.rgb for name in names]))
    # Each pixel is a mixture of ground and one object: the one to whose line of mixtures it is nearest.
    shares = [(chroma * target).sum(-1).div(float(target.square().sum())).clamp(0.0, 1.0) for target in targets]
    misses = [
        (chroma - share[..., None] * target).square().sum(-1)
        for share, target in zip(shares, targets, strict=True)
    ]
    nearest = torch.stack(misses).argmin(0)
    found = []
    for index, (share, miss, target) in enumerate(zip(shares, misses, targets, strict=True)):
        own = (nearest == index) & (miss.sqrt() < 0.4 * float(target.norm())) & (share > 0.2)
        found.append(ColouredObject(names[index], share * own))
    return tuple(sorted(found, key=lambda one: one.mean_y))


def _colours(ground: Ground, chroma: Tensor, count: int) -> dict[str, Tensor]:
    """The colours of most inner pixels, and what they measure: median RGB on the 0..255 scale."""
    strength = chroma[::_COLOUR_STRIDE].norm(dim=-1)
    # An edge pixel is a mixture and may look like another colour: only pixels amid others as strong count.
    inner = -max_pool2d(-strength[:, None], 3, 1, 1)[:, 0] > torch.clamp(0.7 * strength, min=_LEAST_CHROMA)
    pixels = ground.picture[::_COLOUR_STRIDE].movedim(1, -1)[inner]
    if not len(pixels):
        return {}
    names = list(COLOURS)
    palette = torch.tensor([COLOURS[name] for name in names], dtype=torch.float32)
    kinds = torch.cdist(_weighted(pixels), _weighted(palette)).argmin(1)
    sizes = torch.bincount(kinds, minlength=len(names))
    order = sizes.argsort(descending=True)[:count].tolist()
    least = _LEAST_SHARE * strength.numel() * 0.5
    return {names[index]: pixels[kinds == index].median(0).values for index in order if sizes[index] > least}


def _weighted(rgb: Tensor) -> Tensor:
    """Hue tells the palette apart; lightness counts a third, since shading changes it."""
    mean = rgb.mean(-1, keepdim=True)
    return torch.cat([rgb - mean, mean / 3.0], -1)


def _chroma(rgb: Tensor) -> Tensor:
    return rgb - rgb.mean(-1, keepdim=True)


def _nearest(rgb: Tensor, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float((torch.tensor(palette[name]) - rgb).square().sum()))
