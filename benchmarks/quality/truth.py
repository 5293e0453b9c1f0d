"""What a scene truly looks and sounds like, in the product's types: references, pins, tracks, and what to compare
with."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.quality.maker import Clip, Frames, Samples
from scope_ltx.config import LTX2Config
from training.world.guide import GuideKind, guide
from training.world.picture import render
from training.world.scene import Scene
from training.world.sound import SAMPLE_RATE, render_sound


def true_clip(scene: Scene, size: LTX2Config) -> Clip:
    return Clip(true_frames(scene, size), true_sound(scene, size.num_frames / size.frame_rate))


def true_frames(scene: Scene, size: LTX2Config) -> Frames:
    return as_bytes(render([scene], size.height, size.width, size.num_frames, size.frame_rate, "cpu")[0])


def true_sound(scene: Scene, seconds: float) -> Samples:
    sound: Samples = render_sound([scene], round(seconds * SAMPLE_RATE), 24.0, "cpu")[0].numpy()
    return sound


def guide_frames(scene: Scene, kind: GuideKind, size: LTX2Config) -> Frames:
    """A reference video of the scene, of the clip's size: the product makes it smaller where a LoRA wants that."""
    drawn = guide([scene], kind, size.height, size.width, size.num_frames, size.frame_rate, "cpu")
    return as_bytes(drawn[0])


def as_bytes(clip: Tensor) -> Frames:
    """(F, 3, H, W) in [-1, 1] -> (F, H, W, 3) uint8."""
    levels = clip.permute(0, 2, 3, 1).add(1.0).mul(127.5).round().clamp(0, 255)
    frames: Frames = levels.to(torch.uint8).contiguous().numpy()
    return frames
