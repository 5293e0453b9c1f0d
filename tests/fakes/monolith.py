"""A complete checkpoint, as Lightricks ships one: the split files' tensors in one file, with all settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from scope_ltx.checkpoints.quantize.command import QuantizeReport, quantize_checkpoint
from tests.fakes.published import PublishedFiles

CPU = torch.device("cpu")
KEEP = (0,)
"""Block that stays in bfloat16: the tiny model has three."""

State = dict[str, Tensor]
Change = Callable[[State, dict[str, Any]], None]

_PREFIXES = {"transformer": "", "text_projection": "", "video_vae": "vae.", "audio_vae": ""}


def read_state(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def write_monolith(path: Path, published: PublishedFiles, change: Change | None = None) -> Path:
    """All parts of `published` but the text encoder, after `change(state, config)` altered them in place."""
    state: State = {}
    config: dict[str, Any] = {"scheduler": {"num_train_timesteps": 1000}}
    for role, prefix in _PREFIXES.items():
        part: Path = getattr(published.files, role)
        state |= {prefix + key: tensor for key, tensor in read_state(part).items()}
        config |= json.loads(read_metadata(part).get("config", "{}"))
    if change is not None:
        change(state, config)
    save_file(state, path, {"config": json.dumps(config), "model_version": "2.3.0"})
    return path


def quantize(source: Path, directory: Path, **options: Any) -> QuantizeReport:
    return quantize_checkpoint(source, directory, **{"keep_blocks": KEEP, "device": CPU, **options})


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def same_bytes(first: Tensor, second: Tensor) -> bool:
    """Also for float8, and for NaN."""
    bytes_of = [tensor.reshape(-1).view(torch.uint8) for tensor in (first, second)]
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(*bytes_of)
