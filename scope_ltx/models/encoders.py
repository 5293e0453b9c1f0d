"""Pixels and samples of a chunk's inputs -> tokens, each encoded once.

A pinned still and a voice stay the same for many chunks; what they were encoded to is kept by their content.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scope_ltx.control.frames import FrameFunction, resize
from scope_ltx.inputs import Pixels, Samples
from scope_ltx.mode_parameters import ControlGroup
from scope_ltx.models.audio_encoder import AudioEncoder
from scope_ltx.models.components import Components
from scope_ltx.models.video_encoder import VideoEncoder

KEPT = 16
"""Encoded stills and voices: 61 kB each at the default size."""


class InputEncoder:
    """Encodes on the model's device. `control` gives the function that draws a control group; it may load a model,
    and is asked whenever another group is drawn than before."""

    def __init__(self, components: Components, control: Callable[[ControlGroup], FrameFunction]) -> None:
        self._device = components.device
        self._video = VideoEncoder(components.video_vae)
        self._audio = AudioEncoder(components.audio_vae)
        self._control = control
        self._drawn: tuple[ControlGroup, FrameFunction] | None = None
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def still(self, pixels: Pixels, height: int, width: int) -> Tensor:
        """(H, W, 3) uint8 -> (1, tokens, 128) at `height` x `width`."""
        key = _key(pixels, height, width)
        return self._once(key, lambda: self.clip(pixels[None], height, width))

    def clip(self, frames: Pixels, height: int, width: int) -> Tensor:
        """(F, H, W, 3) uint8 -> (1, tokens, 128) at `height` x `width`."""
        return self._video.encode(resize(self._on_device(frames), height, width))

    def guide(self, frames: Pixels, group: ControlGroup, height: int, width: int) -> tuple[Tensor, int]:
        """A reference clip's tokens at `height` x `width`, and its number of frames; its control signal is drawn
        at the frames' own size. Raises CheckpointError when the control group's model is not there."""
        if self._drawn is None or self._drawn[0] != group:
            self._drawn = None  # before the next: two control models need not be on the device at once
            self._drawn = group, self._control(group)
        drawn = self._drawn[1](self._on_device(frames))
        return self._video.encode(resize(drawn, height, width)), len(drawn)

    def voice(self, samples: Samples) -> Tensor:
        """(2, N) at 16 kHz -> (1, tokens, 128)."""
        return self._once(_key(samples), lambda: self.sound(samples))

    def sound(self, samples: Samples) -> Tensor:
        """(2, N) at 16 kHz -> (1, tokens, 128)."""
        return self._audio.encode(torch.from_numpy(np.ascontiguousarray(samples)))

    def _on_device(self, frames: Pixels) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(frames)).to(self._device)

    def _once(self, key: bytes, encode: Callable[[], Tensor]) -> Tensor:
        if key not in self._kept:
            self._kept[key] = encode()
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _key(values: np.ndarray[Any, Any], *more: int) -> bytes:
    digest = hashlib.sha256(np.ascontiguousarray(values).data)
    digest.update(repr((values.shape, values.dtype.str, more)).encode())
    return digest.digest()
