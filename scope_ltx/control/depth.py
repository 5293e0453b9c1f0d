"""Depth maps with Depth Anything: near is white, far is black."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scope_ltx.control.frames import batches, check_frames, to_bytes
from scope_ltx.control.local_models import normalised, open_local_model
from scope_ltx.manifest import ControlModel

SIDE_PX = 518
"""The side that Depth Anything was trained at, and that of the published workflow's annotator."""

_MIN_SPAN = 1e-3
"""Of the greatest depth: what varies less is flat."""

_BATCH = 8


def load_depth_estimator(facts: ControlModel, models: Path, device: torch.device) -> DepthEstimator:
    """Raises CheckpointError if the model is not below `models`, with the command that downloads it."""
    from transformers import DepthAnythingForDepthEstimation  # noqa: PLC0415 - seconds, and only used here

    model = open_local_model(DepthAnythingForDepthEstimation, facts, models, device)
    return DepthEstimator(model, int(model.config.patch_size), device)


class DepthEstimator:
    """Frames to depth maps. Call it from one thread at a time.

    model: pixel_values (N, 3, h, w) to an output with `predicted_depth` (N, h, w), greater is nearer.
    patch_px: h and w are multiples of it. device: where the model is.
    """

    def __init__(self, model: Any, patch_px: int, device: torch.device) -> None:
        self._model, self._patch, self._device = model, patch_px, device

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        """Grey depth maps of uint8 (F, H, W, 3), same shape and device.

        The nearest and the farthest point of the whole clip are white and black: scaled frame by frame, the
        picture would flicker.
        """
        check_frames(frames)
        _, height, width, _ = frames.shape
        size = _model_size(height, width, self._patch)
        parts = []
        for part in batches(frames, _BATCH):
            planes = part.to(self._device).permute(0, 3, 1, 2).float() / 255
            planes = interpolate(planes, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
            depth = self._model(pixel_values=normalised(planes)).predicted_depth
            parts.append(interpolate(depth[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0])
        depth = torch.cat(parts)
        far, near = depth.amin(), depth.amax()
        # Without a floor, the rounding noise of a flat wall would be drawn as a landscape.
        span = (near - far).clamp(min=1e-6).maximum(_MIN_SPAN * depth.abs().amax())
        grey = to_bytes((depth - far) * 255 / span)
        return grey[..., None].expand(*grey.shape, 3).contiguous().to(frames.device)


def _model_size(height: int, width: int, patch: int) -> tuple[int, int]:
    """(height, width) for the model: one side at SIDE_PX by the smaller change, both whole patches."""
    scale = min(SIDE_PX / height, SIDE_PX / width, key=lambda factor: abs(1 - factor))
    return (max(1, round(height * scale / patch)) * patch, max(1, round(width * scale / patch)) * patch)
