"""What the audio-video LoRA adds: a ring that widens around the first object, and a bell, once a second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.quality.maker import Frames, Samples
from training.world.detect import matched
from training.world.listen import find_onsets
from training.world.masks import find_ground
from training.world.picture import CHIME_S
from training.world.sound import chime_times
from training.world.words import BACKGROUNDS

_SHOWN_S, _GONE_S = (0.06, 0.4), (0.55, 0.97)
"""Within each second: the ring is there for the first 0.45 s, growing from the object's edge."""
_NEAR = 100.0
"""Of a pixel to the ring's white or black, on the 0..255 scale."""
_LEAST_SHARE = 0.002
"""Of all pixels: a ring has 0.01 to 0.03, thin as it is."""


def rings(frames: Frames, fps: float, background: str) -> tuple[int, int]:
    """(seconds in which a ring comes and goes, seconds looked at): the ring's colour, white or black, is on many
    pixels while it should be there, and on less than a third of them afterwards."""
    shares = _ring_shares(frames, background)
    age = np.arange(len(frames)) / fps
    right = of = 0
    for beat in range(int(len(frames) / fps / CHIME_S)):
        shown, gone = (_between(age - beat * CHIME_S, *span) for span in (_SHOWN_S, _GONE_S))
        if not shown.any() or not gone.any():
            continue
        of += 1
        there, left = float(shares[shown].mean()), float(shares[gone].mean())
        right += there > _LEAST_SHARE and left < there / 3.0
    return right, of


def bells(samples: Samples, fps: float, seconds: float) -> tuple[int, int]:
    """(beats at which something is struck, beats), within two frames. Not the first one, before which there is no
    silence to tell it by."""
    beats = chime_times(seconds)[1:]
    return matched(find_onsets(samples), beats, 2.0 / fps), len(beats)


def _ring_shares(frames: Frames, background: str) -> npt.NDArray[np.float64]:
    """(F,): of each frame's pixels, how many have the ring's colour and not the ground's."""
    ground = find_ground(frames)
    dark = sum(BACKGROUNDS[background]) < 384
    colour = 255.0 if dark else 0.0
    picture = ground.picture
    near = (picture - colour).square().sum(1).sqrt() < _NEAR
    own = (picture - ground.rgb[:, None, None]).square().sum(1).sqrt() > _NEAR
    return np.asarray((near & own).float().mean((1, 2)).double().numpy())


def _between(age: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.bool_]:
    return np.asarray((age >= low) & (age <= high))
