"""The clip of a voice that ID-LoRA mode imitates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scope_ltx.sound_in.files import SoundFileError, SoundReader
from scope_ltx.sound_in.lengths import MODEL_RATE
from scope_ltx.sound_in.resample import HannSincResampler, Samples

SHORTEST_S, LONGEST_S = 1.0, 10.0
USUAL_S = 5.0
"""The ID-LoRA was trained on clips of 5 s."""

SHORT_S = 3.0

SILENT_DBFS = -60.0
"""Root mean square over both channels, 0 dBFS being full scale. Speech recorded too low is at -45, a good
recording at -25, the noise of a quiet room below -65."""


@dataclass(frozen=True)
class VoiceClip:
    """samples: (2, N) float32 at 16 kHz, 1 to 10 s, as loud as the file. level_dbfs: its root mean square.
    notes: sentences for the user."""

    samples: Samples = field(repr=False)
    level_dbfs: float
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        count: int = self.samples.shape[1]
        return count / MODEL_RATE


def read_voice(path: Path) -> VoiceClip:
    """The first 10 s of a file's sound, for `AudioEncoder.encode`.

    Resampled from the file's own rate in one step, as the LoRA's training data was.
    Raises SoundFileError: no sound, shorter than 1 s, or silent.
    """
    with SoundReader(path) as reader:
        rate = reader.rate
        sound = reader.read(round(LONGEST_S * rate))
        longer = reader.read(1).shape[1] > 0
    seconds = sound.shape[1] / rate
    if seconds < SHORTEST_S:
        raise SoundFileError(
            path,
            f"the voice clip lasts {seconds:.2f} s, at least {SHORTEST_S:g} s are needed",
            f"Give about {USUAL_S:g} s of one person speaking.",
        )
    level = level_dbfs(sound)
    if level < SILENT_DBFS:
        raise SoundFileError(
            path,
            f"the voice clip is silent: its level is {level:.1f} dBFS, at least {SILENT_DBFS:g} dBFS are needed",
            "Record it closer to the microphone, or choose a part where the person speaks.",
        )
    notes = []
    if longer:
        notes.append(f"the voice clip is longer than {LONGEST_S:g} s: only its first {LONGEST_S:g} s are used")
    if seconds < SHORT_S:
        notes.append(f"the voice clip lasts {seconds:.1f} s: about {USUAL_S:g} s imitate a voice better")
    return VoiceClip(HannSincResampler(rate, MODEL_RATE).whole(sound), level, tuple(notes))


def level_dbfs(samples: Samples) -> float:
    """Root mean square over all channels in dB, 0 being full scale; -inf for digital silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10.0 * math.log10(power) if power > 0 else -math.inf
