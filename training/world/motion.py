"""Where every object is at a time: the one source for pictures, sounds and captions' truth.

Everything is a function of seconds, never of a clip's length, so a later clip continues an earlier one and short
clips show the same speeds as long ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.world.scene import Object, Scene
from training.world.words import SIZES

Floats = npt.NDArray[np.float64]

SLIDE_PER_S = 0.065
"""Frame widths, or heights, a second: a third of the frame in the default chunk of 5.4 s."""
BOUNCE_S = 1.8
BOUNCE_HEIGHT, PAIR_BOUNCE_HEIGHT = 0.3, 0.14
"""Of the frame. At most 200 pixels a second in a default frame: 67 in the 8 frames of one latent."""
ORBIT_S = 3.2
BLINK_S = 1.6
BLINK_ON = 0.6
GROWTH_PER_S = 0.12
PAN_PER_S = 0.06
ZOOM_PER_S = 0.06
PAIR_SCALE = 0.8
"""Two objects share the frame, so each is smaller."""
CHIME_S, SWOLLEN_S = 1.0, 0.5
SWOLLEN, BACK = 1.2, 0.75
"""With a chime everything is larger for half of every second, and smaller until the next. What was tried before: a
ring around the first object, thin and widening, was a blur in 9 of 10 seconds, since 8 frames are one latent; one
that kept its size was nothing that a LoRA of rank 3 could teach a model which had never seen one."""

_WRAP_MARGIN = 0.25
"""What leaves on one side comes back on the other, once it is out of sight."""


@dataclass(frozen=True)
class Track:
    """One object over time, each (T,): x and y as fractions of width and height, radius as a fraction of the
    shorter side, and whether it can be seen."""

    x: Floats
    y: Floats
    radius: Floats
    visible: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CameraTrack:
    """Each (T,): shift of the picture in frame widths, and magnification about its middle."""

    shift: Floats
    zoom: Floats


def camera_track(camera: str, seconds: Floats) -> CameraTrack:
    """A pan to the right moves the picture to the left; zooms are exponential, so they look even."""
    still = np.zeros_like(seconds)
    if camera in {"pans left", "pans right"}:
        sign = -1.0 if camera == "pans right" else 1.0
        return CameraTrack(sign * PAN_PER_S * seconds, still + 1.0)
    if camera in {"zooms in", "zooms out"}:
        sign = 1.0 if camera == "zooms in" else -1.0
        return CameraTrack(still, np.exp(sign * ZOOM_PER_S * seconds))
    if camera == "static":
        return CameraTrack(still, still + 1.0)
    raise ValueError(f"camera {camera!r} is none of words.CAMERAS")


def track(scene: Scene, index: int, seconds: Floats) -> Track:
    """The object as the camera sees it, at times (T,)."""
    thing = scene.objects[index]
    pair = len(scene.objects) > 1
    x, y, scale, visible = _move(thing, seconds, pair)
    camera = camera_track(scene.camera, seconds)
    radius = SIZES[thing.size] * thing.scale * (PAIR_SCALE if pair else 1.0) * scale
    if scene.effect == "chime":
        radius = radius * np.where(seconds % CHIME_S < SWOLLEN_S, SWOLLEN, BACK)
    return Track(
        (x - 0.5 + camera.shift) * camera.zoom + 0.5,
        (y - 0.5) * camera.zoom + 0.5,
        radius * camera.zoom,
        visible,
    )


def event_times(scene: Scene, seconds: float, start_s: float = 0.0) -> list[float]:
    """Seconds after `start_s` at which the first object touches the ground or appears, within `seconds`."""
    thing = scene.objects[0]
    period = {"bounces steadily": BOUNCE_S, "blinks slowly": BLINK_S}.get(thing.motion)
    if period is None:
        return []
    first = math.ceil(start_s / period + thing.phase) - thing.phase
    times = []
    while (moment := first * period - start_s) < seconds:
        times.append(max(moment, 0.0))
        first += 1
    return times


def _move(thing: Object, seconds: Floats, pair: bool) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """x, y, factor on the radius, visibility."""
    still = np.zeros_like(seconds)
    x, y, scale = thing.x + still, thing.y + still, still + 1.0
    visible = np.ones(seconds.shape, dtype=np.bool_)
    match thing.motion:
        case "slides right" | "slides left":
            sign = 1.0 if thing.motion == "slides right" else -1.0
            x = _wrapped(x + sign * SLIDE_PER_S * seconds)
        case "moves up" | "moves down":
            sign = 1.0 if thing.motion == "moves down" else -1.0
            y = _wrapped(y + sign * SLIDE_PER_S * seconds)
        case "bounces steadily":
            height = PAIR_BOUNCE_HEIGHT if pair else BOUNCE_HEIGHT
            y = y - height * np.abs(np.sin(math.pi * (seconds / BOUNCE_S + thing.phase)))
        case "circles around":
            angle = 2.0 * math.pi * (seconds / ORBIT_S + thing.phase)
            x = x + 0.13 * np.cos(angle)
            y = y + (0.07 if pair else 0.14) * np.sin(angle)
        case "grows slowly":
            scale = np.minimum(0.7 + GROWTH_PER_S * seconds, 1.3)
        case "shrinks slowly":
            scale = np.maximum(1.3 - GROWTH_PER_S * seconds, 0.7)
        case "blinks slowly":
            visible = (seconds / BLINK_S + thing.phase) % 1.0 < BLINK_ON
        case "stays still":
            pass
        case _:
            raise ValueError(f"motion {thing.motion!r} is none of words.MOTIONS")
    return x, y, scale, visible


def _wrapped(position: Floats) -> Floats:
    span = 1.0 + 2.0 * _WRAP_MARGIN
    return (position + _WRAP_MARGIN) % span - _WRAP_MARGIN
