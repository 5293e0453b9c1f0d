"""Samples on their way from noise to a clip in the 8 published steps, as the product makes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scope_ltx.sampling.schedules import DISTILLED_SIGMAS
from training.conditions import Conditioner, Inputs, padded, token_shares
from training.joint import JointModel, Places

STEPS = len(DISTILLED_SIGMAS) - 1


class Walk:
    """A batch of samples on their way, each at a level of its own: places that are drawn anew when it arrives."""

    def __init__(self, conditioner: Conditioner, device: torch.device) -> None:
        self._conditioner = conditioner
        self._sigmas = torch.tensor(DISTILLED_SIGMAS, device=device)
        # Spread over the levels from the start: the first ones begin on the straight way from noise to a clip.
        self._step = torch.arange(conditioner.batch, device=device) % STEPS
        self.inputs: Inputs = _start(conditioner.draw(), self._sigmas[self._step])

    def now(self) -> Inputs:
        """The samples with the level they are at and the next."""
        self.inputs["sigma"] = self._sigmas[self._step]
        self.inputs["next_sigma"] = self._sigmas[self._step + 1]
        return self.inputs

    def advance(self, video: Tensor, audio: Tensor) -> None:
        """To what the student has made; those that have arrived begin anew with other clips and conditions."""
        self._step = self._step + 1
        arrived = self._step >= STEPS
        self._step = torch.where(arrived, 0, self._step)
        fresh = _start(self._conditioner.draw(), torch.ones_like(self._sigmas[self._step]))
        moved = dict(self.inputs) | {"video": video, "audio": audio}
        self.inputs = {
            name: torch.where(arrived.view(-1, *[1] * (value.ndim - 1)), fresh[name], value)
            for name, value in moved.items()
            if name in fresh
        }


def _start(drawn: Inputs, sigma: Tensor) -> Inputs:
    """At levels (B,): noise at 1, but where something is given."""
    inputs = dict(drawn)
    for name in ("video", "audio"):
        share = (token_shares(drawn, name) * sigma[:, None])[..., None]
        clean = drawn[f"clean_{name}"]
        inputs[name] = clean + (inputs.pop(f"noise_{name}") - clean) * share
    return inputs


def moved(
    latents: Tensor, velocity: Tensor, clean: Tensor, share: Tensor, sigma: Tensor, next_sigma: Tensor
) -> Tensor:
    """One Euler step as the product makes it (`scope_ltx.sampling.loop.euler_step`): latents, clean (B, T, C),
    share (B, T) of the noise level, sigma (B,)."""
    mask, level = share[..., None], sigma[:, None, None]
    denoised = latents - velocity * mask * level
    denoised = clean + (denoised - clean) * mask
    return latents + (denoised - latents) * ((level - next_sigma[:, None, None]) / level)


def moved_along(
    name: str, inputs: Mapping[str, Tensor], at: Tensor, velocity: Tensor, sigma: Tensor, to: Tensor
) -> Tensor:
    """One step of one modality, "video" or "audio", from `at`."""
    share = token_shares(dict(inputs), name)
    return moved(at, velocity, inputs[f"clean_{name}"], share, sigma, to)


def velocities_of(
    model: JointModel, inputs: Mapping[str, Tensor], places: Places, contexts: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Of samples on a walk, (B, Tv, 128) and (B, Ta, 128)."""
    ready = dict(inputs)
    ready["audio_sigma"] = inputs["sigma"] * (1.0 - inputs["driven"])
    for name in ("video", "audio"):
        ready[name] = padded(inputs[name])
    velocities: tuple[Tensor, Tensor] = model(ready, places, contexts)
    return velocities


def ends_of(inputs: Mapping[str, Tensor], velocities: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Where a step with those velocities leads: latents of picture and sound at `next_sigma`."""
    sigma, to = inputs["sigma"], inputs["next_sigma"]
    ends = []
    for name, velocity in zip(("video", "audio"), velocities, strict=True):
        at = inputs[name]
        ends.append(moved_along(name, inputs, at, velocity[..., : at.shape[-1]].detach().float(), sigma, to))
    return ends[0], ends[1]
