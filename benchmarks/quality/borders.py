"""The border between two chunks of a stream: whether picture, sound and movement go on across it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.quality.maker import Clip, Frames, Samples
from benchmarks.quality.sounds import pitch_step
from training.world.detect import SeenObject, look
from training.world.scene import Scene
from training.world.sound import SAMPLE_RATE

_WINDOW_S = 2.6
"""On each side: so long a stretch tells every motion."""
_FITTED_FRAMES = 4
"""A movement is straight for so long."""
_TONE_S = 0.1
_NEAR_SAMPLES, _BESIDE_SAMPLES = 4, 960


@dataclass(frozen=True)
class BorderMarks:
    """step: mean absolute difference of the last frame before the border to the first after it; usual: the mean
    of such differences within both chunks; both in levels 0..255.

    leap: how far the first object is from where its movement before the border leads, or how far it was from where
    the movement after it comes from, whichever is less, for it may turn on one side. As a fraction of the frame;
    None where it cannot be seen there. motion: across the border it still moves as the prompt says.

    crack: the largest bend of the waveform at the border over that of the 20 ms before and after (a click has many
    times it). pitch_hz: step of the tone, None in silence."""

    step: float
    usual: float
    leap: float | None
    motion: bool
    crack: float
    pitch_hz: float | None


def judge_border(scene: Scene, before: Clip, after: Clip, fps: float) -> BorderMarks:
    """Of two chunks that follow each other, each as it is shown."""
    window = round(_WINDOW_S * fps)
    first, second = before.frames[-window:], after.frames[:window]
    seen = look(np.concatenate([first, second]), fps, len(scene.objects))
    wanted = scene.objects[0]
    found = next((one for one in seen.objects if one.colour == wanted.colour), None)
    tone = round(_TONE_S * SAMPLE_RATE)
    inner = np.concatenate([_steps(before.frames), _steps(after.frames)])
    return BorderMarks(
        step=float(_steps(np.stack([first[-1], second[0]]))[0]),
        usual=float(inner.mean()),
        leap=None if found is None else _leap(found, len(first)),
        motion=found is not None and found.motion == wanted.motion,
        crack=_crack(before.samples, after.samples),
        pitch_hz=pitch_step(before.samples[:, -tone:], after.samples[:, :tone]),
    )


def _steps(frames: Frames) -> npt.NDArray[np.float64]:
    """(F - 1,): mean absolute difference of each frame to the next."""
    return np.array(
        [np.abs(frames[index + 1].astype(np.int16) - frames[index]).mean() for index in range(len(frames) - 1)]
    )


def _leap(found: SeenObject, border: int) -> float | None:
    path, count = found.path, _FITTED_FRAMES
    if not path.visible[border - count : border + count].all():
        return None
    place = np.stack([path.x, path.y], axis=1)
    forwards = _missed(place[border - count : border], place[border])
    backwards = _missed(place[border : border + count][::-1], place[border - 1])
    return min(forwards, backwards)


def _missed(known: npt.NDArray[np.float64], then: npt.NDArray[np.float64]) -> float:
    """How far `then` (2,) is from where a straight movement through `known` (T, 2) is one frame later."""
    # The fit's value at 0, one frame after the last.
    expected = np.polyfit(np.arange(-len(known), 0), known, 1)[1]
    return float(np.linalg.norm(then - expected))


def _crack(before: Samples, after: Samples) -> float:
    near, beside = _NEAR_SAMPLES, _BESIDE_SAMPLES
    wave = np.concatenate([before[:, -beside:], after[:, :beside]], axis=1).astype(np.float64).mean(0)
    bend = np.abs(np.diff(wave, 2))
    middle = before[:, -beside:].shape[1] - 1
    at_border = bend[middle - near : middle + near]
    elsewhere = np.concatenate([bend[: middle - near], bend[middle + near :]])
    return float(at_border.max() / max(float(elsewhere.max()), 1e-4))
