"""Opening a transformers model that is on this machine. Nothing is ever fetched from here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import ControlModel

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def control_model_directory(facts: ControlModel, models: Path) -> Path:
    """Where a control model belongs below a model directory. Raises CheckpointError if it is not there whole."""
    directory = models / facts.path
    missing = [name for name in facts.files if not (directory / name).is_file()]
    if missing:
        what = facts.role.replace("_", " ")
        raise CheckpointError(
            directory, f"the {what} model is missing", keys=missing, advice=_advice(facts, directory)
        )
    return directory


def open_local_model(model_class: Any, facts: ControlModel, models: Path, device: torch.device) -> Any:
    """Build a transformers model from its own directory, in float32, for inference.

    model_class: the transformers class to build, whose `config_class` must be that of the directory.
    Raises CheckpointError when files are missing or damaged, belong to another class, or do not fill the model.
    """
    directory = control_model_directory(facts, models)
    advice = _advice(facts, directory)
    _check_kind(directory, model_class.config_class.model_type, advice)
    try:
        # Wrong shapes are let through here to be told by name below, in the same words from every version.
        model, info = model_class.from_pretrained(
            directory,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(directory, f"cannot be loaded: {error}", advice=advice) from error
    # transformers fills what is missing with random values and only logs it.
    keys = [*info["missing_keys"], *info["mismatched_keys"]]
    absent = sorted(str(key[0] if isinstance(key, tuple) else key) for key in keys)
    if absent:
        problem = f"model.safetensors does not fill the model, {len(absent)} tensors are missing or misshapen"
        raise CheckpointError(directory, problem, keys=absent, advice=advice)
    network: nn.Module = model
    return network.to(device=device, dtype=torch.float32).eval().requires_grad_(False)


def normalised(planes: Tensor) -> Tensor:
    """Planes (N, 3, H, W) of 0..1 with ImageNet's mean and deviation taken out."""
    mean, std = (
        torch.tensor(values, device=planes.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (planes - mean) / std


def _check_kind(directory: Path, expected: str, advice: str) -> None:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(directory / "config.json", f"is not JSON: {error}", advice=advice) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != expected:
        problem = f"is a model of type {kind!r}, expected {expected!r}"
        raise CheckpointError(directory / "config.json", problem, advice=advice)


def _advice(facts: ControlModel, directory: Path) -> str:
    command = shlex.join(["hf", "download", facts.repo, *facts.files, "--local-dir", str(directory)])
    return f"Run `{command}`"
