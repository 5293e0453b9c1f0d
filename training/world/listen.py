"""Reading samples back: onsets of clicks, the pitch of the tone, and whose timbre it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.world.sound import HIGHEST_HZ, LOWEST_HZ, SAMPLE_RATE, TIMBRES

Floats = npt.NDArray[np.float64]

_HOP = 240
"""5 ms: a frame at 24 fps is 42 ms."""
_CLICK_WINDOW = 960
_CLICK_BAND_HZ = (2400.0, 6600.0)
_ONSET_RATIO = 4.0
"""Of the click band's energy to what it was in the 60 ms before."""
_LEAST_CLICK = 1e-3
"""Mean square of the band: a click has 1e-2 around its onset, a plain tone's second harmonic 7e-5."""
_DEAF_S = 0.12

_PITCH_WINDOW = 4096
_PITCH_HOP = 1920
"""40 ms."""
_PITCH_STEP_HZ = 5.0
_FINER = 4
"""Zeros after each window: bins 2.9 Hz apart."""
_HARMONICS = 4
_LEAST_TONE = 1e-4


@dataclass(frozen=True)
class Tone:
    """One value every 40 ms, (T,). seconds: middles of the windows. hertz: the fundamental. harmonics: (T, 4)
    amplitudes of the first four. Windows without a tone are left out."""

    seconds: Floats
    hertz: Floats
    harmonics: Floats


def find_onsets(samples: npt.NDArray[np.float32]) -> list[float]:
    """Seconds at which something is struck, of float32 (channels, N) or (N,) at 48 kHz.

    Where energy between 2.4 and 6.6 kHz jumps over four times what it was just before.
    """
    power = _band_power(_mono(samples))
    if len(power) < 16:
        return []
    # The 60 ms before, less the windows that already overlap the onset.
    before = np.array([power[max(0, index - 16) : max(1, index - 3)].mean() for index in range(len(power))])
    rising = (power > _ONSET_RATIO * before) & (power > max(_LEAST_CLICK, 0.05 * float(power.max())))
    onsets: list[float] = []
    for index in np.flatnonzero(rising):
        # A window is centred on its time: the click is where the band is loudest within the next 30 ms.
        peak = index + int(np.argmax(power[index : index + 7]))
        moment = max(0.0, peak * _HOP / SAMPLE_RATE - 0.004)
        if not onsets or moment - onsets[-1] > _DEAF_S:
            onsets.append(moment)
    return onsets


def find_tone(samples: npt.NDArray[np.float32]) -> Tone:
    """The fundamental, by how well the spectrum at its multiples agrees with any of the world's timbres."""
    wave = _mono(samples)
    starts = np.arange(0, max(1, len(wave) - _PITCH_WINDOW), _PITCH_HOP)
    windows = np.stack([_cut(wave, start, _PITCH_WINDOW) for start in starts]) * np.hanning(_PITCH_WINDOW)
    loud = (windows**2).mean(1) > _LEAST_TONE
    spectra = np.abs(np.fft.rfft(windows[loud], _FINER * _PITCH_WINDOW, axis=1)) * (4.0 / _PITCH_WINDOW)
    grid = np.arange(0.93 * LOWEST_HZ, 1.05 * HIGHEST_HZ, _PITCH_STEP_HZ)
    multiples = np.arange(1, _HARMONICS + 1) * (_FINER * _PITCH_WINDOW / SAMPLE_RATE)
    at = spectra[:, np.rint(grid[:, None] * multiples).astype(np.int64)]
    scores = np.max([at @ _profile(amplitudes) for amplitudes in TIMBRES.values()], axis=0)
    best = scores.argmax(1) if len(scores) else np.zeros(0, dtype=np.int64)
    seconds = (starts[loud] + _PITCH_WINDOW / 2) / SAMPLE_RATE
    return Tone(seconds, grid[best], at[np.arange(len(at)), best])


def classify_timbre(tone: Tone) -> str | None:
    """One of words.SPEAKERS, or None for the plain tone or for silence: the nearest proportions of harmonics."""
    if not len(tone.hertz):
        return None
    measured = np.median(tone.harmonics / np.linalg.norm(tone.harmonics, axis=1, keepdims=True), axis=0)
    return max(TIMBRES, key=lambda speaker: float(measured @ _profile(TIMBRES[speaker])))


def follow_correlation(tone: Tone, seconds: Floats, height: Floats) -> float | None:
    """Correlation of the pitch with a height known at times (T,), None if either stays still.

    Heights that are not known (nan) are left out.
    """
    known = ~np.isnan(height)
    if known.sum() < 4 or len(tone.hertz) < 4:
        return None
    at = np.interp(tone.seconds, seconds[known], height[known])
    if at.std() < 0.02:
        return None
    return 0.0 if tone.hertz.std() < 1.0 else float(np.corrcoef(tone.hertz, at)[0, 1])


def _mono(samples: npt.NDArray[np.float32]) -> Floats:
    return np.asarray(samples.mean(0) if samples.ndim == 2 else samples, dtype=np.float64)


def _band_power(wave: Floats) -> Floats:
    """Mean square in the click band, in 20 ms windows every 5 ms, each centred on its time."""
    padded = np.pad(wave, _CLICK_WINDOW // 2)
    count = len(wave) // _HOP
    windows = np.lib.stride_tricks.sliding_window_view(padded, _CLICK_WINDOW)[::_HOP][:count] * np.hanning(
        _CLICK_WINDOW
    )
    spectra = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    hertz = np.fft.rfftfreq(_CLICK_WINDOW, 1.0 / SAMPLE_RATE)
    band = (hertz >= _CLICK_BAND_HZ[0]) & (hertz <= _CLICK_BAND_HZ[1])
    return np.asarray(spectra[:, band].sum(1) * (2.0 / _CLICK_WINDOW**2 / 0.375))


def _profile(amplitudes: tuple[float, ...]) -> Floats:
    """(4,) of length 1."""
    profile = np.zeros(_HARMONICS)
    profile[: len(amplitudes)] = amplitudes
    return np.asarray(profile / np.linalg.norm(profile))


def _cut(wave: Floats, start: int, length: int) -> Floats:
    part = wave[start : start + length]
    return part if len(part) == length else np.pad(part, (0, length - len(part)))
