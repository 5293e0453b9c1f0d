"""Scenes as sound, tied to the picture: a tone that follows the first object's height, a click on each event.

The tone is silent while the object cannot be seen. A speaker gives it harmonics of its own.

Pitches are multiples of 100 Hz, as of a horn without valves, and everything begins on a grid of 10 ms. A vocoder
without memory sees a sustained tone as a spectrogram that does not change, and what it makes of that repeats with
every mel frame, 100 times a second: only such tones can it hold. On the grid all their sines are at zero, so a
change of pitch makes no jump.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from training.world.motion import CHIME_S, event_times, track
from training.world.scene import Scene

SAMPLE_RATE = 48_000

LOWEST_HZ = 500.0
"""Of a tone whose object is at the bottom of the frame."""
HIGHEST_HZ = 2000.0
"""At the top. Linear between, so that equal steps of height are equal numbers of the 100 Hz that a tone moves by;
the fourth harmonic still fits below the 8 kHz that a mel spectrogram at 16 kHz can tell of."""

TIMBRES: dict[str | None, tuple[float, ...]] = {
    None: (1.0, 0.06),
    "warm": (1.0, 0.6, 0.35, 0.2),
    "hollow": (1.0, 0.0, 0.7, 0.0),
    "bright": (0.3, 0.5, 0.9, 1.0),
}
"""Per speaker the amplitudes of the harmonics, None for the plain tone. Told apart by their proportions alone, so
that a timbre survives any melody and says nothing of the picture."""

MEL_FRAME_HZ = 100
"""Mel frames a second: step of the pitches in Hz, and of all onsets."""

_LEVEL = 0.2
_CONTROL_HZ = 400
_CLICK_TONES_HZ = (2600.0, 3700.0, 4900.0, 6100.0)
_BELL_TONES_HZ = (2100.0, 4200.0)


def render_sound(
    scenes: Sequence[Scene], samples: int, fps: float, device: torch.device | str, *, start_s: float = 0.0
) -> Tensor:
    """(B, 2, N) float32 within [-1, 1] at 48 kHz, both channels alike. Sounds do not depend on `fps`: they follow
    the motion itself. It is taken so that pictures and sounds are asked for alike."""
    if fps <= 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    sound = torch.zeros(len(scenes), samples, device=device)
    for index, scene in enumerate(scenes):
        sound[index] = _tone(scene, samples, start_s, device)
        for moment in event_times(scene, samples / SAMPLE_RATE, start_s):
            _add(sound[index], _click(device), _on_grid(moment, start_s))
        if scene.effect == "chime":
            for moment in chime_times(samples / SAMPLE_RATE, start_s):
                _add(sound[index], _bell(device), _on_grid(moment, start_s))
    return sound.clamp_(-1.0, 1.0)[:, None].expand(-1, 2, -1).contiguous()


def events(scene: Scene, seconds: float, start_s: float = 0.0) -> list[float]:
    """Onsets of the clicks within a clip, in seconds from its start: touching the ground, appearing."""
    return event_times(scene, seconds, start_s)


def chime_times(seconds: float, start_s: float = 0.0) -> list[float]:
    """Onsets of the bell that the audio-video LoRA adds."""
    beats = range(math.ceil(start_s / CHIME_S), math.ceil((start_s + seconds) / CHIME_S))
    times = [beat * CHIME_S - start_s for beat in beats]
    return [moment for moment in times if moment < seconds]


def pitch_track(scene: Scene, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Hz at times (T,): the multiple of 100 Hz next to a pitch linear in the first object's height."""
    height = 1.0 - np.clip(track(scene, 0, seconds).y, 0.0, 1.0)
    steps = np.rint((LOWEST_HZ + (HIGHEST_HZ - LOWEST_HZ) * height) / MEL_FRAME_HZ)
    return np.asarray(steps * MEL_FRAME_HZ, dtype=np.float64)


def _tone(scene: Scene, samples: int, start_s: float, device: torch.device | str) -> Tensor:
    """(N,): the pitch changes on the grid, loudness is known at 400 Hz and drawn through between."""
    first = math.floor(start_s * MEL_FRAME_HZ)
    frames = np.arange(first, math.ceil((start_s + samples / SAMPLE_RATE) * MEL_FRAME_HZ) + 1) / MEL_FRAME_HZ
    seconds = start_s + torch.arange(samples, device=device, dtype=torch.float64) / SAMPLE_RATE
    # The small addend: a sample on the grid belongs to what begins there, however its time was rounded.
    frame = (seconds * MEL_FRAME_HZ + 1e-6).long() - first
    hertz = torch.from_numpy(pitch_track(scene, frames)).to(device)[frame]
    turns = (hertz * seconds).remainder(1.0).float()
    control = start_s + np.arange(math.ceil(samples * _CONTROL_HZ / SAMPLE_RATE) + 2) / _CONTROL_HZ
    visible = torch.from_numpy(track(scene, 0, control).visible.astype(np.float32)).to(device)
    length = (len(control) - 1) * (SAMPLE_RATE // _CONTROL_HZ) + 1
    loudness = interpolate(visible[None, None], length, mode="linear", align_corners=True)[0, 0, :samples]
    amplitudes = TIMBRES[scene.speaker]
    wave = torch.zeros_like(turns)
    for harmonic, amplitude in enumerate(amplitudes, 1):
        wave += amplitude * torch.sin(2.0 * math.pi * harmonic * turns)
    return wave * loudness * (_LEVEL / math.sqrt(sum(amplitude**2 for amplitude in amplitudes)))


def _on_grid(moment_s: float, start_s: float) -> float:
    """The next time on the grid, which counts from the scene's own zero; at most 10 ms later."""
    return math.ceil((start_s + moment_s) * MEL_FRAME_HZ - 1e-6) / MEL_FRAME_HZ - start_s


def _click(device: torch.device | str) -> Tensor:
    return _struck(_CLICK_TONES_HZ, 0.02, 0.55, device)


def _bell(device: torch.device | str) -> Tensor:
    return _struck(_BELL_TONES_HZ, 0.15, 0.2, device)


def _struck(tones_hz: tuple[float, ...], decay_s: float, level: float, device: torch.device | str) -> Tensor:
    """Damped sines that begin at once and have died away after five times `decay_s`."""
    seconds = torch.arange(int(5.0 * decay_s * SAMPLE_RATE), device=device) / SAMPLE_RATE
    wave = torch.stack([torch.sin(2.0 * math.pi * tone * seconds) for tone in tones_hz]).sum(0)
    return wave * torch.exp(-seconds / decay_s) * (level / math.sqrt(len(tones_hz)))


def _add(sound: Tensor, wave: Tensor, moment_s: float) -> None:
    first = round(moment_s * SAMPLE_RATE)
    part = sound[first : first + wave.shape[0]]
    part += wave[: part.shape[0]]
