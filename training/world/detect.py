"""Reading a clip back into what a caption could have asked for: the judge of what a model generates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.world.lines import classify_camera
from training.world.listen import Tone, classify_timbre, find_onsets, find_tone, follow_correlation
from training.world.masks import find_ground, find_objects
from training.world.motion import camera_track
from training.world.templates import classify_shape
from training.world.tracking import Measured, classify_motion, measure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SeenObject:
    """shape and style are None where the object is never whole in the frame, motion where it is none of the
    world's. overlap: 0..1 with the best template. path: as the camera shows it."""

    colour: str
    shape: str | None
    style: str | None
    motion: str | None
    overlap: float
    path: Measured


@dataclass(frozen=True)
class Seen:
    """objects: from top to bottom, as many as were looked for or fewer."""

    objects: tuple[SeenObject, ...]
    background: str
    camera: str


@dataclass(frozen=True)
class Heard:
    """speaker: whose timbre, None for a plain tone. onsets: seconds of the clicks."""

    onsets: list[float]
    tone: Tone
    speaker: str | None


def look(frames: npt.NDArray[np.uint8], fps: float, count: int) -> Seen:
    """What uint8 RGB (F, H, W, 3) shows, looking for `count` objects of different colours."""
    ground = find_ground(frames)
    found = find_objects(ground, count)
    camera = classify_camera(ground, found, fps)
    moved = camera_track(camera, np.arange(len(frames)) / fps)
    objects = []
    for one in found:
        path = measure(one.alpha)
        shape, style, overlap = classify_shape(one.alpha) or (None, None, 0.0)
        motion = classify_motion(path.seen_by(moved), fps)
        objects.append(SeenObject(one.colour, shape, style, motion, overlap, path))
    return Seen(tuple(objects), ground.name, camera)


def listen(samples: npt.NDArray[np.float32]) -> Heard:
    """What float32 (channels, N) at 48 kHz sounds like."""
    tone = find_tone(samples)
    return Heard(find_onsets(samples), tone, classify_timbre(tone))


def seen_events(seen: SeenObject, fps: float) -> list[float]:
    """Seconds at which the picture shows an event: the object appears, or turns at the bottom of a bounce."""
    path = seen.path
    if seen.motion == "blinks slowly":
        appears = np.flatnonzero(path.visible[1:] & ~path.visible[:-1]) + 1
        return [float(frame / fps) for frame in appears]
    if seen.motion != "bounces steadily":
        return []
    y = path.y
    lowest, highest = np.percentile(y, [96, 4])
    turns = []
    for frame in range(1, len(y) - 1):
        window = y[max(0, frame - 5) : frame + 6]
        if y[frame] == window.max() and y[frame] > lowest - 0.3 * (lowest - highest):
            turns.append(_vertex(y, frame) / fps)
    return [moment for index, moment in enumerate(turns) if index == 0 or moment - turns[index - 1] > 0.2]


def matched(onsets: list[float], events: list[float], within_s: float) -> int:
    """How many events have an onset near, each onset counted once."""
    free = sorted(onsets)
    count = 0
    for event in sorted(events):
        near = [onset for onset in free if abs(onset - event) <= within_s]
        if near:
            free.remove(min(near, key=lambda onset, event=event: abs(onset - event)))  # type: ignore[misc]
            count += 1
    return count


def pitch_follows(heard: Heard, seen: SeenObject, fps: float) -> float | None:
    """Correlation of pitch and height of the object, None where it does not move up or down."""
    path = seen.path
    height = np.where(path.visible, 1.0 - path.y, np.nan)
    return follow_correlation(heard.tone, np.arange(len(height)) / fps, height)


def _vertex(values: Floats, index: int) -> float:
    """Where two straight flanks meet near a peak: the middle between equal heights on both sides."""
    left, right = max(index - 3, 0), min(index + 3, len(values) - 1)
    fall = values[index] - values[left], values[index] - values[right]
    total = fall[0] + fall[1]
    return float(index + (1.5 * (fall[0] - fall[1]) / total if total > 1e-6 else 0.0))
