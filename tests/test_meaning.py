"""What each mode is for, seen and heard in what the small model makes: one check of meaning a mode.

The rows of `benchmarks.quality`, with a case or two each, at the smaller of the two sizes that the model knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.quality import row_continuity, row_control, row_driving, row_i2v
from benchmarks.quality.bench import Bench
from benchmarks.quality.cases import held_cases
from benchmarks.quality.figures import Row
from benchmarks.quality.files import write_sound
from benchmarks.quality.judge import judge_clip
from benchmarks.quality.judging import Judging
from benchmarks.quality.maker import Clip, Maker
from benchmarks.quality.prompt_run import PublishedRun
from benchmarks.quality.row_id_lora import judge_voice
from benchmarks.quality.row_loras import Judge, judge_chime, judge_stripes, same_bytes
from benchmarks.quality.truth import true_sound
from scope_ltx.config import LTX2Config
from training.package import OWN
from training.world.grammar import caption
from training.world.scene import Object, Scene

KNOWN = LTX2Config(height=256, width=256, num_frames=49, frame_rate=24.0)
STILL = Scene((Object("circle", "red", "medium", "stays still", 0.5, 0.5),), "black", speaker="bright")
BLUE_STAR = Scene((Object("star", "blue", "large", "stays still", 0.5, 0.5),), "gray")
PINK_SQUARE = Scene((Object("square", "pink", "large", "stays still", 0.5, 0.5),), "gray")


@pytest.fixture(scope="module")
def maker(small_model_dir: Path) -> Iterator[Maker]:
    maker = Maker(small_model_dir, "cpu", KNOWN)
    yield maker
    maker.close()


@pytest.fixture
def bench(maker: Maker, tmp_path: Path) -> Iterator[Bench]:
    with Judging(0) as judging:
        published, ends = PublishedRun(maker, judging, 0, 0), (0.0, 1.0)
        yield Bench(maker, judging, published, modes=2, compared=0, scratch=tmp_path, strengths=ends)


def figures(row: Row) -> dict[str, float | None]:
    assert not row.notes
    return {one.name: one.value for one in row.figures}


def test_prompts_are_obeyed(maker: Maker) -> None:
    """Six that were never trained on; the bars of the default size, with one object in eight for chance."""
    cases = held_cases("meaning", 6)
    marks = [judge_clip(case.scene, maker.clip(case.prompt, case.seed), maker.fps) for case in cases]
    objects = [one for clip in marks for one in clip.objects]
    assert all(clip.background for clip in marks)
    assert all(one.colour for one in objects)
    assert sum(one.shape for one in objects) >= 0.75 * len(objects)
    assert sum(one.motion for one in objects) >= 0.75 * len(objects)


def test_a_pinned_picture_is_the_first_frame(bench: Bench) -> None:
    found = figures(row_i2v.make_row(bench))
    assert (found["frame 0 to VAE's of the true clip"] or 0) >= 30.0
    assert (found["motion"], found["colour"]) == (1.0, 1.0)


def test_the_cameras_move_is_the_references_and_comes_from_it(bench: Bench) -> None:
    found = figures(row_control.make_cameraman(bench))
    assert found["the reference's move, strength 1"] == 1.0
    assert found["the same at strength 0"] == 0.0


def test_outlines_steer_what_is_drawn(bench: Bench) -> None:
    found = figures(row_control.make_control(bench))
    assert (found["overlap at 1"] or 0) > (found["overlap at 0"] or 0) + 0.05
    assert (found["distance of middles at 1"] or 1) < (found["distance of middles at 0"] or 0)


def test_a_grey_reference_is_coloured_as_the_prompt_says(bench: Bench) -> None:
    found = figures(row_control.make_colorizer(bench))
    assert (found["overlap at 1"] or 0) > (found["overlap at 0"] or 0) + 0.2
    assert found["colour at 1"] == 1.0


def test_a_driving_track_is_the_sound_and_moves_the_picture(bench: Bench) -> None:
    found = figures(row_driving.make_row(bench))
    assert found["largest difference to the track"] == 0.0
    assert found["clicks seen in the picture"] == 1.0
    assert found["the same by chance"] == 0.0


@pytest.mark.parametrize("speaker", ["warm", "hollow", "bright"])
def test_a_voice_that_no_prompt_names_has_the_timbre_of_the_clip(
    maker: Maker, tmp_path: Path, speaker: str
) -> None:
    voice = Scene((Object("star", "pink", "large", "bounces steadily", 0.5, 0.7),), "gray", speaker=speaker)
    write_sound(tmp_path / "voice.wav", true_sound(voice, 5.0))
    prompt = caption(STILL, name_speaker=False)
    clip = maker.clip(prompt, 7, audio_input=str(tmp_path / "voice.wav"), audio_mode="id_lora")
    assert judge_voice((speaker, clip.samples)).right


def test_an_extending_chunk_goes_on_where_a_cut_leaps(bench: Bench) -> None:
    found = figures(row_continuity.make_row(bench))
    assert found["extend: motion across the border"] == 1.0
    assert (found["extend's step of the picture over cut's"] or 1.0) <= 0.5
    assert (found["extend: crack in the sound over usual"] or 9.0) < 1.5


@pytest.mark.parametrize(
    ("kind", "shown", "judge", "least"),
    [
        ("striped", BLUE_STAR, judge_stripes, {"striped": 1}),
        ("chime", PINK_SQUARE, judge_chime, {"swelling": 2, "bell": 2}),
    ],
)
def test_a_lora_acts_at_strength_one_and_at_nought_is_none(
    maker: Maker, kind: str, shown: Scene, judge: Judge, least: dict[str, int]
) -> None:
    """Of two clips, so two objects in stripes and four seconds at most."""
    prompt = caption(shown)

    def clips(*strengths: float) -> list[Clip]:
        loras = [{"path": OWN[kind], "strength": strength} for strength in strengths]
        return [maker.clip(prompt, seed, loras=loras) for seed in (5, 6)]

    def added(made: list[Clip]) -> dict[str, int]:
        found = [judge((shown, clip, maker.fps)) for clip in made]
        return {what: sum(one[what][0] for one in found) for what in least}

    plain = clips()
    assert all(same_bytes(*pair) for pair in zip(plain, clips(0.0), strict=True))
    assert not any(added(plain).values())
    with_it = added(clips(1.0))
    assert all(with_it[what] >= count for what, count in least.items()), with_it
