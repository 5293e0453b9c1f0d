"""float32 masters of a module's weights, stacked by shape, with their optimizer.

The module computes in bfloat16. A step begins with `place`, which copies the masters into it, those that are
published in FP8 rounded as FP8 rounds them, and ends with `update`. Stacking turns thousands of small kernels
into a few dozen, and nothing waits for the host, so that a whole step fits into one CUDA graph.

Matrices inside blocks go by Muon (K. Jordan and others, 2024: momentum, made orthogonal by five Newton-Schulz
iterations), everything else by AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scope_quant.fp8 import FP8_DTYPE, FP8_MAX

MUON_RATE = 0.015
ADAM_RATE = 1.5e-3

_MOMENTUM = 0.95
_BETAS = (0.9, 0.98)
_EPS = 1e-8
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)

Chooses = Callable[[str, Tensor], bool]


@dataclass
class _Group:
    """Weights of one shape: (n, *shape) each, views of which line up with `parameters`."""

    names: list[str]
    parameters: list[nn.Parameter]
    by_muon: bool
    as_fp8: bool

    def __post_init__(self) -> None:
        self.master = torch.stack([parameter.detach().float() for parameter in self.parameters])
        self.gradient = torch.zeros_like(self.master)
        self.momentum = torch.zeros_like(self.master)
        self.variance = None if self.by_muon else torch.zeros_like(self.master)
        self.mean = self.master.clone()
        self.gradients = list(self.gradient.unbind(0))


class Masters:
    """Weights `named` of a module. muon, fp8: which of them, by name and shape, see above.

    adam_rate: of those that go by AdamW. mean_decay: of the running mean per step, which is what is kept.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        *,
        muon: Chooses,
        fp8: Chooses,
        adam_rate: float = ADAM_RATE,
        mean_decay: float = 0.999,
    ) -> None:
        kinds: dict[tuple[torch.Size, bool, bool], list[str]] = defaultdict(list)
        for name, parameter in named.items():
            kinds[parameter.shape, muon(name, parameter), fp8(name, parameter)].append(name)
        self.groups = [
            _Group(names, [named[name] for name in names], by_muon, as_fp8)
            for (_, by_muon, as_fp8), names in kinds.items()
        ]
        self.mean_decay, self._adam_rate = mean_decay, adam_rate
        device = self.groups[0].master.device
        self.rate = torch.zeros((), device=device)
        """Share of the two rates, set before a step: warm-up and decay."""
        self.rounding = torch.zeros((), device=device)
        """1 to compute with weights as FP8 rounds them, 0 not to."""
        self._count = torch.zeros((), device=device)

    @torch.no_grad()
    def place(self) -> None:
        """Masters into the module. Gradients then belong to the rounded weights and are used as the masters'."""
        for group in self.groups:
            values = group.master
            if group.as_fp8:
                values = values.lerp(round_to_fp8(values), self.rounding)
            torch._foreach_copy_([parameter.data for parameter in group.parameters], list(values.unbind(0)))

    @torch.no_grad()
    def update(self) -> None:
        """One step along the module's gradients, which are dropped. Raises RuntimeError where one is missing."""
        self._count += 1
        for group in self.groups:
            self._collect(group)
            if group.variance is None:
                self._muon(group)
            else:
                self._adam(group, group.variance)
        means = [group.mean for group in self.groups]
        share = 1.0 - torch.minimum(
            self._count / (self._count + 10.0), torch.full_like(self._count, self.mean_decay)
        )
        for mean, group in zip(means, self.groups, strict=True):
            mean.add_((group.master - mean) * share)

    def _collect(self, group: _Group) -> None:
        gradients = []
        for name, parameter in zip(group.names, group.parameters, strict=True):
            if parameter.grad is None:
                raise RuntimeError(f"{name} has no gradient: it takes no part in the loss")
            gradients.append(parameter.grad)
            parameter.grad = None
        torch._foreach_copy_(group.gradients, gradients)

    def _muon(self, group: _Group) -> None:
        group.momentum.lerp_(group.gradient, 1.0 - _MOMENTUM)
        ahead = group.gradient.lerp(group.momentum, _MOMENTUM)
        rows, columns = ahead.shape[-2:]
        group.master.sub_(orthogonal(ahead) * (self.rate * (MUON_RATE * max(1.0, rows / columns) ** 0.5)))

    def _adam(self, group: _Group, variance: Tensor) -> None:
        group.momentum.lerp_(group.gradient, 1.0 - _BETAS[0])
        variance.lerp_(group.gradient.square(), 1.0 - _BETAS[1])
        size = variance.div(1.0 - _BETAS[1] ** self._count).sqrt_().add_(_EPS)
        step = group.momentum / size
        group.master.sub_(step * (self.rate * self._adam_rate / (1.0 - _BETAS[0] ** self._count)))

    def mean(self) -> dict[str, Tensor]:
        """The running means by name, in bfloat16: what is published, and what a stage goes on from."""
        return {
            name: value.bfloat16().clone()
            for group in self.groups
            for name, value in zip(group.names, group.mean, strict=True)
        }

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "count": self._count,
            "groups": [[group.master, group.momentum, group.mean, group.variance] for group in self.groups],
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """From `state` of the same weights."""
        self._count.copy_(state["count"])
        for group, values in zip(self.groups, state["groups"], strict=True):
            places = (group.master, group.momentum, group.mean, group.variance)
            for place, value in zip(places, values, strict=True):
                if place is not None:
                    place.copy_(value)
        self.place()

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Masters and running means from values by name."""
        for group in self.groups:
            for place, name in enumerate(group.names):
                group.master[place].copy_(values[name])
            group.mean.copy_(group.master)
        self.place()


def round_to_fp8(stack: Tensor) -> Tensor:
    """(n, rows, columns): each matrix as FP8 with a scale of its own gives it back."""
    scale = stack.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12) / FP8_MAX
    return (stack / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8_DTYPE).float() * scale


def orthogonal(stack: Tensor) -> Tensor:
    """(n, rows, columns): the nearest matrices with singular values of about 1."""
    a, b, c = _NEWTON_SCHULZ
    wide = stack.shape[-2] <= stack.shape[-1]
    x = (stack if wide else stack.mT).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = (x if wide else x.mT).float()
    return result
