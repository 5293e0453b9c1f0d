"""States of training on disk: whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Written beside and moved into place, so that a run that ends here leaves the state before."""
    scratch = path.with_suffix(".part")
    torch.save(state, scratch)
    scratch.replace(path)


def load_state(path: Path, device: torch.device) -> dict[str, Any] | None:
    """None where there is no such file. The file is our own: it holds Python's random state beside tensors."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=False)
    return state
