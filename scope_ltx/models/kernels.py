"""What a device does to run kernels fast: capture and replay them, compile what many small ones make up."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from scope_ltx.engine import Acceleration
from scope_ltx.models.antialias import Activation, antialiased_snake
from scope_ltx.sampling.workspace import CallBlock, call_block
from scope_streaming.weights.background import Background
from scope_streaming.weights.compiled import CompiledForms, Forms, PlainForm, inductor
from scope_streaming.weights.graphs import BlockRunner, EagerRunner, GraphRunner


@dataclass(frozen=True)
class Kernels:
    """How kernels are run on a device: runners, one for each part that changes its sizes by itself, and the forms
    of the transformer's blocks and of the vocoder's activations."""

    new_runner: Callable[[], BlockRunner]
    blocks: Forms[CallBlock]
    activations: Forms[Activation]


def kernels_for(
    device: torch.device, acceleration: Acceleration, background: Background, decoding: Callable[[], bool]
) -> Kernels:
    """What `acceleration` means on `device`. Nothing is captured while `decoding` says that another thread is at
    work.

    Raises ValueError for an acceleration that the device does not have.
    """
    plain = PlainForm(call_block), PlainForm(antialiased_snake)
    if device.type != "cuda":
        if acceleration not in ("auto", "off"):
            raise ValueError(f"acceleration {acceleration!r} needs a CUDA device, not {device.type}: use 'off'")
        return Kernels(EagerRunner, *plain)
    if acceleration == "off":
        return Kernels(EagerRunner, *plain)
    can_compile = importlib.util.find_spec("triton") is not None
    if acceleration == "compile" and not can_compile:
        raise ValueError("acceleration 'compile' needs the triton package: install it, or use 'graphs'")
    if acceleration == "graphs" or not can_compile:
        return Kernels(partial(GraphRunner, device, lambda: not decoding()), *plain)
    blocks = CompiledForms(background, call_block, inductor)
    activations = CompiledForms(background, antialiased_snake, partial(inductor, dynamic=True))
    # What another thread compiles takes device memory and gives it back, which would spoil a capture.
    return Kernels(partial(GraphRunner, device, lambda: not (background.busy or decoding())), blocks, activations)
