"""What the host sends, however wrong, as changes of a session: nothing raises, and everything has its reason."""

from __future__ import annotations

import logging
import math

import pytest

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.scope.options import LoadOptions, load_values
from scope_ltx.hosts.scope.prompt_values import mix_of, transition_of
from scope_ltx.hosts.scope.reports import REMEMBERED, Reports
from scope_ltx.hosts.scope.translate import Asked, Translator
from scope_ltx.request import WeightedPrompt

LOADED = LTX2Config(height=64, width=64, num_frames=25)
LORA = {"path": "/loras/a.safetensors"}


class Notes:
    """A report that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def notes() -> Notes:
    return Notes()


def taken(notes: Notes, config: LTX2Config = LOADED, /, **kwargs: object) -> Asked:
    return Translator(LOADED, notes).take(kwargs, config)


# parameters


def test_ours_are_validated_and_snapped(notes: Notes) -> None:
    asked = taken(notes, height=100, width=65.0, num_frames=30, num_steps=4)
    config = LOADED.updated(**asked.changes)
    assert (config.height, config.width, config.num_frames, config.num_steps) == (96, 64, 33, 4)
    assert any("height 100 became 96" in note for note in notes.said)
    assert any("num_frames 30 became 33" in note for note in notes.said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height", "384"),
        ("height", 10**9),
        ("width", math.nan),
        ("num_frames", -1),
        ("frame_rate", math.inf),
        ("frame_rate", 0),
        ("schedule", "fastest"),
        ("sigmas", [0.1, 0.9]),
        ("sigmas", {}),
        ("base_seed", -1),
        ("base_seed", True),
        ("i2v_strength", 2.0),
        ("loras", "a"),
        ("loras", [{"path": 5}]),
        ("images", [{"nothing": 1}]),
        ("stg_blocks", [-1]),
        ("control_group", []),
    ],
)
def test_a_wrong_value_stays_out_and_is_named(name: str, value: object, notes: Notes) -> None:
    asked = taken(notes, LOADED, **{name: value, "num_steps": 5})
    assert asked.changes == {"num_steps": 5}, "the good one beside it counts"
    assert [note for note in notes.said if note.startswith(name)]


def test_values_that_only_together_are_wrong(notes: Notes) -> None:
    """257 frames at 2 fps would last 128 s; either alone is fine."""
    asked = taken(notes, num_frames=257, frame_rate=2.0)
    config = LOADED.updated(**asked.changes)
    assert (config.num_frames == 257) != (config.frame_rate == 2.0)
    assert notes.said


def test_what_the_host_itself_puts_there_is_nobodys_business(notes: Notes) -> None:
    asked = taken(
        notes,
        prompts="a cat",
        init_cache=True,
        input_mode="text",
        prompt_interpolation_method="linear",
        denoising_step_list=[700, 500],
        noise_scale=0.7,
        noise_controller=True,
        manage_cache=True,
        vace_context_scale=1.0,
        pipeline_ids=["ltx2"],
        graph={"nodes": []},
        recording=False,
    )
    assert asked.changes == {}
    assert asked.fresh
    assert notes.said == []


def test_an_unknown_key_is_told_once() -> None:
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("test_scope_translate")
    logger.addFilter(lambda record: records.append(record) or False)  # type: ignore[func-returns-value]
    translator = Translator(LOADED, Reports(logger).once)
    for _ in range(100):
        translator.take({"prompts": "a cat", "heigth": 64, "video2_timestamps": []}, LOADED)
    assert [record.getMessage() for record in records] == ["'heigth': there is no such parameter, it is ignored"]


def test_reports_forget_the_oldest() -> None:
    records: list[str] = []
    logger = logging.getLogger("test_scope_reports")
    logger.addFilter(lambda record: records.append(record.getMessage()) or False)  # type: ignore[func-returns-value]
    reports = Reports(logger)
    for index in range(2 * REMEMBERED):
        reports.once(f"number {index}")
        reports.once(f"number {index}")
    assert len(records) == 2 * REMEMBERED
    reports.once("number 0")
    assert records[-1] == "number 0"


def test_a_value_counts_when_it_changes(notes: Notes) -> None:
    """The host sends all of a session's parameters with every call."""
    translator = Translator(LOADED, notes)
    assert translator.take({"prompts": "a", "num_steps": 4}, LOADED).changes == {"num_steps": 4}
    assert translator.take({"prompts": "a", "num_steps": 4}, LOADED) == Asked()
    assert translator.take({"prompts": "a", "num_steps": 6}, LOADED).changes == {"num_steps": 6}
    assert translator.take({"prompts": "a", "num_steps": "x"}, LOADED).changes == {}
    said = len(notes.said)
    translator.take({"prompts": "a", "num_steps": "x"}, LOADED)
    assert len(notes.said) == said


def test_what_is_fixed_while_loaded_is_refused_with_what_to_do(notes: Notes) -> None:
    assert taken(notes, ffn_chunk_size=100).changes == {}
    assert "ffn_chunk_size: it is fixed while the pipeline is loaded; load again with 100" in notes.said
    notes.said.clear()
    assert taken(notes, ffn_chunk_size=LOADED.ffn_chunk_size, prompts="a").changes == {}
    assert notes.said == []


@pytest.mark.parametrize("nothing", [None, "", []])
@pytest.mark.parametrize("name", ["i2v_image", "reference_video", "audio_input"])
def test_a_null_clears_a_file(name: str, nothing: object, notes: Notes) -> None:
    config = LOADED.updated(**{name: "/assets/a"})
    asked = taken(notes, config, **{name: nothing})
    assert asked.changes == {name: None}


def test_a_null_of_something_else_goes_back_to_what_was_loaded(notes: Notes) -> None:
    asked = taken(notes, LOADED.updated(height=128), height=None)
    assert asked.changes == {"height": 64}
    assert any(note.startswith("height: null") for note in notes.said)


# what comes once


def test_pictures_that_come_once(notes: Notes) -> None:
    translator = Translator(LOADED, notes)
    first = translator.take({"first_frame_image": "/a.png", "last_frame_image": None}, LOADED)
    assert first.once == {"first_frame_image": "/a.png", "last_frame_image": None}
    assert translator.take({}, LOADED).once == {}
    again = translator.take({"first_frame_image": "/a.png"}, LOADED)
    assert again.once == {"first_frame_image": "/a.png"}, "the same picture once more"
    assert translator.take({"last_frame_image": 5}, LOADED).once == {}
    assert any("last_frame_image" in note for note in notes.said)


def test_a_list_of_pictures_is_spread_over_the_chunk(notes: Notes) -> None:
    asked = taken(notes, images=["/a.png", "/b.png", "/c.png"])
    pins = LOADED.updated(**asked.changes).images
    assert [(pin.path, pin.frame_idx) for pin in pins] == [("/a.png", 0), ("/b.png", 16), ("/c.png", 24)]
    behind = taken(notes, i2v_image="/first.png", images=["/b.png"])
    assert [pin.frame_idx for pin in LOADED.updated(**behind.changes).images] == [8]
    many = taken(notes, images=[f"/{index}.png" for index in range(9)])
    assert len(LOADED.updated(**many.changes).images) == 4
    assert any("4 places" in note for note in notes.said)
    assert taken(notes, LOADED.updated(**asked.changes), images=None).changes == {"images": ()}


def test_lora_scales_change_the_loaded_ones(notes: Notes) -> None:
    config = LOADED.updated(loras=[LORA, {"path": "/loras/b.safetensors", "strength": 0.5}])
    asked = taken(notes, config, lora_scales=[{"path": LORA["path"], "scale": 0.25}, {"path": "/c", "scale": 1}])
    loras = config.updated(**asked.changes).loras
    assert [(lora.path, lora.strength) for lora in loras] == [(LORA["path"], 0.25), ("/loras/b.safetensors", 0.5)]
    assert [note for note in notes.said if "/c" in note and "not among the loaded LoRAs" in note]
    notes.said.clear()
    assert taken(notes, config, lora_scales=[{"path": LORA["path"], "scale": "x"}]).changes == {}
    assert notes.said


def test_loras_in_the_hosts_form(notes: Notes) -> None:
    asked = taken(notes, loras=[{**LORA, "scale": 0.5, "merge_mode": "runtime_peft"}])
    assert LOADED.updated(**asked.changes).loras[0].strength == 0.5
    assert any("runtime_peft" in note for note in notes.said)


# prompts


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ([{"text": " a cat ", "weight": 100}], [("a cat", 1.0)]),
        ([{"text": "a", "weight": 100}, {"text": "b", "weight": 300}], [("a", 0.25), ("b", 0.75)]),
        ([{"text": "a", "weight": 1e-9}, {"text": "b", "weight": 3e-9}], [("a", 0.25), ("b", 0.75)]),
        ([{"text": "a", "weight": 1}, {"text": "b", "weight": 0}], [("a", 1.0)]),
        ([{"text": "a"}, {"text": ""}, {"text": "  "}], [("a", 1.0)]),
        (["a", {"text": "b"}], [("a", 0.5), ("b", 0.5)]),
        ({"text": "a", "weight": 5}, [("a", 1.0)]),
        ([{"text": "a", "weight": math.nan}, {"text": "b"}], [("b", 1.0)]),
        ([{"text": "a", "weight": -1}, 7, None, {"text": "b"}], [("b", 1.0)]),
    ],
)
def test_prompts(value: object, expected: list[tuple[str, float]], notes: Notes) -> None:
    mix = mix_of(value, "prompts", notes)
    assert mix is not None
    assert [one.text for one in mix] == [text for text, _ in expected]
    assert [one.weight for one in mix] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize("value", [None, [], "", "   ", [{"text": ""}], [{"weight": 1}], 5, {"a": 1}, ["\ud800"]])
def test_no_prompt(value: object, notes: Notes) -> None:
    assert mix_of(value, "prompts", notes) is None
    assert Translator(LOADED, notes).take({"prompts": value}, LOADED).mix is None
    assert any(note.startswith("prompts: there is no usable prompt") for note in notes.said)


def test_more_prompts_than_are_blended(notes: Notes) -> None:
    mix = mix_of([f"number {index}" for index in range(20)], "prompts", notes)
    assert mix is not None
    assert len(mix) == 16
    assert any("at most 16" in note for note in notes.said)


def test_transitions(notes: Notes) -> None:
    asked = transition_of({"target_prompts": [{"text": "b", "weight": 7}], "num_steps": 6}, notes)
    assert asked is not None
    assert (asked.target, asked.chunks) == ((WeightedPrompt("b", 1.0),), 6)
    default = transition_of({"target_prompts": "b"}, notes)
    assert default is not None
    assert default.chunks == 4
    assert notes.said == []
    assert transition_of({"target_prompts": []}, notes) is None
    assert transition_of("b", notes) is None
    odd = transition_of({"target_prompts": "b", "num_steps": "many"}, notes)
    assert odd is not None
    assert odd.chunks == 4
    assert len(notes.said) == 3


def test_the_same_transition_again_is_another_one(notes: Notes) -> None:
    translator = Translator(LOADED, notes)
    there = {"target_prompts": "b"}
    translator.take({"prompts": "a"}, LOADED)
    assert translator.take({"prompts": "a", "transition": there}, LOADED).transition is not None
    assert translator.take({"prompts": "a", "transition": there}, LOADED).transition is None
    translator.take({"prompts": "a"}, LOADED)
    assert translator.take({"prompts": "a", "transition": there}, LOADED).transition is not None


def test_a_transition_to_prompts_that_come_with_it_goes_over(notes: Notes) -> None:
    """Some clients send both at once: the new prompts must not take effect before the transition does."""
    translator = Translator(LOADED, notes)
    translator.take({"prompts": "a"}, LOADED)
    asked = translator.take({"prompts": "b", "transition": {"target_prompts": "b"}}, LOADED)
    assert asked.mix is None
    assert asked.transition is not None


# load


def test_load_values_of_the_old_plugin(notes: Notes) -> None:
    config, options = load_values(
        {
            "height": 512,
            "width": 700,
            "num_frames": 121,
            "randomize_seed": False,
            "audio_mode": "id_lora",
            "identity_guidance_scale": 2.0,
            "ffn_chunk_size": None,
            "realtime_pacing_slack": 0.5,
            "lora_merge_strategy": "permanent_merge",
            "loras": [{"path": "/a.safetensors", "scale": 0.8}],
            "lora_merge_mode": "permanent_merge",
            "manage_cache": True,
            "vace_context_scale": 1.0,
            "input_size": 1,
        },
        notes,
    )
    assert (config.height, config.width, config.num_frames) == (512, 704, 121)
    assert config.loras[0].strength == 0.8
    assert options == LoadOptions()
    assert notes.said == ["width 700 became 704: it must be a multiple of 32"]


def test_load_options(notes: Notes) -> None:
    _, options = load_values({"model": "small", "vram_budget_gb": 20, "pageable": True, "device": 5}, notes)
    assert (options.model, options.vram_budget_gb, options.pageable, options.device) == (
        "small",
        20.0,
        True,
        "auto",
    )
    assert any(note.startswith("device") for note in notes.said)
