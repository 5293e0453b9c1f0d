"""Which control signal is drawn from the reference video: one group at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from scope_ltx.control.canny import CannyThresholds, canny
from scope_ltx.control.depth import load_depth_estimator
from scope_ltx.control.frames import FrameFunction, check_frames
from scope_ltx.control.pose import load_pose_estimator
from scope_ltx.manifest import Manifest

ControlGroup = Literal["none", "canny", "depth", "pose"]


def build_control(
    group: ControlGroup,
    *,
    manifest: Manifest,
    models: Path,
    device: torch.device,
    thresholds: CannyThresholds | None = None,
) -> FrameFunction:
    """The function that draws a group: frames uint8 (F, H, W, 3) to the same shape on the same device.

    `none` gives the frames back: they are a control signal already. canny works where the frames are; depth and
    pose load their models to `device` from below `models`. Raises CheckpointError, with the command to run, if
    they are not there, and ValueError for another group.
    """
    if group == "none":
        return _unchanged
    if group == "canny":
        settings = thresholds or CannyThresholds()
        return lambda frames: canny(frames, settings)
    if group == "depth":
        return load_depth_estimator(manifest.control_model("depth"), models, device)
    if group == "pose":
        pose, detector = manifest.control_model("pose"), manifest.control_model("person_detector")
        return load_pose_estimator(pose, detector, models, device)
    raise ValueError(f"control_group must be one of {', '.join(get_args(ControlGroup))}, got {group!r}")


def _unchanged(frames: Tensor) -> Tensor:
    check_frames(frames)
    return frames
