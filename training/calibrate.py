"""How the transformer's weights go to FP8: with what their layers see on the way from noise to a clip in mind.

With every weight at its nearest value the velocities were off by 3 to 5 % of their size, like this by half as much
(`scope_quant.rounding`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from scope_ltx.models.small.published import Quantizes
from scope_quant.rounding import quantize_for_inputs
from training.bank import SIZES, Bank
from training.conditions import Conditioner
from training.distill import load_model
from training.joint import JointModel, Places
from training.text import CaptionEncoder
from training.transformer import as_fp8, places_of
from training.walk import STEPS, Walk, ends_of, velocities_of

WALKS = 2
"""Every sample of the batch goes all 8 steps so many times."""
BATCH = 12


def calibrated(weights: Path, bank: Path, seed: int, device: torch.device, batch: int = BATCH) -> Quantizes:
    """For the transformer in a file of `save_weights`, on the short clips of a bank. Raises ValueError for a bank
    without any."""
    clips = Bank(bank, "base", "small", device)
    if not clips.pick_up() or clips.clips is None:
        raise ValueError(f"{bank} has no short clips of the base model: draw some with training.bank")
    model = load_model(weights, seed, device, compiled=False).requires_grad_(False)
    empty = CaptionEncoder(device).features([""])
    generator = torch.Generator(device).manual_seed(seed)
    walk = Walk(Conditioner(clips.clips, batch, empty, generator), device)
    moments = input_moments(model, walk, places_of(model, SIZES["small"]), STEPS * WALKS)
    return lambda name, weight: quantize_for_inputs(weight, moments[name].to(weight.device))


@torch.no_grad()
def input_moments(model: JointModel, walk: Walk, places: Places, steps: int) -> dict[str, Tensor]:
    """Sums of x^T x (in, in) over the inputs x of each layer that is published in FP8, by its weight's name in the
    transformer, on so many steps of a walk."""
    moments: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(_adding(moments, f"{name.removeprefix('transformer.')}.weight"))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and as_fp8(f"{name}.weight", module.weight)
    ]
    try:
        for _ in range(steps):
            now = walk.now()
            made = velocities_of(model, now, places, model.contexts(now["features"], now["lengths"]))
            walk.advance(*ends_of(now, made))
    finally:
        for hook in hooks:
            hook.remove()
    return moments


def _adding(moments: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].flatten(0, -2).float()
        squares = rows.T @ rows
        moments[name] = moments[name] + squares if name in moments else squares

    return add
