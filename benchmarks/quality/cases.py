"""Held-out cases: a scene, the prompt that says it, and the seed of the noise. The same for the same row, always.

The first N of a longer list are those of a list of N.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.world.grammar import caption
from training.world.scene import Scene, sample_scene


@dataclass(frozen=True)
class Case:
    """seed: of the noise that the clip is made from."""

    scene: Scene
    prompt: str
    seed: int


def held_cases(
    row: str,
    count: int,
    *,
    wanted: Callable[[Scene], bool] = lambda _: True,
    name_speaker: bool = True,
    name_camera: bool = True,
    **chances: float,
) -> list[Case]:
    """`count` held-out scenes that are `wanted`, each with a paraphrase of its caption.

    chances: probabilities of `sample_scene` (two_objects, moving_camera, outline, speaker).
    """
    rng = random.Random(f"quality {row}")
    found: list[Case] = []
    while len(found) < count:
        scene = sample_scene(rng, split="held", **chances)
        prompt = caption(scene, rng, name_speaker=name_speaker, name_camera=name_camera)
        if wanted(scene):
            found.append(Case(scene, prompt, len(found)))
    return found


def another_scene(case: Case, **chances: float) -> Scene:
    """A scene that has nothing to do with the case's but that it always comes with it."""
    return sample_scene(random.Random(f"quality another {case.seed} {case.scene.seed}"), split="train", **chances)
