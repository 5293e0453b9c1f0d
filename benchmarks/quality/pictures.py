"""Pictures against pictures: how far apart they are, and how well objects lie on each other."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.maker import Frames
from training.world.masks import find_ground, find_objects
from training.world.tracking import measure


def psnr(first: Frames, second: Frames) -> float:
    """Peak signal to noise in dB of uint8 pictures, inf for equal ones. Raises ValueError for unequal shapes."""
    if first.shape != second.shape:
        raise ValueError(f"pictures of one shape are compared, got {first.shape} and {second.shape}")
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return 10.0 * math.log10(255.0**2 / error) if error else math.inf


def object_share(frames: Frames, count: int) -> Tensor:
    """(F, H', W') in 0..1: how much of each pixel belongs to any of the `count` largest coloured objects."""
    found = find_objects(find_ground(frames), count)
    if not found:
        height, width = frames.shape[1:3]
        factor = max(1, min(height, width) // 160)
        return torch.zeros(len(frames), height // factor, width // factor)
    return torch.stack([one.alpha for one in found]).sum(0).clamp(max=1.0)


def overlap(first: Tensor, second: Tensor) -> float:
    """Shared area over joint area of two shares (F, H, W), each summed over all frames: 1 for the same, 0 for
    apart. Both empty is 1."""
    joint = float(torch.maximum(first, second).sum())
    return float(torch.minimum(first, second).sum()) / joint if joint else 1.0


def path_distance(first: Tensor, second: Tensor) -> float | None:
    """Mean distance of the middles of two shares (F, H, W), as a fraction of the frame's sides, over the frames
    where both are there; None where they never are."""
    if not float(first.sum()) or not float(second.sum()):
        return None
    one, other = measure(first), measure(second)
    both = one.visible & other.visible
    if not both.any():
        return None
    return float(np.hypot(one.x - other.x, one.y - other.y)[both].mean())
