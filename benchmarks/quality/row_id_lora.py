"""Row `id_lora`: the timbre of a voice clip, for a prompt that says "a voice hums" without naming whose.

At its full strength a good LoRA finds every timbre, with guidance and without, and what guidance adds cannot show.
So there is a quarter of the strength as well, and what guidance adds is counted over both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
_STRENGTHS = (1.0, 0.25)


@dataclass(frozen=True)
class VoiceMarks:
    """right: the nearest timbre is the voice clip's. match: cosine with that timbre, None for silence."""

    right: bool
    match: float | None


def make_row(bench: Bench) -> Row:
    cases = _cases(bench.modes)
    folder = bench.folder("id_lora")
    guided, unguided = (
        {
            strength: list(bench.judging.each(judge_voice, _sounds(bench, cases, folder, strength, scale)))
            for strength in _STRENGTHS
        }
        for scale in (bench.size.identity_guidance_scale, _OFF)
    )
    return Row("id_lora", tuple(voice_figures(guided, unguided)))


Marked = Mapping[float, Sequence[VoiceMarks]]
"""By strength of the LoRA."""


def voice_figures(guided: Marked, unguided: Marked) -> Iterator[Figure]:
    """Of each strength, and what guidance adds over all of them."""
    for strength in guided:
        least = Bar(least=0.8) if strength == 1.0 else None
        for name, marks, bar in (("with guidance", guided, least), ("without", unguided, None)):
            of = marks[strength]
            yield mean_figure(f"right timbre at {strength:g}, {name}", [one.right for one in of], bar=bar)
            yield mean_figure(f"timbre's likeness at {strength:g}, {name}", [one.match for one in of], unit="r")
    right, wanting = (
        mean_figure("", [one.right for marks in every.values() for one in marks]) for every in (guided, unguided)
    )
    yield difference("guidance adds", right, wanting, bar=Bar(least=0.0, above=True))


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
