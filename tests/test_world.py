"""The synthetic world: what is rendered is what the caption says, and the detectors read it back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.world.detect import listen, look, matched, pitch_follows
from training.world.grammar import caption, facts, parse, vocabulary
from training.world.picture import render
from training.world.scene import HELD_PAIRS, Scene, is_held, sample_scene
from training.world.sound import SAMPLE_RATE, events, render_sound

FPS = 24.0
FRAMES, SIZE = 129, (384, 320)
SECONDS = FRAMES / FPS
WITHIN_S = 2 / FPS


def scenes(count: int, **how: float) -> list[Scene]:
    rng = random.Random(7)
    return [sample_scene(rng, split="held", **how) for _ in range(count)]


def picture(scene: Scene) -> np.ndarray:
    """uint8 (F, H, W, 3)."""
    clip = render([scene], *SIZE, FRAMES, FPS, "cpu")[0]
    return ((clip.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()


def sound(scene: Scene, seconds: float) -> np.ndarray:
    return render_sound([scene], round(seconds * SAMPLE_RATE), FPS, "cpu")[0].numpy()


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_caption_and_its_paraphrases_say_what_the_scene_is(seed: int) -> None:
    rng = random.Random(seed)
    scene = sample_scene(rng, split="train")
    assert parse(caption(scene)) == facts(scene)
    words = caption(scene, rng)
    assert parse(words) == facts(scene)
    assert {word.strip(",") for word in words.split()} <= set(vocabulary())


@given(st.integers(0, 2**32))
def test_what_is_held_out_is_never_trained_on(seed: int) -> None:
    kinds = [
        (thing.colour, thing.shape, thing.motion)
        for thing in sample_scene(random.Random(seed), split="train").objects
    ]
    assert not any(is_held(*kind) or kind[:2] in HELD_PAIRS for kind in kinds)
    first = sample_scene(random.Random(seed), split="held").objects[0]
    assert is_held(first.colour, first.shape, first.motion)


def test_a_caption_without_a_motion_is_no_caption() -> None:
    with pytest.raises(ValueError, match="names none of slides right"):
        parse("a large red circle on a black background")


def test_the_same_scene_gives_the_same_bytes() -> None:
    (scene,) = scenes(1)
    assert torch.equal(*(render([scene], 64, 64, 9, FPS, "cpu") for _ in range(2)))
    assert np.array_equal(sound(scene, 0.5), sound(scene, 0.5))


@pytest.mark.parametrize("scene", scenes(8, two_objects=0.5, moving_camera=0.0), ids=caption)
def test_the_detectors_see_and_hear_what_was_rendered(scene: Scene) -> None:
    wanted = facts(scene)
    seen = look(picture(scene), FPS, len(scene.objects))
    assert [(one.colour, one.shape, one.motion) for one in seen.objects] == [
        (one.colour, one.shape, one.motion) for one in wanted.objects
    ]
    assert (seen.background, seen.camera) == (wanted.background, wanted.camera)
    heard = listen(sound(scene, SECONDS))
    told = events(scene, SECONDS)
    assert matched(heard.onsets, told, WITHIN_S) == len(told)
    assert heard.speaker == scene.speaker
    follows = pitch_follows(heard, seen.objects[0], FPS)
    assert follows is None or follows > 0.9


@pytest.mark.parametrize("scene", scenes(4, moving_camera=1.0), ids=caption)
def test_camera_moves_are_seen_apart_from_the_objects(scene: Scene) -> None:
    seen = look(picture(scene), FPS, len(scene.objects))
    assert seen.camera == scene.camera
    assert seen.objects[0].motion == scene.objects[0].motion
