"""A stage of training that is cut off, as a lent machine is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.stage import Budget, Stage


class CutOffError(Exception):
    """The machine is gone."""


class CutOffStage(Stage):
    """Saves after every step, and ends for good after the second."""

    def save_now_and_then(self, tensors: Callable[[], dict[str, Any]]) -> None:
        self.save(tensors())
        if self.step == 2:
            raise CutOffError


def stage_in(directory: Path, kind: type[Stage], steps: int = 4, name: str = "part") -> Stage:
    return kind(name, directory, torch.device("cpu"), Budget(steps=steps), seed=7)
