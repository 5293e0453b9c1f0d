"""A scene: everything that decides a clip, drawn from a seeded generator.

A caption fixes all but position, phase and 5 % of size: few denoising steps suffice because little is left open.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Literal

from training.world.words import (
    BACKGROUNDS,
    CAMERA_MOTIONS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    PAIR_MOTIONS,
    RGB,
    SHAPES,
    SIZES,
    SPEAKERS,
)

Split = Literal["train", "held"]

HELD_PAIRS = frozenset({("orange", "circle"), ("purple", "square"), ("cyan", "triangle"), ("red", "star")})
"""Never seen in training, in any motion: one colour of each shape."""

_HELD_TRIPLES_PERCENT = 10


@dataclass(frozen=True)
class Object:
    """x, y: centre at time 0 as fractions of width and height, from the top left (for a bounce: its lowest
    point, for an orbit: its middle). phase: 0..1 of the motion's period. scale: on the size that is named.
    rgb: instead of the named colour."""

    shape: str
    colour: str
    size: str
    motion: str
    x: float
    y: float
    phase: float = 0.0
    scale: float = 1.0
    rgb: RGB | None = None


@dataclass(frozen=True)
class Scene:
    """One or two objects, the first above the second. speaker: whose voice hums the tone, None for a plain one.
    effect, style: also those that only a LoRA draws (`words.EFFECTS`, `words.ADDED_STYLES`)."""

    objects: tuple[Object, ...]
    background: str
    camera: str = "static"
    style: str = "flat"
    speaker: str | None = None
    effect: str = "none"
    seed: int = 0
    background_rgb: RGB | None = None


def is_held(colour: str, shape: str, motion: str) -> bool:
    """Whether an object is kept for evaluation: by its pair, or a tenth of the triples by a stable hash."""
    if (colour, shape) in HELD_PAIRS:
        return True
    digest = hashlib.sha256(f"{colour} {shape} {motion}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < _HELD_TRIPLES_PERCENT


def sample_scene(
    rng: random.Random,
    *,
    split: Split,
    two_objects: float = 0.3,
    moving_camera: float = 0.08,
    outline: float = 0.12,
    speaker: float = 0.15,
) -> Scene:
    """A scene of the split. The last four are probabilities.

    `train`: no object is held out. `held`: the first object is, by its pair and by its triple equally often.
    """
    seed = rng.getrandbits(32)
    camera = rng.choice(CAMERAS[1:]) if rng.random() < moving_camera else "static"
    count = 2 if rng.random() < two_objects and camera == "static" else 1
    motions = CAMERA_MOTIONS if camera != "static" else PAIR_MOTIONS if count == 2 else MOTIONS
    by_pair = rng.random() < 0.5
    kinds = [_kind(rng, motions, split, by_pair)]
    while len(kinds) < count:
        second = _kind(rng, motions, "train" if split == "train" else "any", by_pair)
        # Two objects of one colour would be one to the detectors.
        if second[0] != kinds[0][0]:
            kinds.append(second)
    lanes = [None] if count == 1 else [0, 1]
    objects = tuple(_placed(rng, kind, lane, camera) for kind, lane in zip(kinds, lanes, strict=True))
    return Scene(
        objects,
        rng.choice(list(BACKGROUNDS)),
        camera,
        "outline" if rng.random() < outline else "flat",
        rng.choice(SPEAKERS) if rng.random() < speaker else None,
        seed=seed,
    )


def recoloured(scene: Scene, rng: random.Random) -> Scene:
    """The same scene in arbitrary colours, far enough apart to be seen: for training the video VAE."""
    background = _any_rgb(rng)
    objects = []
    for thing in scene.objects:
        rgb = _any_rgb(rng)
        while sum(abs(a - b) for a, b in zip(rgb, background, strict=True)) < 120:
            rgb = _any_rgb(rng)
        objects.append(replace(thing, rgb=rgb))
    return replace(scene, objects=tuple(objects), background_rgb=background)


def _any_rgb(rng: random.Random) -> RGB:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _kind(
    rng: random.Random, motions: tuple[str, ...], split: Split | Literal["any"], by_pair: bool
) -> tuple[str, str, str]:
    """(colour, shape, motion), by rejection: at worst one in ten is accepted."""
    while True:
        kind = rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(motions)
        if split == "held" and by_pair != (kind[:2] in HELD_PAIRS):
            continue
        if split == "any" or is_held(*kind) == (split == "held"):
            return kind


def _placed(rng: random.Random, kind: tuple[str, str, str], lane: int | None, camera: str) -> Object:
    """Positions for which nothing leaves the frame in the default chunk of 5.4 s."""
    colour, shape, motion = kind
    size = rng.choice(list(SIZES))
    x = rng.uniform(0.3, 0.7)
    y = rng.uniform(0.35, 0.65) if lane is None else (0.25, 0.75)[lane] + rng.uniform(-0.02, 0.02)
    if motion in {"slides right", "slides left"}:
        x = rng.uniform(0.3, 0.33)
        x = x if motion == "slides right" else 1.0 - x
    elif motion in {"moves up", "moves down"}:
        y = rng.uniform(0.71, 0.74)
        y = y if motion == "moves up" else 1.0 - y
    elif motion == "bounces steadily":
        y = rng.uniform(0.66, 0.72) if lane is None else (0.36, 0.83)[lane]
    elif motion == "circles around":
        x = rng.uniform(0.44, 0.56)
        y = rng.uniform(0.45, 0.55) if lane is None else y
    elif motion in {"grows slowly", "shrinks slowly"}:
        x = rng.uniform(0.43, 0.57)
        y = rng.uniform(0.44, 0.56) if lane is None else y
    if camera == "pans left":
        x = rng.uniform(0.32, 0.36)
    elif camera == "pans right":
        x = rng.uniform(0.64, 0.68)
    elif camera != "static":
        x, y = rng.uniform(0.47, 0.53), rng.uniform(0.47, 0.53)
    return Object(shape, colour, size, motion, x, y, rng.random(), rng.uniform(0.95, 1.05))
