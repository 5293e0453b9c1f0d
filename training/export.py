"""Trained weights <-> files with the published names in bfloat16: what the shipped model is put together from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from scope_ltx.checkpoints.keys import AUDIO_VAE, VIDEO_VAE, VOCODER, KeyMap
from scope_ltx.models.small.safetensors_file import write_safetensors

State = dict[str, Tensor]


def write_video_vae(path: Path, state: Mapping[str, Tensor]) -> None:
    """From the state dict of `build_video_vae`."""
    _write(path, state, VIDEO_VAE)


def write_audio_vae(path: Path, state: Mapping[str, Tensor]) -> None:
    """From the state dict of `build_audio_vae`, with statistics of tokens (128)."""
    _write(path, state, AUDIO_VAE)


def write_vocoder(path: Path, state: Mapping[str, Tensor]) -> None:
    """From the state dict of `build_vocoder`."""
    _write(path, state, VOCODER)


def read_video_vae(path: Path) -> State:
    """State dict of `build_video_vae`, float32."""
    return _read(path, VIDEO_VAE)


def read_audio_vae(path: Path) -> State:
    """State dict of `build_audio_vae`, float32, with statistics of tokens (128)."""
    return _read(path, AUDIO_VAE)


def read_vocoder(path: Path) -> State:
    """State dict of `build_vocoder`, float32."""
    return _read(path, VOCODER)


def _write(path: Path, state: Mapping[str, Tensor], keymap: KeyMap) -> None:
    tensors = {keymap.to_published(name): weight.detach().cpu().bfloat16() for name, weight in state.items()}
    write_safetensors(path, tensors, {"format": "pt"})


def _read(path: Path, keymap: KeyMap) -> State:
    """Raises ValueError for a name that is none of the part's."""
    state: State = {}
    with safe_open(path, "pt") as file:
        for published in file.keys():  # noqa: SIM118 - the file is no dict
            name = keymap.to_module(published)
            if name is None:
                raise ValueError(f"{path} holds {published!r}, which is no weight of the {keymap.name}")
            state[name] = file.get_tensor(published).to(torch.float32)
    return state
