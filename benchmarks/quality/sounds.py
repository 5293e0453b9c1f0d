"""Sound against sound, and sound against time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.quality.maker import Samples
from training.world.detect import matched
from training.world.listen import Tone, find_tone
from training.world.sound import TIMBRES


def timbre_match(tone: Tone, speaker: str | None) -> float | None:
    """Cosine of the tone's harmonics with those of a speaker: 1 for the very timbre; None for silence.

    Told by proportions, as a speaker is told apart: finer than whether the speaker is the nearest one.
    """
    if not len(tone.hertz):
        return None
    measured = np.median(tone.harmonics / np.linalg.norm(tone.harmonics, axis=1, keepdims=True), axis=0)
    profile = np.zeros(len(measured))
    profile[: len(TIMBRES[speaker])] = TIMBRES[speaker]
    return float(measured @ profile / np.linalg.norm(measured) / np.linalg.norm(profile))


def largest_difference(first: Samples, second: Samples) -> float:
    """Of two (channels, N): the most that any sample differs. Raises ValueError for unequal shapes."""
    if first.shape != second.shape:
        raise ValueError(f"sounds of one length are compared, got {first.shape} and {second.shape}")
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())


def agreement(events: Sequence[float], seen: Sequence[float], within_s: float, shift_s: float = 0.0) -> int:
    """How many of `events`, moved by `shift_s`, have one of `seen` near. A shift by half a period shows what
    chance alone would give."""
    return matched(list(seen), [event + shift_s for event in events], within_s)


def pitch_step(before: Samples, after: Samples) -> float | None:
    """Hz between the tones (medians) of two sounds (channels, N); None where one of them has none."""
    first, second = find_tone(before), find_tone(after)
    if not len(first.hertz) or not len(second.hertz):
        return None
    return float(abs(np.median(first.hertz) - np.median(second.hertz)))
