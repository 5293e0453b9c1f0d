"""Row `ceiling`: the same prompts' *true* clips, as rendered and through the autoencoders.

The first says what the judges themselves can tell, the second what no transformer can do better. Neither depends
on the transformer.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.quality.bench import Bench
from benchmarks.quality.compared import compared_row
from benchmarks.quality.figures import Row
from benchmarks.quality.maker import Clip
from benchmarks.quality.prompt_run import judged
from benchmarks.quality.reconstruction import Reconstruction
from benchmarks.quality.truth import true_clip, true_sound
from training.world.scene import Scene

_MORE_S = 0.2
"""Of sound after the clip, which the audio encoder hears."""


def make_row(bench: Bench) -> Row:
    coders = Reconstruction(bench.maker.model, bench.maker.device)

    def made() -> Iterator[tuple[Scene, Clip, float]]:
        for case in bench.published.cases[: bench.modes]:
            clip = true_clip(case.scene, bench.size)
            yield case.scene, clip, bench.fps
            sound = true_sound(case.scene, bench.maker.seconds + _MORE_S)
            coded = Clip(coders.clip(clip.frames), coders.sound(sound, clip.samples.shape[1]))
            yield case.scene, coded, bench.fps

    marks = list(bench.judging.each(judged, made()))
    return compared_row("ceiling", ("as rendered", marks[::2]), ("through the VAEs", marks[1::2]), bar=None)
