"""AdamW, and Muon for chosen weights, with a warm-up and a decay by progress, and a running mean of the weights,
which is what is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from training.masters import orthogonal

_CLIP = 1.0
_MOMENTUM = 0.95
_MUON_SHARE = 4.0
"""Muon's rate, in units of AdamW's."""


class Trainer:
    """Steps a module towards smaller losses: `prepare` decides the rates, `step` only computes on the device, so
    that it can be part of a CUDA graph.

    rate: highest learning rate. warm_up: steps to reach it. decay_from: progress from which it falls linearly to
    a hundredth. mean_decay: of the running mean per step; the mean is short at the start, while weights move fast.
    muon: those of the trained parameters, matrices or convolutions, that go by Muon (K. Jordan and others, 2024),
    a kernel as one matrix with a row for each of its first channels.
    """

    def __init__(
        self,
        module: nn.Module,
        rate: float,
        *,
        warm_up: int = 200,
        decay_from: float = 0.35,
        mean_decay: float = 0.999,
        trained: Iterable[nn.Parameter] | None = None,
        muon: Iterable[nn.Parameter] = (),
    ) -> None:
        self.module = module
        self.parameters = [p for p in (module.parameters() if trained is None else trained) if p.requires_grad]
        device = self.parameters[0].device
        on_gpu = device.type == "cuda"
        self._rate_now = torch.zeros((), device=device)
        self._mean_share = torch.ones((), device=device)
        self._by_muon = list(muon)
        self._momentum = [torch.zeros_like(p) for p in self._by_muon]
        chosen = {id(p) for p in self._by_muon}
        self.optimizer = torch.optim.AdamW(
            [p for p in self.parameters if id(p) not in chosen],
            lr=self._rate_now,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=on_gpu,
            capturable=on_gpu,
        )
        self.mean = [p.detach().clone() for p in self.parameters]
        self.rate, self.warm_up, self.decay_from, self.mean_decay = rate, warm_up, decay_from, mean_decay

    def rate_at(self, step: int, progress: float) -> float:
        left = min(1.0, (1.0 - progress) / (1.0 - self.decay_from))
        return self.rate * min(1.0, (step + 1) / self.warm_up) * max(0.01, left)

    def prepare(self, step: int, progress: float) -> None:
        self._rate_now.fill_(self.rate_at(step, progress))
        self._mean_share.fill_(1.0 - min(self.mean_decay, (step + 1) / (step + 10)))

    def step(self, loss: Tensor) -> Tensor:
        """One update; returns the gradient's norm before clipping."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, _CLIP)
        self.optimizer.step()
        with torch.no_grad():
            self._muon_step()
            weights: list[Tensor] = [parameter.detach() for parameter in self.parameters]
            moved = torch._foreach_sub(weights, self.mean)
            torch._foreach_mul_(moved, self._mean_share)
            torch._foreach_add_(self.mean, moved)
        return norm.detach()

    def _muon_step(self) -> None:
        for weight, momentum in zip(self._by_muon, self._momentum, strict=True):
            assert weight.grad is not None
            momentum.lerp_(weight.grad, 1.0 - _MOMENTUM)
            matrix = weight.grad.lerp(momentum, _MOMENTUM).flatten(1)
            rows, columns = matrix.shape
            size = _MUON_SHARE * max(1.0, rows / columns) ** 0.5
            weight.sub_(orthogonal(matrix[None])[0].view_as(weight) * (self._rate_now * size))

    def state(self) -> dict[str, Any]:
        return {
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "momentum": self._momentum,
            "mean": self.mean,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate_now
        self._momentum = list(state["momentum"])
        self.mean = list(state["mean"])

    @torch.no_grad()
    def use_mean(self) -> None:
        """Put the mean in place of the last weights: at the end of a stage."""
        for parameter, mean in zip(self.parameters, self.mean, strict=True):
            parameter.copy_(mean)
