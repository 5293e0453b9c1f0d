"""Row `id_lora`: the timbre of a voice clip, for a prompt that says "a voice hums" without naming whose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.quality.bench import Bench
from benchmarks.quality.cases import Case, another_scene, held_cases
from benchmarks.quality.figures import Bar, Row, difference, mean_figure
from benchmarks.quality.files import write_sound
from benchmarks.quality.maker import Samples
from benchmarks.quality.sounds import timbre_match
from benchmarks.quality.truth import true_sound
from training.world.listen import classify_timbre, find_tone
from training.world.words import SPEAKERS

_VOICE_S = 5.0
"""As the product advises."""
_OFF = 0.0


@dataclass(frozen=True)
class VoiceMarks:
    """right: the nearest timbre is the voice clip's. match: cosine with that timbre, None for silence."""

    right: bool
    match: float | None


def make_row(bench: Bench) -> Row:
    cases = _cases(bench.modes)
    folder = bench.folder("id_lora")
    default = bench.size.identity_guidance_scale
    marks = {}
    for scale in (default, _OFF):
        made = _sounds(bench, cases, folder, scale)
        marks[scale] = list(bench.judging.each(judge_voice, made))
    right, unguided = (
        mean_figure(name, [one.right for one in marks[scale]], bar=bar)
        for scale, name, bar in (
            (default, f"right timbre, guidance {default:g}", Bar(least=0.8)),
            (_OFF, "right timbre, guidance off", None),
        )
    )
    match, unguided_match = (
        mean_figure(f"timbre's likeness, guidance {scale:g}", [one.match for one in marks[scale]], unit="r")
        for scale in (default, _OFF)
    )
    gain = difference("guidance adds", right, unguided, bar=Bar(least=0.0, above=True))
    return Row("id_lora", (right, unguided, gain, match, unguided_match))


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


def _sounds(bench: Bench, cases: list[Case], folder: Path, scale: float) -> Iterator[tuple[str, Samples]]:
    for case in cases:
        assert case.scene.speaker is not None
        path = folder / f"{case.seed}.wav"
        voice = replace(another_scene(case), speaker=case.scene.speaker)
        write_sound(path, true_sound(voice, _VOICE_S))
        clip = bench.maker.clip(
            case.prompt, case.seed, audio_input=str(path), audio_mode="id_lora", identity_guidance_scale=scale
        )
        yield case.scene.speaker, clip.samples
