"""Anything at all, sent to the plugin: nothing raises, and everything counts or has its reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.scope.options import LoadOptions, load_values
from scope_ltx.hosts.scope.translate import IMAGE_ONCE, KNOWN, Asked, Translator
from scope_ltx.hosts.scope.values import frozen, shown
from tests.fakes.scope_time import VirtualTime

LOADED = LTX2Config(height=64, width=64, num_frames=25)


class Notes:
    """A report that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, sentence: str) -> None:
        self.said.append(sentence)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**20, 10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.sampled_from(["distilled", "driving", "extend", "\ud800", "\0", "a" * 20_000, math.nan, 1e308])
    | st.just(torch.zeros(2))
    | st.builds(object)
)
KEYS = ["text", "weight", "path", "scale", "strength", "frame_idx", "target_prompts", "num_steps"]
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "x"]), inner, max_size=3),
    max_leaves=5,
)
HOSTS = ["prompts", "transition", "video", "video_timestamps", "input_mode", "init_cache", "lora_scales", "paused"]
ONCE = ["first_frame_image", "last_frame_image", "vace_ref_images", "images"]
NAMES = st.sampled_from([*LTX2Config.model_fields, *LoadOptions.model_fields, *HOSTS, *ONCE, "self", "x", "", "é"])
KWARGS = st.dictionaries(NAMES, VALUES, max_size=6)


def unexplained(sent: dict[str, Any], asked: Asked, said: list[str]) -> list[str]:
    """Names whose value neither counts nor has a reason why not."""
    found = [name for name in sent if name in LTX2Config.model_fields and name not in asked.changes]
    found = [name for name in found if frozen(sent[name]) != frozen(getattr(LOADED, name))]
    found += [name for name in IMAGE_ONCE if name in sent and name not in asked.once]
    found += [name for name in ("vace_ref_images", "lora_scales") if sent.get(name) not in (None, "", [], ())]
    found += ["prompts"] if "prompts" in sent and asked.mix is None else []
    found += ["transition"] if sent.get("transition") is not None and asked.transition is None else []
    found += [shown(name) for name in sent.keys() - KNOWN if not name.endswith("_timestamps")]
    return [name for name in found if not any(note.startswith(name) for note in said)]


@given(sent=KWARGS)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_what_a_client_sends_counts_or_has_a_reason(sent: dict[str, Any]) -> None:
    notes = Notes()
    asked = Translator(LOADED, notes).take(sent, LOADED)
    assert unexplained(sent, asked, notes.said) == []
    assert isinstance(LOADED.updated(**asked.changes), LTX2Config)
    assert max((len(note) for note in notes.said), default=0) < 2000


@given(sent=KWARGS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_that_a_client_loads_with_raises(sent: dict[str, Any]) -> None:
    config, options = load_values(sent, Notes())
    assert isinstance(config, LTX2Config)
    assert isinstance(options, LoadOptions)


@pytest.fixture(scope="module")
def time() -> VirtualTime:
    return VirtualTime()


@given(sent=KWARGS)
@example(sent={"i2v_image": torch.zeros(2), "images": ["a.png"]})
@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_comes_out_of_a_call(sent: dict[str, Any], time: VirtualTime) -> None:
    """Five hundred dictionaries, each into an instance of its own, which serves on."""
    pipeline = time.host.load(height=32, width=32, num_frames=9)
    assert isinstance(pipeline(**sent), dict)
    assert pipeline.status.last_error is None
    made = len(time.generator.requests)
    good = {"prompts": "a cat", "i2v_image": None, "images": None, "audio_input": None, "reference_video": None}
    assert isinstance(pipeline(**good, transition=None, audio_mode="driving", input_mode="text"), dict)
    time.run(0.1)
    assert len(time.generator.requests) > made, pipeline.status


def test_a_file_name_that_is_no_text_is_reported_in_text(
    time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = time.host.load(height=32, width=32, num_frames=9)
    pipeline(prompts="a cat", last_frame_image="\ud800")
    time.run(0.1)
    assert "last_frame_image: \\ud800: there is no such file. Check the path" in caplog.text


@pytest.mark.parametrize("name", ["height", "prompts", "base_seed", "num_steps", "loras", "unknown"])
def test_a_number_too_long_to_be_written(name: str, time: VirtualTime) -> None:
    pipeline = time.host.load(height=32, width=32, num_frames=9)
    assert pipeline(**{"prompts": "a cat", name: 10**5000}) == {}
    assert pipeline(**{"prompts": "a cat", name: [10**5000]}) == {}
    assert pipeline.status.last_error is None


@given(value=VALUES)
def test_values_are_compared_and_shown_without_trust(value: object) -> None:
    assert hash(frozen(value)) == hash(frozen(value))
    assert frozen(value) == frozen(value)
    assert len(shown(value)) <= 60
    assert shown(value).isascii()


def test_equal_looking_values_are_told_apart() -> None:
    assert frozen([math.nan]) == frozen([float("nan")])
    different = [None, 1, 1.0, True, "1", b"1", [1], {"1": 1}, [[1]], 0, False]
    assert len({frozen(value) for value in different}) == len(different)
