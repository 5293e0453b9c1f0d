"""What an input encoder keeps, and what it lets go."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scope_ltx.engine import DEFAULT_ENGINE
from scope_ltx.manifest import ModelFiles
from scope_ltx.mode_parameters import ControlGroup
from scope_ltx.models.components import load_components
from scope_ltx.models.encoders import InputEncoder

FRAMES = np.zeros((9, 64, 64, 3), np.uint8)


class Drawing:
    """A control model, as large as they come."""

    def __call__(self, frames: Tensor) -> Tensor:
        return frames


def test_a_control_model_goes_when_another_group_is_drawn(small_model_dir: Path) -> None:
    asked: list[ControlGroup] = []
    drawings: list[weakref.ref[Drawing]] = []

    def control(group: ControlGroup) -> Drawing:
        made = Drawing()
        asked.append(group)
        drawings.append(weakref.ref(made))
        return made

    files = ModelFiles.in_directory(small_model_dir)
    encoder = InputEncoder(load_components(files, torch.device("cpu"), DEFAULT_ENGINE), control)
    for group in ("depth", "depth", "pose"):
        encoder.guide(FRAMES, group, 64, 64)
    assert asked == ["depth", "pose"]
    assert [made() is None for made in drawings] == [True, False]
