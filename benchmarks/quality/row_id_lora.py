"""Row `id_lora`: the timbre of a voice clip, for a prompt that says "a voice hums" without naming whose.

At its full strength a good LoRA finds every timbre, with guidance and without, and what guidance adds cannot show.
So that is measured at a quarter of the strength.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.quality.bench import Bench
from benchmarks.quality.cases import Case, another_scene, held_cases
from benchmarks.quality.figures import Bar, Figure, Row, difference, mean_figure
from benchmarks.quality.files import write_sound
from benchmarks.quality.maker import Samples
from benchmarks.quality.sounds import timbre_match
from benchmarks.quality.truth import true_sound
from training.world.listen import classify_timbre, find_tone
from training.world.words import SPEAKERS

_VOICE_S = 5.0
"""As the product advises."""
_OFF = 0.0
_LORA = "id-lora"
_STRENGTHS = {1.0: "", 0.25: " at a quarter strength"}


@dataclass(frozen=True)
class VoiceMarks:
    """right: the nearest timbre is the voice clip's. match: cosine with that timbre, None for silence."""

    right: bool
    match: float | None


def make_row(bench: Bench) -> Row:
    cases = _cases(bench.modes)
    folder = bench.folder("id_lora")
    figures: list[Figure] = []
    for strength, suffix in _STRENGTHS.items():
        guided, unguided = (
            list(bench.judging.each(judge_voice, _sounds(bench, cases, folder, strength, scale)))
            for scale in (bench.size.identity_guidance_scale, _OFF)
        )
        figures += _figures(guided, unguided, suffix, full=strength == 1.0)
    return Row("id_lora", tuple(figures))


def _figures(guided: list[VoiceMarks], unguided: list[VoiceMarks], suffix: str, *, full: bool) -> Iterator[Figure]:
    right, wanting = (
        mean_figure(f"right timbre{suffix}, {name}", [one.right for one in marks], bar=bar)
        for name, marks, bar in (
            ("with guidance", guided, Bar(least=0.8) if full else None),
            ("without", unguided, None),
        )
    )
    yield from (right, wanting)
    yield from (
        mean_figure(f"timbre's likeness{suffix}, {name}", [one.match for one in marks], unit="r")
        for name, marks in (("with guidance", guided), ("without", unguided))
    )
    if not full:
        yield difference(f"guidance adds{suffix}", right, wanting, bar=Bar(least=0.0, above=True))


def judge_voice(made: tuple[str, Samples]) -> VoiceMarks:
    speaker, samples = made
    tone = find_tone(samples)
    return VoiceMarks(classify_timbre(tone) == speaker, timbre_match(tone, speaker))


def _cases(count: int) -> list[Case]:
    """Speakers take turns: a model that always hums with one voice is right in a third of the cases."""
    cases = held_cases("id_lora", count, speaker=1.0, name_speaker=False)
    return [
        replace(case, scene=replace(case.scene, speaker=SPEAKERS[place % len(SPEAKERS)]))
        for place, case in enumerate(cases)
    ]


def _sounds(
    bench: Bench, cases: list[Case], folder: Path, strength: float, scale: float
) -> Iterator[tuple[str, Samples]]:
    for case in cases:
        assert case.scene.speaker is not None
        path = folder / f"{case.seed}.wav"
        voice = replace(another_scene(case), speaker=case.scene.speaker)
        write_sound(path, true_sound(voice, _VOICE_S))
        clip = bench.maker.clip(
            case.prompt,
            case.seed,
            audio_input=str(path),
            audio_mode="id_lora",
            identity_guidance_scale=scale,
            loras=[{"path": _LORA, "strength": strength}],
        )
        yield case.scene.speaker, clip.samples
