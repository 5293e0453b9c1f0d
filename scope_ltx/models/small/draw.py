"""Seeded weights by name and shape: what training starts from, and all that the parts without training have.

A `State` is a state dict in the modules' own names, float32. Nothing here touches PyTorch's global random state.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """Names and shapes of everything a module stores, without allocating or initialising it."""
    with torch.device("meta"):
        module = build()
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def generator_for(seed: int, part: str) -> torch.Generator:
    """One independent stream of random numbers for each part, so that parts can change separately."""
    digest = hashlib.sha256(f"{seed}:{part}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_state(shapes: dict[str, torch.Size], generator: torch.Generator, gain: float) -> State:
    """Matrices and kernels of `gain` times unit gain, biases and tables zero, norm weights one.

    Drawn in order of name: the order in which a module lists its parameters differs between versions.
    """
    state: State = {}
    for name in sorted(shapes):
        shape = shapes[name]
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "weight" and len(shape) == 1:
            state[name] = torch.ones(shape)
        elif leaf == "weight":
            fan_in = math.prod(shape[1:])
            state[name] = torch.randn(shape, generator=generator) * (gain / math.sqrt(fan_in))
        else:
            state[name] = torch.zeros(shape)
    return state
