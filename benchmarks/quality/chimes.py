"""What the audio-video LoRA adds: everything swells to the stroke of a bell, once a second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.quality.maker import Frames, Samples
from training.world.detect import matched
from training.world.listen import find_onsets
from training.world.masks import find_ground, find_objects
from training.world.motion import CHIME_S
from training.world.sound import chime_times
from training.world.tracking import measure

_SWOLLEN_S, _BACK_S = (0.08, 0.42), (0.58, 0.95)
"""Within each second: an object is larger for the first half."""
_LEAST_RATIO = 1.4
"""Of the areas. A swelling is 2.56; the fastest growth, without one, 1.12 in half a second."""


def swellings(frames: Frames, fps: float, objects: int) -> tuple[int, int]:
    """(seconds in which the objects swell and shrink back, seconds looked at), by the area of all together."""
    areas = _areas(frames, objects)
    age = np.arange(len(frames)) / fps
    right = of = 0
    for beat in range(int(len(frames) / fps / CHIME_S)):
        swollen, back = (_between(age - beat * CHIME_S, *span) for span in (_SWOLLEN_S, _BACK_S))
        if not swollen.any() or not back.any():
            continue
        of += 1
        right += bool(areas[swollen].mean() > _LEAST_RATIO * areas[back].mean() > 0.0)
    return right, of


def bells(samples: Samples, fps: float, seconds: float) -> tuple[int, int]:
    """(beats at which something is struck, beats), within two frames. Not the first one, before which there is no
    silence to tell it by."""
    beats = chime_times(seconds)[1:]
    return matched(find_onsets(samples), beats, 2.0 / fps), len(beats)


def _areas(frames: Frames, objects: int) -> npt.NDArray[np.float64]:
    """(F,): of all objects in each frame, as a share of the square of the shorter side."""
    found = find_objects(find_ground(frames), objects)
    return sum((measure(one.alpha).radius ** 2 for one in found), np.zeros(len(frames)))


def _between(age: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.bool_]:
    return np.asarray((age >= low) & (age <= high))
