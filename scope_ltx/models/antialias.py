"""The vocoder's 200 activations as one function that can be compiled.

An activation makes new high frequencies. BigVGAN's (arXiv:2206.04658) therefore doubles the rate, applies
x + sin^2(alpha x) / beta, and halves the rate again, each time through a Kaiser-windowed sinc of 12 taps.
diffusers runs the filters as grouped convolutions, which no library is good at: with padding, slicing and the
pointwise part they take 50 of the vocoder's 74 ms on an H200. Here the taps are sums of shifted signals in two
phases, even and odd samples, which a compiler fuses; launched one by one they would be slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

TAPS = 12
_HALF = TAPS // 2
REHEARSED_VALUES = 2**21

Activation: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def antialiased_snake(x: Tensor, up: Tensor, down: Tensor, alpha: Tensor, inverse_beta: Tensor) -> Tensor:
    """x (B, C, T); up and down (TAPS,) filters; alpha and inverse_beta (1, C, 1). Returns (B, C, T)."""
    length = x.shape[2]
    padded = functional.pad(x, (3, 3), mode="replicate")
    shifted = [padded[:, :, i : i + length] for i in range(_HALF + 1)]
    even = sum(shifted[j] * up[TAPS - 1 - 2 * j] for j in range(_HALF)) * 2
    odd = sum(shifted[j + 1] * up[TAPS - 2 - 2 * j] for j in range(_HALF)) * 2
    even, odd = (phase + inverse_beta * torch.sin(phase * alpha).square() for phase in (even, odd))
    # The doubled signal is held at its first and last value: an even and an odd sample.
    first, last = even[:, :, :1], odd[:, :, -1:]
    even = torch.cat([first, first, even, last, last, last], dim=2)
    odd = torch.cat([first, first, first, odd, last, last], dim=2)
    return cast(
        Tensor,
        sum(
            even[:, :, j : j + length] * down[2 * j + 1] + odd[:, :, j : j + length] * down[2 * j]
            for j in range(_HALF)
        ),
    )


class SwitchedActivation(nn.Module):
    """An activation of the vocoder that is either diffusers' own module or the function above, compiled."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.original = original
        self._call: Activation | None = None
        self._constants: tuple[Tensor, ...] = ()

    def use(self, call: Activation | None) -> None:
        """`call` from now on, or None: diffusers' module. The weights must be there, and stay as they are."""
        self._call = call
        self._constants = () if call is None else self.constants()

    def forward(self, x: Tensor) -> Tensor:
        if self._call is None:
            return cast(Tensor, self.original(x))
        return self._call(x.contiguous(), *self._constants)

    def rehearse(self, call: Activation) -> None:
        """Run `call` on a signal of this activation's channels, of 8 MB as in the widest layers: kernels are
        configured for what they see first."""
        constants = self.constants()
        channels = constants[2].shape[1]
        call(torch.zeros(1, channels, REHEARSED_VALUES // channels, device=constants[2].device), *constants)

    def constants(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The function's arguments after the signal."""
        snake = self.original.act
        alpha, beta = snake.alpha, snake.beta
        if snake.logscale:
            alpha, beta = alpha.exp(), beta.exp()
        up, down = self.original.upsample.filter, self.original.downsample.filter
        return up.flatten(), down.flatten(), alpha.view(1, -1, 1), (1 / (beta + snake.eps)).view(1, -1, 1)


def switchable_activations(vocoder: nn.Module) -> list[SwitchedActivation]:
    """Take over those activations of diffusers' LTX-2 vocoder that the function describes, in place."""
    taken: list[SwitchedActivation] = []
    for parent in list(vocoder.modules()):
        for name, child in parent.named_children():
            if _is_described(child) and not isinstance(parent, SwitchedActivation):
                switched = SwitchedActivation(child)
                setattr(parent, name, switched)
                taken.append(switched)
    return taken


def _is_described(module: Any) -> bool:
    if not all(hasattr(module, name) for name in ("upsample", "act", "downsample")):
        return False
    up, down, act = module.upsample, module.downsample, module.act
    return (
        (up.ratio, up.kernel_size, up.padding_mode) == (2, TAPS, "replicate")
        and (down.ratio, down.kernel_size, down.padding_mode, down.use_padding) == (2, TAPS, "replicate", True)
        and getattr(act, "use_beta", False)
    )
