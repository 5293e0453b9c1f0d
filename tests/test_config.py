"""LTX2Config: what it accepts, what it snaps, what it refuses and how it says so."""

from __future__ import annotations

import json
import math
from itertools import groupby
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scope_ltx.config import LTX2Config, describe_problems
from scope_ltx.config_file import load_config, parse_assignment, read_parameters
from scope_ltx.media_in.pins import ImagePin
from scope_ltx.mode_parameters import SECTIONS, LoraChoice, Widget

DEFAULTS = {
    "height": 384,
    "width": 320,
    "num_frames": 129,
    "num_steps": 8,
    "schedule": "distilled",
    "frame_rate": 24.0,
    "randomize_seed": True,
    "base_seed": 42,
    "ffn_chunk_size": 4096,
    "i2v_image": None,
    "i2v_strength": 1.0,
    "images": (),
    "image_fit": "crop",
    "reference_video": None,
    "control_strength": 1.0,
    "control_group": "none",
    "reference_at_end": "loop",
    "audio_input": None,
    "audio_mode": "driving",
    "identity_guidance_scale": 3.0,
    "audio_at_end": "loop",
    "loras": (),
    "negative_prompt": "",
    "cfg_scale": 1.0,
    "audio_cfg_scale": 1.0,
    "stg_scale": 0.0,
    "stg_blocks": (28,),
    "stg_mode": "both",
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "continuity": "cut",
    "overlap_latents": 2,
    "trim_tail": 0,
    "two_stage": False,
    "lora_merge_strategy": "permanent_merge",
    "sigmas": None,
    "realtime_pacing_slack": 0.0,
}


def problems_of(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        LTX2Config.model_validate(values)
    return describe_problems(caught.value)


def test_defaults_are_the_documented_ones() -> None:
    assert LTX2Config().model_dump() == DEFAULTS
    assert LTX2Config().adjustments == ()


@settings(deadline=None)
@given(size=st.integers(32, 2048))
def test_sizes_snap_to_the_nearest_multiple_of_32(size: int) -> None:
    config = LTX2Config(height=size, width=size)
    assert config.height % 32 == 0
    assert abs(config.height - size) <= 16
    assert config.width == config.height
    assert len(config.adjustments) == (0 if config.height == size else 2)


@settings(deadline=None)
@given(height=st.integers(32, 2048), width=st.integers(32, 2048))
def test_with_two_stages_sizes_snap_to_the_nearest_multiple_of_64(height: int, width: int) -> None:
    config = LTX2Config(height=height, width=width, two_stage=True)
    for given_size, size in ((height, config.height), (width, config.width)):
        assert size % 64 == 0
        assert abs(size - given_size) <= 32
    assert all(sentence.endswith("it must be a multiple of 64") for sentence in config.adjustments)


def test_two_stages_snap_the_sizes_that_are_there_already() -> None:
    config = LTX2Config(height=416).updated(two_stage=True)
    assert config.height == 448
    assert config.adjustments == ("height 416 became 448: it must be a multiple of 64",)


@settings(deadline=None)
@given(frames=st.integers(9, 257))
def test_frame_counts_snap_to_the_nearest_8k_plus_1(frames: int) -> None:
    config = LTX2Config(num_frames=frames)
    assert (config.num_frames - 1) % 8 == 0
    assert 9 <= config.num_frames <= 257
    assert abs(config.num_frames - frames) <= 4


def test_snapping_is_told_in_words() -> None:
    config = LTX2Config(height=385, num_frames=130)
    assert config.adjustments == (
        "height 385 became 384: it must be a multiple of 32",
        "num_frames 130 became 129: it must be 8K + 1",
    )


@settings(deadline=None)
@given(
    height=st.integers(32, 2048),
    frames=st.integers(9, 257),
    strength=st.floats(0, 1),
    rate=st.floats(5, 120),
    sigmas=st.none() | st.lists(st.floats(1e-6, 1), min_size=1, max_size=20, unique=True),
)
def test_round_trips(height: int, frames: int, strength: float, rate: float, sigmas: list[float] | None) -> None:
    config = LTX2Config(
        height=height,
        num_frames=frames,
        i2v_strength=strength,
        frame_rate=rate,
        sigmas=None if sigmas is None else (*sorted(sigmas, reverse=True), 0.0),
        images=(ImagePin(path="a.png", frame_idx=8, strength=strength),),
        loras=(LoraChoice(path="union-control"), LoraChoice(path="b.safetensors", strength=strength)),
    )
    assert LTX2Config.model_validate(config.model_dump()) == config
    through_json = LTX2Config.model_validate_json(config.model_dump_json())
    assert through_json == config
    assert hash(through_json) == hash(config)
    assert through_json.adjustments == ()


def test_equality_is_about_parameters_not_about_how_they_were_given() -> None:
    assert LTX2Config(height=385) == LTX2Config(height=384)
    assert LTX2Config(height=384) != LTX2Config(height=416)


def test_whole_floats_are_whole_numbers() -> None:
    config = LTX2Config.model_validate_json('{"height": 384.0, "num_steps": 4.0, "ffn_chunk_size": 64.0}')
    assert (config.height, config.num_steps, config.ffn_chunk_size) == (384, 4, 64)
    assert isinstance(config.height, int)
    assert config.adjustments == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", "384"),
        ("height", 384.5),
        ("height", True),
        ("height", None),
        ("height", math.nan),
        ("height", 31),
        ("width", 2049),
        ("num_frames", 8),
        ("num_frames", 258),
        ("num_steps", 0),
        ("num_steps", 21),
        ("schedule", "quadratic"),
        ("frame_rate", 0),
        ("frame_rate", -24.0),
        ("frame_rate", "24"),
        ("frame_rate", True),
        ("frame_rate", math.nan),
        ("frame_rate", math.inf),
        ("frame_rate", 10**400),
        ("frame_rate", 121),
        ("randomize_seed", 1),
        ("randomize_seed", "true"),
        ("base_seed", -1),
        ("base_seed", 2**63),
        ("ffn_chunk_size", 0),
        ("i2v_image", ""),
        ("i2v_image", 3),
        ("i2v_strength", 1.01),
        ("control_strength", -0.01),
        ("audio_mode", "voice"),
        ("identity_guidance_scale", 20.5),
        ("lora_merge_strategy", "runtime_peft"),
        ("realtime_pacing_slack", -0.1),
        ("realtime_pacing_slack", math.inf),
        ("num_step", 8),
        ("images", "a.png"),
        ("images", {"path": "a.png"}),
        ("images", [{"path": "a.png", "frame_idx": 8 * i} for i in range(34)]),
        ("image_fit", "stretch"),
        ("reference_video", ""),
        ("control_group", "edges"),
        ("reference_at_end", "stop"),
        ("audio_at_end", "hold"),
        ("loras", "union-control"),
        ("loras", None),
        ("loras", [{"path": "a"}] * 17),
        ("negative_prompt", None),
        ("negative_prompt", "x" * 10_001),
        ("cfg_scale", 0.9),
        ("audio_cfg_scale", 21),
        ("stg_scale", -1),
        ("stg_blocks", 28),
        ("stg_blocks", [-1]),
        ("stg_blocks", [3, 3]),
        ("stg_blocks", list(range(9))),
        ("stg_mode", "sound"),
        ("modality_scale", math.nan),
        ("guidance_rescale", 1.1),
        ("continuity", "blend"),
        ("overlap_latents", 0),
        ("overlap_latents", 9),
        ("trim_tail", 65),
        ("two_stage", "yes"),
    ],
)
def test_a_refused_value_names_its_field(field: str, value: object) -> None:
    lines = problems_of(**{field: value}).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{field}: ")


@pytest.mark.parametrize(
    "sigmas",
    [
        [],
        [0.0],
        [1.0],
        [1.0, 0.5],
        [1.0, 0.5, 0.5, 0.0],
        [0.5, 1.0, 0.0],
        [1.1, 0.0],
        [1.0, -0.1, 0.0],
        [0.0, 0.0],
        "1,0",
        [1.0] * 200,
    ],
)
def test_sigmas_must_descend_from_at_most_1_to_0(sigmas: object) -> None:
    assert problems_of(sigmas=sigmas).startswith("sigmas: ")


@pytest.mark.parametrize("bad", [math.nan, "0.5", True, None])
def test_a_bad_sigma_is_named_by_its_place(bad: object) -> None:
    assert problems_of(sigmas=[1.0, bad, 0.0]).startswith("sigmas[1]: ")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"images": [{"path": "a.png"}, {}]}, "images[1].path: Field required"),
        ({"images": [{"path": "a.png", "frame_idx": 12}]}, "images[0].frame_idx: a pinned frame must be 0 or a"),
        ({"images": [{"path": "a.png", "strength": 2}]}, "images[0].strength: Input should be less than or equal"),
        ({"images": [{"path": "a.png", "at": 2}]}, "images[0].at: there is no such parameter"),
        ({"loras": [{"path": "a", "strength": "1"}]}, "loras[0].strength: Input should be a valid number"),
        ({"loras": [{"path": "a", "strength": -11}]}, "loras[0].strength: Input should be greater than or equal"),
        ({"loras": ["a"]}, "loras[0]: Input should be a valid dictionary"),
        ({"stg_blocks": [28, "29"]}, "stg_blocks[1]: Input should be a valid integer"),
    ],
)
def test_a_bad_value_in_a_list_is_named_by_its_place(values: dict[str, object], told: str) -> None:
    assert problems_of(**values).startswith(told)


def test_two_images_on_one_frame_are_refused_with_what_to_do_instead() -> None:
    told = problems_of(i2v_image="face.png", images=[{"path": "room.png"}])
    assert told.startswith("images: a frame takes one image, got 2 for frame 0 (face.png, room.png)")
    assert "composite them into one image (python -m scope_ltx.compose)" in told
    unused = LTX2Config(i2v_image="face.png", i2v_strength=0, images=(ImagePin(path="room.png"),))
    assert unused.images[0].path == "room.png"


def test_an_image_beyond_the_chunk_is_refused_whichever_of_the_two_has_changed() -> None:
    told = problems_of(images=[{"path": "late.png", "frame_idx": 64}], num_frames=33)
    assert told.startswith("images: late.png is pinned to frame 64, but a chunk has 33 frames: pin one up to 32")
    pinned = LTX2Config(images=(ImagePin(path="late.png", frame_idx=64),))
    with pytest.raises(ValidationError, match=r"images\n.*pinned to frame 64"):
        pinned.updated(num_frames=33)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"num_frames": 33, "trim_tail": 33}, "trim_tail"),
        ({"num_frames": 33, "trim_tail": 24, "continuity": "extend"}, "trim_tail"),
        ({"num_frames": 33, "overlap_latents": 5, "continuity": "extend"}, "overlap_latents"),
    ],
)
def test_every_chunk_leaves_something_to_show(values: dict[str, object], field: str) -> None:
    assert problems_of(**values).startswith(f"{field}: a chunk of 33 frames, ")
    assert LTX2Config.model_validate({**values, "num_frames": 41}).num_frames == 41


def test_many_steps_are_for_the_dev_schedule() -> None:
    assert LTX2Config(num_steps=60, schedule="dev").num_steps == 60
    told = problems_of(num_steps=21)
    assert told == "num_steps: at most 20 steps, only the dev schedule takes more, got 21"
    with pytest.raises(ValidationError, match=r"num_steps\n.*only the dev schedule"):
        LTX2Config(num_steps=30, schedule="dev").updated(schedule="beta")


def test_stg_needs_a_block_only_while_it_is_on() -> None:
    assert LTX2Config(stg_blocks=()).stg_blocks == ()
    assert problems_of(stg_scale=1, stg_blocks=[]) == (
        "stg_blocks: name at least one block while stg_scale is above 0, got []"
    )


def test_a_chunk_that_would_last_minutes_is_refused() -> None:
    told = problems_of(frame_rate=0.5)
    assert "frame_rate: a chunk lasts at most 60 s" in told
    assert "129 frames need a frame rate of 2.15 or more" in told
    assert LTX2Config(num_frames=9, frame_rate=0.5).frame_rate == 0.5


def test_the_message_shows_what_came() -> None:
    assert problems_of(num_steps="8") == "num_steps: Input should be a valid integer, got '8'"
    assert problems_of(num_step=8) == "num_step: there is no such parameter"
    assert len(problems_of(height="9" * 1000)) < 200


def test_updated_checks_the_merged_values_and_reports_only_its_own_changes() -> None:
    config = LTX2Config(height=385)
    changed = config.updated(width=100, num_steps=4)
    assert (changed.height, changed.width, changed.num_steps) == (384, 96, 4)
    assert changed.adjustments == ("width 100 became 96: it must be a multiple of 32",)
    assert config.adjustments == ("height 385 became 384: it must be a multiple of 32",)
    with pytest.raises(ValidationError, match="frame_rate"):
        LTX2Config(num_frames=9, frame_rate=1.0).updated(num_frames=129)
    with pytest.raises(ValidationError, match="steps"):
        config.updated(steps=4)


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LTX2Config().height = 64


def test_every_field_tells_a_page_how_to_show_it() -> None:
    fields = LTX2Config.model_json_schema()["properties"]
    assert set(fields) == set(DEFAULTS)
    for name, field in fields.items():
        extra = field["ltx"]
        assert extra["kind"] in ("load", "live"), name
        assert extra["label"], name
        assert extra["widget"] in get_args(Widget), name
        assert extra["section"] in [title for _, title in SECTIONS], name
        assert 20 <= len(field["description"]) <= 160, name
        if extra["widget"] == "slider":
            assert {"minimum", "maximum"} <= set(field), name
        if extra["widget"] == "select":
            assert "enum" in field or "const" in field, name
    assert len({field["ltx"]["order"] for field in fields.values()}) == len(fields)
    json.dumps(fields, allow_nan=False)


def test_sections_follow_each_other_and_the_folded_ones_exist() -> None:
    fields = LTX2Config.model_json_schema()["properties"]
    in_order = sorted(fields.values(), key=lambda field: field["ltx"]["order"])
    titles = [title for title, _ in groupby(field["ltx"]["section"] for field in in_order)]
    assert titles == [title for _, title in SECTIONS]
    assert set(LTX2Config.model_json_schema()["ltx"]["folded"]) < set(titles)
    assert {f["ltx"]["kind"] for f in in_order if f["ltx"]["section"] == titles[-1]} == {"load"}


def test_load_parameters_are_the_ones_a_loaded_model_fixes() -> None:
    assert LTX2Config.parameters("load") == ("ffn_chunk_size", "lora_merge_strategy")
    live = LTX2Config.parameters("live")
    assert live[:3] == ("height", "width", "num_frames")
    assert set(live) | {"ffn_chunk_size", "lora_merge_strategy"} == set(DEFAULTS)


def test_files_and_overrides_are_checked_together(tmp_path: Path) -> None:
    toml = tmp_path / "stream.toml"
    toml.write_text('height = 400\nschedule = "cosine"\nnum_frames = 9\n')
    config = load_config(toml, {"schedule": "beta", "frame_rate": 1})
    assert (config.height, config.schedule, config.num_frames, config.frame_rate) == (416, "beta", 9, 1.0)
    assert config.adjustments == ("height 400 became 416: it must be a multiple of 32",)


def test_a_json_file_can_switch_a_value_off(tmp_path: Path) -> None:
    file = tmp_path / "stream.json"
    file.write_text('{"ffn_chunk_size": null, "sigmas": [1, 0.5, 0]}')
    config = load_config(file, {})
    assert config.ffn_chunk_size is None
    assert config.sigmas == (1.0, 0.5, 0.0)


def test_lists_of_objects_are_tables_in_toml(tmp_path: Path) -> None:
    toml = tmp_path / "stream.toml"
    toml.write_text(
        "stg_blocks = [28, 29]\n"
        '[[loras]]\npath = "ingredients"\nstrength = 1.4\n[[loras]]\npath = "own.safetensors"\n'
        '[[images]]\npath = "first.png"\n[[images]]\npath = "later.png"\nframe_idx = 64\nstrength = 0.5\n'
    )
    config = load_config(toml, {})
    assert config.loras == (LoraChoice(path="ingredients", strength=1.4), LoraChoice(path="own.safetensors"))
    assert [(pin.path, pin.frame_idx, pin.strength) for pin in config.images] == [
        ("first.png", 0, 1.0),
        ("later.png", 64, 0.5),
    ]
    assert config.stg_blocks == (28, 29)
    assert load_config(toml, dict([parse_assignment('loras=[{"path": "x"}]')])).loras == (LoraChoice(path="x"),)
    toml.write_text('[[loras]]\npath = "a"\nstrenght = 1\n')
    with pytest.raises(ValueError, match=r"stream.toml: loras\[0\].strenght: there is no such parameter"):
        load_config(toml, {})


def test_a_problem_in_a_file_names_file_and_field_and_one_of_the_command_names_only_the_field(
    tmp_path: Path,
) -> None:
    toml = tmp_path / "stream.toml"
    toml.write_text("num_steps = 99\nspeed = 2\nheight = 5\n")
    with pytest.raises(ValueError, match="num_steps") as caught:
        load_config(toml, {"height": "tall"})
    assert sorted(str(caught.value).splitlines()) == [
        f"{toml}: num_steps: Input should be less than or equal to 60, got 99",
        f"{toml}: speed: there is no such parameter",
        "height: Input should be a valid integer, got 'tall'",
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.toml", b"height = ", "is not valid TOML"),
        ("a.json", b"{", "is not valid JSON"),
        ("a.json", b"[1]", "must hold one object of parameters, got a list"),
        ("a.yaml", b"height: 3", "ends in .toml or .json"),
        ("a.toml", b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told) as caught:
        read_parameters(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(("name", "text"), [("a.toml", "num_steps = 4\r\n"), ("a.json", '{"num_steps": 4}\r\n')])
def test_a_byte_order_mark_is_no_part_of_a_file(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_parameters(path) == {"num_steps": 4}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_parameters(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_steps=4", ("num_steps", 4)),
        ("schedule=linear", ("schedule", "linear")),
        ("sigmas=[1, 0.5, 0]", ("sigmas", [1, 0.5, 0])),
        ("ffn_chunk_size=null", ("ffn_chunk_size", None)),
        ("i2v_image=a=b.png", ("i2v_image", "a=b.png")),
        ('loras=[{"path": "x", "strength": 1}]', ("loras", [{"path": "x", "strength": 1}])),
    ],
)
def test_assignments(text: str, expected: tuple[str, object]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["num_steps", "=4", ""])
def test_an_assignment_without_a_name_or_value(text: str) -> None:
    with pytest.raises(ValueError, match="expected name=value"):
        parse_assignment(text)
