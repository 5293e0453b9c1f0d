"""Reference videos for in-context LoRAs: what is left of a scene without colours, filling or objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from scope_ltx.control.canny import canny
from training.world.picture import render
from training.world.scene import Scene

GuideKind = Literal["outline", "grey", "camera", "canny"]


def guide(
    scenes: Sequence[Scene],
    kind: GuideKind,
    height: int,
    width: int,
    frames: int,
    fps: float,
    device: torch.device | str,
    *,
    start_s: float = 0.0,
) -> Tensor:
    """(B, F, 3, H, W) in [-1, 1], frame by frame the same time as `render` of the scenes.

    outline: white outlines of the objects on black, with the lines of a moving camera's ground. grey: the
    picture's luminance (BT.601). camera: the lines of the ground under the scene's camera, on gray, without
    objects. canny: edges as the product draws them from the picture's bytes. Raises ValueError for another kind.
    """

    def drawn(changed: Sequence[Scene]) -> Tensor:
        return render(changed, height, width, frames, fps, device, start_s=start_s)

    match kind:
        case "outline":
            return drawn([_line_drawing(scene) for scene in scenes])
        case "grey":
            weights = torch.tensor([0.299, 0.587, 0.114], device=device)
            picture = drawn(scenes)
            return torch.einsum("bfchw,c->bfhw", picture, weights)[:, :, None].expand_as(picture).contiguous()
        case "camera":
            return drawn([replace(scene, objects=(), background="gray", background_rgb=None) for scene in scenes])
        case "canny":
            return torch.stack([_edges(clip) for clip in drawn(scenes)])
        case _:
            raise ValueError(f"kind {kind!r} is none of outline, grey, camera, canny")


def _line_drawing(scene: Scene) -> Scene:
    objects = tuple(replace(thing, rgb=(255, 255, 255)) for thing in scene.objects)
    return replace(scene, objects=objects, background="black", background_rgb=(0, 0, 0), style="outline")


def _edges(clip: Tensor) -> Tensor:
    frames = clip.add(1.0).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return canny(frames).float().permute(0, 3, 1, 2).div(127.5).sub(1.0)
