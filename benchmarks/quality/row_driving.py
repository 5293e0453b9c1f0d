"""Row `driving`: a track with clicks is the sound, and the picture bounces or appears with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.quality.bench import Bench
from benchmarks.quality.cases import held_cases
from benchmarks.quality.figures import Bar, Figure, Row, mean_figure
from benchmarks.quality.files import write_sound
from benchmarks.quality.judge import WITHIN_FRAMES
from benchmarks.quality.maker import Clip
from benchmarks.quality.sounds import agreement, largest_difference
from benchmarks.quality.truth import true_sound
from training.world.detect import listen, look, pitch_follows, seen_events
from training.world.motion import BLINK_S, BOUNCE_S
from training.world.scene import Scene
from training.world.sound import events

_PERIODS_S = {"bounces steadily": BOUNCE_S, "blinks slowly": BLINK_S}
_LONGER_S = 1.0
"""The track goes on after the clip: the product cuts it."""


@dataclass(frozen=True)
class DrivenMarks:
    """events: clicks of the track within the clip. together: how many of them the picture shows within two
    frames; by_chance: the same with the clicks half a period later. pitch: correlation of the track's pitch with
    the height in the picture."""

    events: int
    together: int
    by_chance: int
    pitch: float | None


def make_row(bench: Bench) -> Row:
    folder = bench.folder("driving")
    apart: list[float] = []

    def made() -> Iterator[tuple[Scene, Clip, float]]:
        for case in held_cases("driving", bench.modes, wanted=lambda scene: scene.objects[0].motion in _PERIODS_S):
            path = folder / f"{case.seed}.wav"
            track = write_sound(path, true_sound(case.scene, bench.maker.seconds + _LONGER_S))
            clip = bench.maker.clip(case.prompt, case.seed, audio_input=str(path), audio_mode="driving")
            apart.append(largest_difference(clip.samples, track[:, : clip.samples.shape[1]]))
            yield case.scene, clip, bench.fps

    marks = list(bench.judging.each(judge_driven, made()))
    clicks = sum(one.events for one in marks)
    return Row(
        "driving",
        (
            Figure("largest difference to the track", max(apart), len(apart), unit="", bar=Bar(most=0.0)),
            Figure("clicks seen in the picture", _share(sum(m.together for m in marks), clicks), clicks, "clicks"),
            Figure("the same by chance", _share(sum(m.by_chance for m in marks), clicks), clicks, "clicks"),
            mean_figure("height follows the track's pitch", [one.pitch for one in marks], unit="r"),
        ),
    )


def judge_driven(made: tuple[Scene, Clip, float]) -> DrivenMarks:
    scene, clip, fps = made
    wanted = scene.objects[0]
    seen = look(clip.frames, fps, len(scene.objects))
    first = next((one for one in seen.objects if one.colour == wanted.colour), None)
    clicks = events(scene, len(clip.frames) / fps)
    if first is None:
        return DrivenMarks(len(clicks), 0, 0, None)
    shown, within_s = seen_events(first, fps), WITHIN_FRAMES / fps
    return DrivenMarks(
        len(clicks),
        agreement(clicks, shown, within_s),
        agreement(clicks, shown, within_s, _PERIODS_S[wanted.motion] / 2.0),
        pitch_follows(listen(clip.samples), first, fps),
    )


def _share(right: int, of: int) -> float | None:
    return right / of if of else None
