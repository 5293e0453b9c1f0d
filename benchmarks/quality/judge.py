"""Whether a clip is what its prompt says: marks for each object and for the clip, by the world's own detectors.

An object of the prompt is found by its colour; one that is not found has the wrong colour, and with it the wrong
shape, motion and style. A motion is right when the path is the asked one and no jumble of its places: an object
that jumps about is wrong, although its places alone would be a bounce's. Events and pitch belong to the first
object, which is the one that sounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.quality.maker import Clip
from training.world.detect import Heard, Seen, SeenObject, listen, look, matched, pitch_follows, seen_events
from training.world.grammar import ObjectFacts, facts
from training.world.scene import Scene

WITHIN_FRAMES = 2.0
"""A sound and an event of the picture this near are heard as one."""

_LARGEST_STEP = 0.07
"""From frame to frame, as a fraction of the frame: the fastest motion, a bounce at its lowest point, has 0.036."""
_STEADY_SHARE = 0.9
"""Of the steps that must be no larger: the detectors misplace an object now and then."""


@dataclass(frozen=True)
class ObjectMarks:
    """What was asked of one object, and what of that was right."""

    asked: ObjectFacts
    colour: bool
    shape: bool
    motion: bool
    style: bool


@dataclass(frozen=True)
class Marks:
    """order: the upper one's colour above the lower one's; None for one object. events: how many events the
    first object shows; heard: how many of those have an onset within two frames. onsets: how many there are,
    explained: how many of them lie at an event. pitch: correlation of pitch with the object's height, None where
    it keeps its height."""

    objects: tuple[ObjectMarks, ...]
    background: bool
    camera: bool
    order: bool | None
    speaker: bool
    events: int
    heard: int
    onsets: int
    explained: int
    pitch: float | None
    asked_camera: str
    asked_style: str
    asked_speaker: str | None


def judge_clip(scene: Scene, clip: Clip, fps: float) -> Marks:
    """Marks of a clip that should show and sound what the scene's caption says."""
    return marks_of(scene, look(clip.frames, fps, len(scene.objects)), listen(clip.samples), fps)


def marks_of(scene: Scene, seen: Seen, heard: Heard, fps: float) -> Marks:
    asked = facts(scene)
    by_colour = {one.colour: one for one in seen.objects}
    first = by_colour.get(asked.objects[0].colour)
    events = [] if first is None else seen_events(first, fps)
    within_s = WITHIN_FRAMES / fps
    colours = [one.colour for one in seen.objects]
    return Marks(
        objects=tuple(_object_marks(one, by_colour.get(one.colour), asked.style, fps) for one in asked.objects),
        background=seen.background == asked.background,
        camera=seen.camera == asked.camera,
        order=colours == [one.colour for one in asked.objects] if len(asked.objects) == 2 else None,
        speaker=heard.speaker == asked.speaker,
        events=len(events),
        heard=matched(heard.onsets, events, within_s),
        onsets=len(heard.onsets),
        explained=matched(events, heard.onsets, within_s),
        pitch=None if first is None else pitch_follows(heard, first, fps),
        asked_camera=asked.camera,
        asked_style=asked.style,
        asked_speaker=asked.speaker,
    )


def moves_steadily(seen: SeenObject, fps: float) -> bool:
    """Whether it goes from each place to a near one. True where it is hardly ever seen."""
    path = seen.path
    both = path.visible[1:] & path.visible[:-1]
    steps = np.hypot(np.diff(path.x), np.diff(path.y))[both] * fps / 24.0
    return len(steps) < 2 or bool(np.quantile(steps, _STEADY_SHARE) <= _LARGEST_STEP)


def _object_marks(asked: ObjectFacts, found: SeenObject | None, style: str, fps: float) -> ObjectMarks:
    return ObjectMarks(
        asked,
        colour=found is not None,
        shape=found is not None and found.shape == asked.shape,
        motion=found is not None and found.motion == asked.motion and moves_steadily(found, fps),
        style=found is not None and found.style == style,
    )
