"""Scenes as pictures: flat colours under antialiased signed distances, batched, on any device.

The same scenes give the same pixels; a clip that starts later continues an earlier one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from training.world.motion import camera_track, track
from training.world.scene import Scene
from training.world.shapes import coverage, distance, outlined, striped
from training.world.words import BACKGROUNDS, COLOURS, RGB

_GROUP_PIXELS = 40_000_000
"""Scenes are drawn in groups of so many pixels: 160 MB for each intermediate value."""

_GRID = 0.25
"""Spacing of the lines that make a moving camera visible, in frame widths and heights."""
_GRID_WIDTH = 0.024
_GRID_CONTRAST = 0.3


def render(
    scenes: Sequence[Scene],
    height: int,
    width: int,
    frames: int,
    fps: float,
    device: torch.device | str,
    *,
    start_s: float = 0.0,
) -> Tensor:
    """Pictures (B, F, 3, H, W) in [-1, 1], float32, frame f at time start_s + f / fps."""
    seconds = start_s + np.arange(frames) / fps
    clips = torch.empty(len(scenes), frames, 3, height, width, device=device)
    per_group = max(1, _GROUP_PIXELS // (frames * height * width))
    for first in range(0, len(scenes), per_group):
        group = slice(first, first + per_group)
        _Canvas(clips[group], seconds).draw(scenes[group])
    return clips.clamp_(0.0, 1.0).mul_(2.0).sub_(1.0)


class _Canvas:
    """Draws a group of scenes into its part of the result, in 0..1."""

    def __init__(self, clips: Tensor, seconds: np.ndarray) -> None:
        self.clips = clips
        self.seconds = seconds
        height, width = clips.shape[-2:]
        self.side = float(min(height, width))
        self.size = (width, height)
        self.pixel_x = torch.arange(width, device=clips.device).add(0.5)
        self.pixel_y = torch.arange(height, device=clips.device).add(0.5)[:, None]

    def draw(self, scenes: Sequence[Scene]) -> None:
        ground = [scene.background_rgb or BACKGROUNDS[scene.background] for scene in scenes]
        self.clips.copy_(self._rgb(ground)[:, None, :, None, None].expand_as(self.clips))
        for scene, clip in zip(scenes, self.clips, strict=True):
            if scene.camera != "static":
                self._grid(scene, clip)
        for slot in range(max((len(scene.objects) for scene in scenes), default=0)):
            for shape, style, indices in _alike(scenes, slot):
                self._objects(scenes, slot, shape, style, indices)

    def _objects(self, scenes: Sequence[Scene], slot: int, shape: str, style: str, indices: list[int]) -> None:
        """One object of each of the scenes `indices`, all of one shape and style."""
        tracks = [track(scenes[index], slot, self.seconds) for index in indices]
        x = self._column([one.x for one in tracks]) * self.size[0]
        y = self._column([one.y for one in tracks]) * self.size[1]
        radius = self._column([one.radius for one in tracks]) * self.side
        visible = self._column([one.visible.astype(np.float64) for one in tracks])
        things = [scenes[index].objects[slot] for index in indices]
        rgb = self._rgb([thing.rgb or COLOURS[thing.colour] for thing in things])[:, None, :, None, None]
        down = self.pixel_y - y
        inside = distance(shape, self.pixel_x - x, down, radius)
        covered = coverage(outlined(inside, radius) if style == "outline" else inside) * visible
        if style == "striped":
            covered = covered * striped(down, radius)
        for place, index in enumerate(indices):
            self.clips[index].lerp_(rgb[place].expand_as(self.clips[index]), covered[place][:, None])

    def _grid(self, scene: Scene, clip: Tensor) -> None:
        camera = camera_track(scene.camera, self.seconds)
        zoom = self._column([camera.zoom])[0]
        shift = self._column([camera.shift])[0]
        width, height = self.size
        lines = torch.zeros(1, device=clip.device)
        for pixels, length, moved in ((self.pixel_x, width, shift), (self.pixel_y, height, 0.0)):
            world = (pixels / length - 0.5) / zoom - moved + _GRID / 2.0
            away = (torch.remainder(world + _GRID / 2.0, _GRID) - _GRID / 2.0).abs() * zoom * length
            lines = torch.maximum(lines, coverage(away - _GRID_WIDTH * 0.5 * self.side))
        ground = clip[0, :, 0, 0].clone()
        line = ground + _GRID_CONTRAST * (1.0 if float(ground.mean()) < 0.5 else -1.0)
        clip.copy_(torch.lerp(ground[:, None, None], line[:, None, None], lines[:, None]))

    def _column(self, rows: list[np.ndarray]) -> Tensor:
        """Rows (F,) as (rows, F, 1, 1) on the device."""
        return torch.from_numpy(np.stack(rows).astype(np.float32)).to(self.clips.device)[..., None, None]

    def _rgb(self, colours: list[RGB]) -> Tensor:
        return torch.tensor(colours, dtype=torch.float32).div(255.0).to(self.clips.device)


def _alike(scenes: Sequence[Scene], slot: int) -> Iterator[tuple[str, str, list[int]]]:
    """Scenes whose object of that slot shares its shape and style."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        if slot < len(scene.objects):
            groups[scene.objects[slot].shape, scene.style].append(index)
    for (shape, style), indices in groups.items():
        yield shape, style, indices
