"""Clips to train the video VAE on: drawn once, kept as bytes on the device, and replaced one by one.

Drawing takes longer than a step of training, and crops and mirror images make many examples of one clip.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.world.guide import GuideKind, guide
from training.world.motion import track
from training.world.picture import render
from training.world.scene import Scene, recoloured, sample_scene

FPS = 24.0
CHUNK_S = 5.375

_GUIDES: tuple[GuideKind, ...] = ("outline", "grey", "camera", "canny")
_GUIDE_SHARE = 0.12
"""Control videos go through the encoder too."""
_RECOLOURED_SHARE = 0.3
_STRIPED_SHARE, _CHIME_SHARE = 0.06, 0.06
"""Only LoRAs draw these, but the decoder must be able to."""
_ON_OBJECT_SHARE = 0.75
"""Of the crops; the rest lies anywhere."""


GROUP = 4
"""Clips that are drawn together."""


@dataclass(frozen=True)
class ClipSize:
    frames: int
    height: int
    width: int


def varied_scene(rng: random.Random) -> Scene:
    """A scene of the training split, with more of what is hard to draw than captions ask for."""
    scene = sample_scene(rng, split="train", two_objects=0.35, moving_camera=0.15, outline=0.15)
    if rng.random() < _RECOLOURED_SHARE:
        scene = recoloured(scene, rng)
    if rng.random() < _STRIPED_SHARE:
        scene = replace(scene, style="striped")
    if rng.random() < _CHIME_SHARE:
        scene = replace(scene, effect="chime")
    return scene


class VideoBank:
    """`count` clips of one size, a multiple of 4. They are drawn in groups of four, each from a seed of its own
    and in place of the oldest, so that `groups`, how many were drawn so far, says all about the bank.
    """

    def __init__(self, count: int, size: ClipSize, device: torch.device, seed: int, groups: int = 0) -> None:
        if count % GROUP:
            raise ValueError(f"a bank holds clips in groups of {GROUP}, got {count}; round it to a multiple")
        self._size, self._seed, self._device = size, seed, device
        self._clips = torch.empty(
            (count, size.frames, 3, size.height, size.width), dtype=torch.uint8, device=device
        )
        self._centres: list[tuple[float, float]] = [(0.5, 0.5)] * count
        self.groups = max(0, groups - count // GROUP)
        while self.groups < max(groups, count // GROUP):
            self.refresh()

    def refresh(self) -> None:
        """Four new clips in place of the oldest."""
        first = self.groups * GROUP % len(self._clips)
        self._draw(range(first, first + GROUP), random.Random(f"{self._seed} {self._size} {self.groups}"))
        self.groups += 1

    def sample(self, count: int, frames: int, side: int, rng: random.Random) -> Tensor:
        """(count, 3, frames, side, side) float32 in [-1, 1]; crops lie anywhere, most near an object."""
        crops = torch.stack([self._crop(frames, side, rng) for _ in range(count)])
        return crops.float().div_(127.5).sub_(1.0).transpose(1, 2)

    def _crop(self, frames: int, side: int, rng: random.Random) -> Tensor:
        size = self._size
        index = rng.randrange(len(self._clips))
        first = rng.randint(0, size.frames - frames)
        x, y = rng.random(), rng.random()
        if rng.random() < _ON_OBJECT_SHARE:
            x, y = self._centres[index]
        top = _start(y * size.height + rng.uniform(-0.4, 0.4) * side, side, size.height)
        left = _start(x * size.width + rng.uniform(-0.4, 0.4) * side, side, size.width)
        crop = self._clips[index, first : first + frames, :, top : top + side, left : left + side]
        return crop.flip(3) if rng.random() < 0.5 else crop

    def _draw(self, places: range, rng: random.Random) -> None:
        size = self._size
        scenes = [varied_scene(rng) for _ in places]
        start_s = rng.uniform(0.0, max(0.0, CHUNK_S - size.frames / FPS))
        if rng.random() < _GUIDE_SHARE:
            kind = rng.choice(_GUIDES)
            scenes = [replace(scene, effect="none") for scene in scenes]
            clips = guide(scenes, kind, size.height, size.width, size.frames, FPS, self._device, start_s=start_s)
        else:
            clips = render(scenes, size.height, size.width, size.frames, FPS, self._device, start_s=start_s)
        bytes_ = clips.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        middle = np.array([start_s + 0.5 * size.frames / FPS])
        for place, scene, clip in zip(places, scenes, bytes_, strict=True):
            self._clips[place] = clip
            one = track(scene, rng.randrange(len(scene.objects)), middle)
            self._centres[place] = (float(one.x[0]), float(one.y[0]))


def _start(centre: float, side: int, length: int) -> int:
    return min(max(round(centre) - side // 2, 0), length - side)
