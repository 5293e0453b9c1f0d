"""Latents -> uint8 frames and 48 kHz samples.

Both decoders keep their input and output at fixed addresses per size, so that their kernels can be captured
and replayed: launched one by one, a third of a decode's time goes into launching, and ten times as much while
another thread keeps the interpreter busy.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scope_ltx.models.antialias import Activation, antialiased_snake, switchable_activations
from scope_streaming.weights.compiled import Forms, PlainForm
from scope_streaming.weights.graphs import BlockRunner

Grid = tuple[int, int, int]
"""Latent frames, height, width."""


@dataclass(frozen=True)
class Latents:
    """Denoised tokens of one chunk, float32: video (1, Tv, 128), audio (1, Ta, 128)."""

    video: Tensor
    audio: Tensor


class VideoDecoder:
    """Video tokens -> RGB frames."""

    def __init__(self, video_vae: nn.Module, runner: BlockRunner) -> None:
        self._vae: Any = video_vae
        self._places = _Places(runner)
        self.forget = self._places.forget
        self.replays = self._places.replays

    def decode(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(1, tokens, C) normalised latents of a grid (frames, height, width) -> (F, H, W, 3) uint8 on the same
        device, overwritten by the next decode."""
        return self._places.run(grid, tokens, partial(self._decode, grid))

    def _decode(self, grid: Grid, tokens: Tensor) -> Tensor:
        vae = self._vae
        latents = tokens.view(1, *grid, -1).permute(0, 4, 1, 2, 3)
        mean, std = (_per_channel(value, latents) for value in (vae.latents_mean, vae.latents_std))
        pixels: Tensor = vae.decode((latents * std + mean).to(vae.dtype), None, return_dict=False)[0]
        levels = pixels[0].float().add(1).mul_(127.5).round_().clamp_(0, 255)
        return levels.to(torch.uint8).permute(1, 2, 3, 0)


class AudioDecoder:
    """Audio tokens -> mel spectrogram -> waveform. The vocoder runs in float32 (its file says bfloat16, but
    that costs 40-90 % on spectral metrics: Lightricks/LTX-2, ltx-core vocoder.py)."""

    def __init__(
        self,
        audio_vae: nn.Module,
        vocoder: nn.Module,
        runner: BlockRunner,
        forms: Forms[Activation] | None = None,
    ) -> None:
        """Takes over the vocoder's activations, so that they can run in the form that `forms` decides."""
        self._vae: Any = audio_vae
        self._vocoder: Any = vocoder
        self._activations = switchable_activations(vocoder)
        self._forms: Forms[Activation] = PlainForm(antialiased_snake) if forms is None else forms
        self._form = "eager"
        self._places = _Places(runner)
        self.forget = self._places.forget
        self.replays = self._places.replays

    def settle(self) -> None:
        """Once before each decode, by the thread that owns the device: take the form that is ready by now."""
        form, call = self._forms.form("vocoder", lambda: self._rehearse)
        if form != self._form:
            self._form = form
            self.forget()
            for activation in self._activations:
                activation.use(call)

    def decode(self, tokens: Tensor) -> Tensor:
        """(1, L, 128) normalised latents -> (2, (4 L - 3) * 480) float32 in [-1, 1], overwritten by the next
        decode."""
        return self._places.run(tokens.shape[1], tokens, self._decode)

    def _decode(self, tokens: Tensor) -> Tensor:
        vae = self._vae
        latents = tokens * vae.latents_std.to(tokens) + vae.latents_mean.to(tokens)
        # A token is channel-major: 8 channels of 16 mel places.
        latents = latents.unflatten(2, (vae.config.latent_channels, -1)).transpose(1, 2)
        mel = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        waveform: Tensor = self._vocoder(mel.float())[0]
        return waveform

    def _rehearse(self, call: Activation) -> None:
        for activation in self._activations:
            activation.rehearse(call)


class _Places:
    """Input and output of the latest size. A change of size is rare; two sizes of output would be 100 MB."""

    def __init__(self, runner: BlockRunner) -> None:
        self._runner = runner
        self._key: Hashable = None
        self._tokens = self._output = torch.empty(0)

    def run(self, key: Hashable, tokens: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """`decode` of the tokens, in a place that the next run overwrites."""
        if key != self._key:
            self.forget()
            self._tokens = tokens.clone()
            self._output = decode(self._tokens).contiguous()
            self._key = key
            return self._output

        def launch() -> None:
            self._output.copy_(decode(self._tokens))

        self._tokens.copy_(tokens)
        self._runner.run(key, launch, warm=True)
        return self._output

    def replays(self, key: Hashable) -> bool:
        return key == self._key and self._runner.replays(key)

    def forget(self) -> None:
        """Give up the places and what was captured."""
        self._runner.forget()
        self._key = None
        self._tokens = self._output = torch.empty(0)


def _per_channel(value: Tensor, latents: Tensor) -> Tensor:
    return value.to(latents).view(1, -1, 1, 1, 1)
