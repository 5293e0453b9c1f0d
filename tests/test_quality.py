"""The evaluation's measures, on true renders: right for the true one, wrong for another."""

from __future__ import annotations

import random
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.quality.bf16_model import write_dequantised, write_unquantised
from benchmarks.quality.borders import judge_border
from benchmarks.quality.cases import Case, held_cases
from benchmarks.quality.chimes import bells, swellings
from benchmarks.quality.compared import compared_row
from benchmarks.quality.figures import Bar, Figure, Row, mean_figure, table
from benchmarks.quality.files import write_folder, write_sound, write_video
from benchmarks.quality.judge import Marks, judge_clip
from benchmarks.quality.judging import Judging
from benchmarks.quality.maker import Clip
from benchmarks.quality.pictures import object_share, overlap, path_distance, psnr
from benchmarks.quality.reconstruction import Reconstruction
from benchmarks.quality.row_control import judge_camera, judge_guided
from benchmarks.quality.row_driving import judge_driven
from benchmarks.quality.row_id_lora import VoiceMarks, judge_voice, voice_figures
from benchmarks.quality.row_loras import judge_stripes, same_bytes
from benchmarks.quality.sheet import shown_cases, strip_of, write_sheet
from benchmarks.quality.sounds import largest_difference, pitch_step, timbre_match
from benchmarks.quality.totals import breakdown, prompt_figures
from benchmarks.quality.truth import true_clip, true_frames, true_sound
from benchmarks.report import without_out
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.config import LTX2Config
from scope_ltx.manifest import ModelFiles
from scope_ltx.media_in.open_reference import open_reference
from scope_ltx.models.transformer import open_transformer
from scope_ltx.sound_in.files import SoundReader
from scope_quant.capability import Fp8Path
from training.unpack import joint_state
from training.world.grammar import caption
from training.world.listen import find_tone
from training.world.scene import Object, Scene
from training.world.words import SPEAKERS

FPS = 24.0
SIZE = LTX2Config(height=128, width=128, num_frames=97, frame_rate=FPS)
"""Smaller than the evaluation's own, so that ten renders take a second; four seconds tell every motion."""
SECONDS = SIZE.num_frames / FPS

BOUNCING = Scene((Object("circle", "red", "large", "bounces steadily", 0.4, 0.7, phase=0.2),), "black")
SLIDING = Scene((Object("square", "cyan", "large", "slides right", 0.25, 0.5),), "beige", speaker="warm")
PAIR = Scene(
    (
        Object("circle", "yellow", "large", "stays still", 0.5, 0.25),
        Object("square", "blue", "large", "circles around", 0.5, 0.75),
    ),
    "black",
)


def shuffled(clip: Clip) -> Clip:
    """The same pictures in another order, and the same pieces of sound."""
    order = np.random.default_rng(0).permutation(len(clip.frames))
    pieces = np.array_split(clip.samples, len(order), axis=1)
    return Clip(clip.frames[order], np.concatenate([pieces[index] for index in order], axis=1))


def values(marks: list[Marks]) -> dict[str, float | None]:
    return {figure.name: figure.value for figure in prompt_figures(marks)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: threads that wait for each other take longer than the work, on a machine that does other
    things as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bouncing() -> Clip:
    return true_clip(BOUNCING, SIZE)


@pytest.mark.parametrize("scene", [BOUNCING, SLIDING, PAIR], ids=caption)
def test_a_true_clip_is_all_right_and_another_one_is_not(scene: Scene) -> None:
    clip = true_clip(scene, SIZE)
    right = values([judge_clip(scene, clip, FPS)])
    assert all(value is None or value > 0.9 for value in right.values()), right
    other = replace(
        scene,
        objects=tuple(replace(one, shape="star", motion="grows slowly") for one in scene.objects[::-1]),
        background="white",
        speaker="hollow",
    )
    wrong = values([judge_clip(other, clip, FPS)])
    for name in ("shape", "motion", "background", "speaker"):
        assert wrong[name] == 0.0, name
    assert wrong["order of two"] in (None, 0.0)
    recoloured = replace(scene, objects=tuple(replace(one, colour="pink") for one in scene.objects[:1]))
    assert values([judge_clip(recoloured, clip, FPS)])["colour"] == 0.0


def test_sound_is_judged_by_the_picture_that_is_there(bouncing: Clip) -> None:
    marks = judge_clip(BOUNCING, bouncing, FPS)
    assert (marks.events, marks.heard, marks.explained) == (2, 2, 2)
    assert marks.pitch is not None
    assert marks.pitch > 0.9
    half = true_sound(replace(BOUNCING, objects=(replace(BOUNCING.objects[0], phase=0.7),)), SECONDS)
    late = judge_clip(BOUNCING, Clip(bouncing.frames, half), FPS)
    assert (late.heard, late.explained) == (0, 0)
    assert late.pitch is not None
    assert late.pitch < 0.0
    still = judge_clip(BOUNCING, shuffled(bouncing), FPS)
    assert not still.objects[0].motion


def test_a_style_and_a_camera_that_nobody_asked_for_are_wrong() -> None:
    scene = replace(SLIDING, style="outline")
    marks = judge_clip(SLIDING, true_clip(scene, SIZE), FPS)
    assert not marks.objects[0].style
    assert judge_clip(scene, true_clip(scene, SIZE), FPS).objects[0].style
    panned = Scene((Object("circle", "red", "large", "stays still", 0.5, 0.5),), "gray", camera="zooms in")
    frames = true_frames(panned, SIZE)
    clip = Clip(frames, np.zeros((2, 48_000), np.float32))
    assert judge_camera((panned, clip, FPS))
    assert not judge_camera((replace(panned, camera="pans left"), clip, FPS))


def test_the_breakdown_counts_objects_by_what_was_asked(bouncing: Clip) -> None:
    marks = [judge_clip(BOUNCING, bouncing, FPS), judge_clip(PAIR, true_clip(PAIR, SIZE), FPS)]
    found = breakdown(marks)
    assert found["motion"]["bounces steadily"] == {"objects": 1, "colour": 1, "shape": 1, "motion": 1, "style": 1}
    assert {name: group["objects"] for name, group in found["objects"].items()} == {"1": 1, "2": 2}
    figures = {figure.name: figure for figure in prompt_figures(marks)}
    assert (figures["colour"].of, figures["colour"].counted) == (3, "objects")
    assert (figures["order of two"].of, figures["order of two"].counted) == (1, "clips")


def test_two_runs_side_by_side_say_how_many_objects_are_right_in_one_alone(bouncing: Clip) -> None:
    one, pair = judge_clip(BOUNCING, bouncing, FPS), judge_clip(PAIR, true_clip(PAIR, SIZE), FPS)
    bent = replace(one, objects=(replace(one.objects[0], shape=False),))
    lost = replace(pair, objects=(pair.objects[0], replace(pair.objects[1], shape=False, motion=False)))
    row = compared_row("fp8", ("fp8", [bent, pair]), ("bf16", [one, lost]), Bar(least=-2.0, most=2.0))
    alone = row.details["right in one alone"]
    assert (alone["shape"], alone["motion"]) == ({"fp8": 1, "bf16": 1}, {"fp8": 1, "bf16": 0})
    assert "shape 1 and 1, motion 1 and 0" in row.notes[1]
    points = {figure.name.partition(":")[0]: figure for figure in row.figures}
    assert (points["shape"].value, points["shape"].passes) == (0.0, True)
    assert (round(points["motion"].value or 0.0, 1), points["motion"].passes) == (33.3, False)


def test_psnr_of_pictures() -> None:
    flat = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(flat, flat) == float("inf")
    assert psnr(flat, flat + 10) == pytest.approx(28.13, abs=0.01)
    with pytest.raises(ValueError, match="one shape"):
        psnr(flat, flat[:2])


def test_overlap_and_distance_tell_the_reference_from_another_place(bouncing: Clip) -> None:
    own = object_share(bouncing.frames, 1)
    aside = replace(BOUNCING, objects=(replace(BOUNCING.objects[0], x=0.6),))
    moved = object_share(true_frames(aside, SIZE), 1)
    assert overlap(own, own) == 1.0
    assert overlap(own, moved) < 0.5
    assert path_distance(own, own) == 0.0
    assert path_distance(own, moved) == pytest.approx(0.2, abs=0.02)
    nothing = object_share(np.zeros_like(bouncing.frames), 1)
    assert overlap(own, nothing) == 0.0
    assert path_distance(own, nothing) is None
    marks = judge_guided((BOUNCING, own, bouncing, FPS))
    assert (marks.overlap, marks.colours) == (1.0, (1, 1))


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_voice_is_told_by_its_timbre(speaker: str) -> None:
    sound = true_sound(replace(SLIDING, speaker=speaker), SECONDS)
    assert judge_voice((speaker, sound)).right
    match = timbre_match(find_tone(sound), speaker)
    assert match is not None
    assert match > 0.98
    for other in {None, *SPEAKERS} - {speaker}:
        wrong = timbre_match(find_tone(sound), other)
        assert wrong is not None
        assert wrong < 0.95
    assert judge_voice((speaker, np.zeros_like(sound))).match is None


def test_a_picture_that_bounces_with_the_track_and_one_that_does_not(bouncing: Clip) -> None:
    with_it = judge_driven((BOUNCING, bouncing, FPS))
    assert (with_it.events, with_it.together, with_it.by_chance) == (2, 2, 0)
    assert with_it.pitch is not None
    assert with_it.pitch > 0.9
    against = replace(BOUNCING, objects=(replace(BOUNCING.objects[0], phase=0.7),))
    off = judge_driven((against, bouncing, FPS))
    assert off.together == 0
    assert off.by_chance > 0


def test_stripes_are_seen_only_where_they_are() -> None:
    striped = replace(PAIR, style="striped")
    silence = np.zeros((2, 48_000), np.float32)
    assert judge_stripes((PAIR, Clip(true_frames(striped, SIZE), silence), FPS)) == {"striped": (2, 2)}
    assert judge_stripes((PAIR, Clip(true_frames(PAIR, SIZE), silence), FPS)) == {"striped": (0, 2)}


@pytest.mark.parametrize("background", ["black", "white", "gray", "navy", "beige"])
def test_a_chime_swells_and_rings_once_a_second(background: str) -> None:
    plain = replace(SLIDING, background=background, speaker=None)
    chiming = replace(plain, effect="chime")
    assert swellings(true_frames(chiming, SIZE), FPS, 1) == (4, 4)
    assert swellings(true_frames(plain, SIZE), FPS, 1) == (0, 4)
    shrinking = replace(plain, objects=(replace(plain.objects[0], motion="shrinks slowly"),))
    assert swellings(true_frames(shrinking, SIZE), FPS, 1) == (0, 4)
    assert bells(true_sound(chiming, SECONDS), FPS, SECONDS) == (4, 4)
    assert bells(true_sound(plain, SECONDS), FPS, SECONDS) == (0, 4)


def test_a_border_that_goes_on_and_one_that_does_not() -> None:
    long = true_clip(BOUNCING, SIZE.updated(num_frames=193))
    half, samples = 97, round(97 / FPS * 48_000)
    before, after = (
        Clip(long.frames[:half], long.samples[:, :samples]),
        Clip(long.frames[half:], long.samples[:, samples:]),
    )
    joined = judge_border(BOUNCING, before, after, FPS)
    assert joined.step < 2.0 * joined.usual
    assert joined.leap is not None
    assert joined.leap < 0.02
    assert joined.motion
    assert joined.crack < 1.5
    assert joined.pitch_hz is not None
    elsewhere = true_clip(replace(BOUNCING, objects=(replace(BOUNCING.objects[0], x=0.6, phase=0.25),)), SIZE)
    cut = judge_border(BOUNCING, before, elsewhere, FPS)
    assert cut.step > 2.0 * cut.usual
    assert cut.leap is not None
    assert cut.leap > 0.1
    assert cut.pitch_hz is not None
    assert cut.pitch_hz > joined.pitch_hz
    cracked = Clip(after.frames, np.roll(after.samples, 1, axis=1) * np.float32(-1.0) + np.float32(0.2))
    assert judge_border(BOUNCING, before, cracked, FPS).crack > 3.0


def test_sounds_differ_by_their_largest_sample() -> None:
    sound = true_sound(BOUNCING, 1.0)
    other = sound.copy()
    other[1, 7] += 0.25
    assert largest_difference(sound, sound) == 0.0
    assert largest_difference(sound, other) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="one length"):
        largest_difference(sound, sound[:, 1:])
    assert pitch_step(sound, np.zeros_like(sound)) is None


def test_the_same_bytes_are_told_from_others(bouncing: Clip) -> None:
    assert same_bytes(bouncing, Clip(bouncing.frames.copy(), bouncing.samples.copy()))
    assert not same_bytes(bouncing, shuffled(bouncing))


def test_what_is_written_is_what_the_product_reads(tmp_path: Path, bouncing: Clip) -> None:
    from fractions import Fraction  # noqa: PLC0415

    from scope_ltx.media_in.frame_times import FrameTimes  # noqa: PLC0415

    times = FrameTimes(Fraction(0), 9, Fraction(24))
    folder = open_reference(write_folder(tmp_path / "frames", bouncing.frames[:9]), Fraction(24), "loop")
    assert np.array_equal(folder.frames(times, SIZE.height, SIZE.width, "crop"), bouncing.frames[:9])
    video = open_reference(write_video(tmp_path / "clip.mp4", bouncing.frames[:9], FPS), Fraction(24), "loop")
    assert psnr(video.frames(times, SIZE.height, SIZE.width, "crop"), bouncing.frames[:9]) > 30.0
    video.close()
    track = write_sound(tmp_path / "track.wav", bouncing.samples)
    with wave.open(str(tmp_path / "track.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 48_000)
    with SoundReader(tmp_path / "track.wav", 48_000) as reader:
        assert largest_difference(reader.read(track.shape[1]), track) == 0.0


def test_cases_are_the_same_every_time_and_a_longer_list_begins_with_the_shorter() -> None:
    assert held_cases("prompts", 3) == held_cases("prompts", 8)[:3]
    assert held_cases("prompts", 3) != held_cases("i2v", 3)
    named = held_cases("id_lora", 4, speaker=1.0, name_speaker=False)
    assert all(not any(speaker in case.prompt for speaker in SPEAKERS) for case in named)


def test_what_guidance_adds_shows_at_the_strength_at_which_it_can() -> None:
    right, wrong = VoiceMarks(right=True, match=1.0), VoiceMarks(right=False, match=0.5)
    saturated = {1.0: [right, right], 0.25: [right, right]}
    found = {one.name: one for one in voice_figures(saturated, {1.0: [right, right], 0.25: [right, wrong]})}
    assert found["right timbre at 1, with guidance"].passes
    assert found["guidance adds"].value == 0.25
    assert found["guidance adds"].passes
    assert not {one.name: one for one in voice_figures(saturated, saturated)}["guidance adds"].passes


def test_bars_and_the_table() -> None:
    rising = Bar(least=0.0, above=True)
    assert not rising.holds(0.0)
    assert rising.holds(0.1)
    assert Bar(least=-2.0, most=2.0).holds(-2.0)
    assert not Bar(least=-2.0, most=2.0).holds(2.1)
    figures = (
        mean_figure("colour", [1.0, 0.0, None], bar=Bar(least=0.97)),
        Figure("pitch", None, 0, bar=Bar(least=0.8)),
    )
    assert (figures[0].value, figures[0].of, figures[0].passes, figures[1].passes) == (0.5, 2, False, None)
    lines = table([Row("prompts", figures, notes=("a note",))])
    assert lines[1].split() == ["prompts", "colour", "0.500", "2", "clips", ">=", "0.97", "FAIL"]
    assert lines[-1] == "prompts: a note"


def test_the_sheet_shows_each_motion_first(tmp_path: Path, bouncing: Clip) -> None:
    scenes = [BOUNCING, BOUNCING, SLIDING, PAIR]
    cases = [Case(scene, caption(scene), seed) for seed, scene in enumerate(scenes)]
    assert shown_cases(cases, 3) == {0, 2, 3}
    assert shown_cases(cases, 9) == {0, 1, 2, 3}
    strips = [strip_of("a prompt that is far longer than its strip is wide " * 3, bouncing) for _ in range(3)]
    write_sheet(tmp_path / "sheet.png", strips)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height
    with pytest.raises(ValueError, match="at least one clip"):
        write_sheet(tmp_path / "none.png", [])


@pytest.mark.parametrize("processes", [0, 1])
def test_judges_keep_the_order(processes: int) -> None:
    with Judging(processes) as judging:
        assert list(judging.each(abs, iter([-3, 2, -1]))) == [3, 2, 1]


def test_a_place_on_the_machine_is_no_part_of_the_command() -> None:
    arguments = ["--count", "8", "--json", "there", "--model=here", "--rows", "i2v"]
    assert without_out(arguments) == ["--count", "8", "--rows", "i2v"]


def test_randomness_elsewhere_changes_nothing() -> None:
    random.seed(1)
    torch.manual_seed(1)
    first = held_cases("style", 2)
    random.seed(2)
    assert held_cases("style", 2) == first


def test_the_bf16_model_has_the_published_weights_multiplied_out(small_model_dir: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("dequantised", "kept", "trained")}
    for folder in folders.values():
        folder.mkdir()
    write_dequantised(small_model_dir, folders["dequantised"], keep_one=False)
    write_dequantised(small_model_dir, folders["kept"], keep_one=True)
    trained = tmp_path / "trained.safetensors"
    save_file(joint_state(ModelFiles.below(small_model_dir)), trained)
    write_unquantised(small_model_dir, trained, folders["trained"], keep_one=False)
    files = {name: CheckpointFile(ModelFiles.below(folder).transformer) for name, folder in folders.items()}
    quantised = {
        name: [key for key, dtype in file.dtypes.items() if dtype == "F8_E4M3"] for name, file in files.items()
    }
    assert {name: len(keys) for name, keys in quantised.items()} == {"dequantised": 0, "kept": 1, "trained": 0}
    state, again = (load_file(files[name].path) for name in ("dequantised", "trained"))
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state if not name.endswith("scale_shift_table"))
    open_transformer(files["dequantised"], dtype=torch.float32, fp8_path=Fp8Path.DEQUANTIZE)
    less = tmp_path / "less.safetensors"
    save_file(dict(list(load_file(trained).items())[1:]), less)
    with pytest.raises(ValueError, match="lacks 1 weights"):
        write_unquantised(small_model_dir, less, folders["trained"], keep_one=False)


def test_the_autoencoders_give_a_clip_back(small_model_dir: Path, bouncing: Clip) -> None:
    coders = Reconstruction(small_model_dir, "cpu")
    frames = bouncing.frames[:9]
    assert psnr(coders.clip(frames), frames) > 20.0
    assert psnr(coders.still(frames[0]), frames[0]) > 20.0
    assert psnr(coders.begins_with(frames[0], frames), frames[0]) > 20.0
    sound = true_sound(BOUNCING, 1.2)
    assert coders.sound(sound, 48_000).shape == (2, 48_000)
    with pytest.raises(ValueError, match="to be heard"):
        coders.sound(sound[:, :48_000], 48_000)
