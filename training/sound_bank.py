"""The world's sounds on the device: made once at both rates, with the spectrograms that the audio VAE sees."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from scope_ltx.models.mel import SMALLEST_MAGNITUDE, LogMel
from scope_ltx.sound_in.lengths import HOP_SAMPLES, MODEL_RATE, OUTPUT_RATE
from scope_ltx.sound_in.resample import TO_MODEL
from training.world.scene import sample_scene
from training.world.sound import render_sound

FPS = 24.0
CLIP_FRAMES = 536
"""Mel frames of a clip: 5.36 s."""
_RATIO = OUTPUT_RATE // MODEL_RATE

_CHIME_SHARE, _SPEAKER_SHARE = 0.08, 0.45
_QUIETER_SHARE, _QUIETEST, _LOUDEST = 0.3, 0.15, 1.4
"""Sounds that come from outside are not all as loud as the world's."""
_STEREO_SHARE = 0.2
"""The world's two channels are alike; these get a loudness each."""


@dataclass(frozen=True)
class Sounds:
    """mel: (B, 2, T, 64) log-mels. low, high: (B, 2, 160 T) at 16 kHz, (B, 2, 480 T) at 48 kHz, from the first
    mel frame's centre on."""

    mel: Tensor
    low: Tensor
    high: Tensor


def to_model_rate(samples: Tensor) -> Tensor:
    """(B, N) at 48 kHz -> (B, N / 3) at 16 kHz, by the filter of `scope_ltx.sound_in.resample`, on any device."""
    kernel = _impulse_response().to(samples)
    return functional.conv1d(samples[:, None], kernel[None, None], stride=_RATIO, padding=len(kernel) // 2)[:, 0]


def _impulse_response() -> Tensor:
    """One tap in three of the product's filter is seen at each place of an impulse."""
    reach = TO_MODEL.margin
    taps = torch.zeros(2 * reach + 1)
    for place in range(_RATIO):
        impulse = torch.zeros(1, 8 * reach)
        middle = 4 * reach // _RATIO * _RATIO + place
        impulse[0, middle] = 1.0
        seen = torch.from_numpy(TO_MODEL.whole(impulse.numpy()))[0]
        for index in torch.nonzero(seen).flatten().tolist():
            # Result `index` lies on sample 3 index: the impulse is that far from it.
            taps[reach + middle - _RATIO * index] = seen[index]
    return taps


class SoundBank:
    """`count` clips of 5.36 s, the same for the same seed."""

    def __init__(self, count: int, device: torch.device, seed: int) -> None:
        self._device = device
        rng = random.Random(f"{seed} sounds")
        shape = (count, CLIP_FRAMES * HOP_SAMPLES)
        self._high = torch.empty(count, shape[1] * _RATIO, device=device)
        self._low = torch.empty(shape, device=device)
        self._mel = torch.empty(count, CLIP_FRAMES, 64, device=device)
        log_mel = LogMel(device)
        for first in range(0, count, 16):
            part = slice(first, min(first + 16, count))
            self._high[part] = self._render(part.stop - first, rng)
            self._low[part] = to_model_rate(self._high[part])
            # One frame more than the hops: the last one lies on the clip's end.
            self._mel[part] = log_mel(self._low[part])[:, :CLIP_FRAMES]

    def _render(self, count: int, rng: random.Random) -> Tensor:
        scenes = [sample_scene(rng, split="train", speaker=_SPEAKER_SHARE) for _ in range(count)]
        scenes = [replace(one, effect="chime") if rng.random() < _CHIME_SHARE else one for one in scenes]
        start_s = rng.randrange(600) / 100.0
        return render_sound(scenes, self._high.shape[1], FPS, self._device, start_s=start_s)[:, 0]

    def sample(self, count: int, frames: int, rng: random.Random) -> Sounds:
        """Random stretches of `frames` mel frames, some louder, quieter or not alike on both sides."""
        places = [(rng.randrange(len(self._mel)), rng.randint(0, CLIP_FRAMES - frames)) for _ in range(count)]
        index, first = torch.tensor(places, device=self._device).T[..., None]
        gains = torch.tensor([_gains(rng) for _ in range(count)], device=self._device)[..., None]
        heard = self._mel[index, first + torch.arange(frames, device=self._device)]
        mel = (heard[:, None] + gains.log()[..., None]).clamp(min=math.log(SMALLEST_MAGNITUDE))
        low, high = (
            clips[index, first * hop + torch.arange(frames * hop, device=self._device)][:, None] * gains
            for clips, hop in ((self._low, HOP_SAMPLES), (self._high, HOP_SAMPLES * _RATIO))
        )
        return Sounds(mel, low, high)


def _gains(rng: random.Random) -> tuple[float, float]:
    """Of the left and the right channel."""
    quieter = rng.random() < _QUIETER_SHARE
    left = math.exp(rng.uniform(math.log(_QUIETEST), math.log(_LOUDEST))) if quieter else 1.0
    right = left * math.exp(rng.uniform(-1.5, 0.0)) if rng.random() < _STEREO_SHARE else left
    return (left, right) if rng.random() < 0.5 else (right, left)


def window_frames(latents: int) -> int:
    """Mel frames that so many latents are decoded to: the first stands for one, each later one for four."""
    return 4 * latents - 3
