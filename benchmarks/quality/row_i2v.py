"""Row `i2v`: the first frame of a held-out scene, pinned at strength 1 as a PNG."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.quality.bench import Bench
from benchmarks.quality.cases import Case, held_cases
from benchmarks.quality.figures import Bar, Row, mean_figure
from benchmarks.quality.files import write_still
from benchmarks.quality.maker import Clip
from benchmarks.quality.pictures import psnr
from benchmarks.quality.prompt_run import judged
from benchmarks.quality.reconstruction import Reconstruction
from benchmarks.quality.truth import true_frames
from scope_ltx.media_in.recompress import PIN_CRF, prepare_pin
from training.world.motion import BLINK_ON
from training.world.scene import Object, Scene


def make_row(bench: Bench) -> Row:
    folder, size = bench.folder("i2v"), bench.size
    vae = Reconstruction(bench.maker.model, bench.maker.device)
    first_frames: dict[str, list[float]] = {"clip": [], "still": [], "pin": [], "ceiling": []}

    def made() -> Iterator[tuple[Scene, Clip, float]]:
        for case in _cases(bench.modes):
            truth = true_frames(case.scene, size)
            path = write_still(folder / f"{case.seed}.png", truth[0])
            clip = bench.maker.clip(case.prompt, case.seed, i2v_image=str(path), i2v_strength=1.0)
            pinned = prepare_pin(path, size.height, size.width, "crop", PIN_CRF)
            in_clip = vae.begins_with(pinned, truth)
            first_frames["clip"].append(psnr(clip.frames[0], in_clip))
            first_frames["still"].append(psnr(clip.frames[0], vae.still(pinned)))
            first_frames["pin"].append(psnr(clip.frames[0], pinned))
            first_frames["ceiling"].append(psnr(in_clip, pinned))
            yield case.scene, clip, bench.fps

    marks = list(bench.judging.each(judged, made()))
    objects = [one for clip in marks for one in clip.objects]
    return Row(
        "i2v",
        (
            mean_figure("frame 0 to VAE's of the true clip", first_frames["clip"], unit="dB", bar=Bar(least=30.0)),
            mean_figure("frame 0 to VAE's of the still alone", first_frames["still"], unit="dB"),
            mean_figure("frame 0 to the pin itself", first_frames["pin"], unit="dB"),
            mean_figure("VAE's of the true clip to the pin", first_frames["ceiling"], unit="dB"),
            mean_figure("motion", [one.motion for one in objects], counted="objects"),
            mean_figure("colour", [one.colour for one in objects], counted="objects"),
            mean_figure("shape", [one.shape for one in objects], counted="objects"),
        ),
        {name: [round(value, 2) for value in values] for name, values in first_frames.items()},
    )


def _cases(count: int) -> list[Case]:
    return held_cases("i2v", count, wanted=lambda scene: all(map(_shows_at_once, scene.objects)))


def _shows_at_once(thing: Object) -> bool:
    """An object that blinks may be away in the first frame: a picture without it pins nothing of it."""
    return thing.motion != "blinks slowly" or thing.phase < BLINK_ON
