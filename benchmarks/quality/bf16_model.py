"""A model directory with a bfloat16 transformer instead of the published FP8 one: dequantised, or as trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from scope_ltx.checkpoints.keys import CONNECTORS, TRANSFORMER
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.small.safetensors_file import write_safetensors

State = dict[str, Tensor]

_WEIGHT, _SCALE, _NOTE = ".weight", ".weight_scale", ".comfy_quant"
_COMPANIONS = (_SCALE, _NOTE, ".input_scale")


def write_dequantised(model: Path, target: Path, *, keep_one: bool) -> None:
    """The model with every FP8 weight of the transformer multiplied out. keep_one: but for the smallest one."""
    files = _copied(model, target)
    published = load_file(files.transformer)
    _write(files.transformer, published, _dequantised(published), keep_one=keep_one)


def write_unquantised(model: Path, weights: Path, target: Path, *, keep_one: bool) -> None:
    """The model with the transformer and connectors of a training file, whose names begin with `transformer.` and
    `connectors.`. Raises ValueError unless it has exactly what the model has."""
    files = _copied(model, target)
    trained = _published_names(load_file(weights))
    for path in (files.transformer, files.text_projection):
        published = load_file(path)
        state = {
            name: trained[name].to(value.dtype)
            for name, value in _dequantised(published).items()
            if name in trained
        }
        missing = sorted(set(_dequantised(published)) - set(state))
        if missing:
            raise ValueError(f"{weights} lacks {len(missing)} weights of {path.name}, such as {missing[0]}")
        _write(path, published, state, keep_one=keep_one)


def _copied(model: Path, target: Path) -> ModelFiles:
    shutil.copytree(model, target, dirs_exist_ok=True)
    return ModelFiles.in_directory(target)


def _published_names(trained: State) -> State:
    named = {}
    for name, value in trained.items():
        part, _, inner = name.partition(".")
        keys = {"transformer": TRANSFORMER, "connectors": CONNECTORS}.get(part)
        if keys is not None:
            named[keys.to_published(inner)] = value
    return named


def _dequantised(published: State) -> State:
    state = {name: value for name, value in published.items() if not name.endswith(_COMPANIONS)}
    for layer in _fp8_layers(published):
        scale = published[f"{layer}{_SCALE}"]
        state[f"{layer}{_WEIGHT}"] = (published[f"{layer}{_WEIGHT}"].float() * scale).bfloat16()
    return state


def _fp8_layers(published: State) -> list[str]:
    """The smallest first."""
    layers = [name.removesuffix(_SCALE) for name in published if name.endswith(_SCALE)]
    return sorted(layers, key=lambda layer: (published[f"{layer}{_WEIGHT}"].numel(), layer))


def _write(path: Path, published: State, state: State, *, keep_one: bool) -> None:
    """`state` under the metadata of the file that it replaces."""
    kept = _fp8_layers(published)[:1] if keep_one else []
    for layer in kept:
        state |= {name: value for name, value in published.items() if name.startswith(f"{layer}.")}
    metadata = dict(CheckpointFile(path).metadata)
    # The published tensors are mapped from the file, which must not change below them.
    path.unlink()
    with torch.no_grad():
        write_safetensors(path, {name: value.contiguous() for name, value in state.items()}, metadata)
