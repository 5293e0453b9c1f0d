"""The config class that the host reads: our fields, its hints, and nothing that it could trip over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.scope.config import LOADED, PLAIN, build_config_class
from scope_ltx.hosts.scope.options import LoadOptions
from scope_ltx.manifest import load_manifest
from tests.fakes.scope_api import COMPONENTS, BasePipelineConfig, host_api

CONFIG: Any = build_config_class(host_api())
SCHEMA: dict[str, Any] = CONFIG.model_json_schema()["properties"]
OURS = {**LoadOptions.model_fields, **LTX2Config.model_fields}


def test_it_is_the_hosts_and_ours() -> None:
    assert issubclass(CONFIG, BasePipelineConfig)
    assert issubclass(CONFIG, LTX2Config)
    assert set(CONFIG.model_fields) == {*OURS, *BasePipelineConfig.model_fields}


@pytest.mark.parametrize("name", OURS)
def test_a_field_is_the_one_of_our_schema(name: str) -> None:
    """Defaults, bounds and descriptions are written once."""
    ours, theirs = OURS[name], CONFIG.model_fields[name]
    assert theirs.default == ours.default
    assert theirs.metadata == ours.metadata
    assert theirs.description == ours.description
    plain = {key: value for key, value in SCHEMA[name].items() if key != "ui"}
    source = LTX2Config if name in LTX2Config.model_fields else LoadOptions
    assert plain == source.model_json_schema()["properties"][name]


@pytest.mark.parametrize("name", CONFIG.model_fields)
def test_the_host_copies_defaults_as_they_are(name: str) -> None:
    field = CONFIG.model_fields[name]
    assert field.default_factory is None
    assert field.default is not PydanticUndefined
    json.dumps(field.default, default=lambda value: pytest.fail(f"{value!r} is no plain value"))


@pytest.mark.parametrize("name", OURS)
def test_hints(name: str) -> None:
    """What the host's page can show has a hint; what it would show wrongly has none."""
    ltx, ui = SCHEMA[name]["ltx"], SCHEMA[name].get("ui")
    if ui is None:
        assert ltx["widget"] not in PLAIN
        return
    assert ui.keys() <= {"order", "component", "modes", "label", "category", "is_load_param"}
    assert ui["label"] == ltx["label"]
    assert ui["order"] == ltx["order"]
    assert ui["is_load_param"] is (ltx["kind"] == "load" or name in LOADED)
    assert ui.get("component") in {None, *COMPONENTS}
    assert ltx["widget"] not in ("image", "audio") or ui["component"] == ltx["widget"]


def test_what_the_hosts_page_needs_to_know() -> None:
    manifest = load_manifest()
    assert CONFIG.pipeline_id == manifest.plugin.id == "ltx2"
    assert CONFIG.pipeline_version == manifest.plugin.version
    assert CONFIG.produces_audio
    assert CONFIG.produces_video
    assert CONFIG.supports_lora
    assert CONFIG.supports_prompts
    assert not CONFIG.supports_vace
    assert CONFIG.estimated_vram_gb == manifest.plugin.estimated_vram_gb
    assert [(artifact.repo_id, artifact.files) for artifact in CONFIG.artifacts] == list(
        manifest.artifacts().items()
    )
    assert {name: mode.default for name, mode in CONFIG.modes.items()} == {"text": True, "video": False}
    assert SCHEMA["i2v_image"]["ui"]["component"] == "image"
    assert SCHEMA["audio_input"]["ui"]["component"] == "audio"
    assert SCHEMA["lora_merge_strategy"]["ui"]["component"] == "lora"
    assert {"height", "width"} == {
        name for name, field in SCHEMA.items() if field.get("ui", {}).get("component") == "resolution"
    }


def test_it_could_be_made_from_values() -> None:
    """The host never does; a plugin that is read by other tools may be."""
    config = CONFIG(height=100, prompts=None) if "prompts" in CONFIG.model_fields else CONFIG(height=100)
    assert config.height == 96
    with pytest.raises(ValueError, match="nothing"):
        CONFIG(nothing=1)


def test_the_fields_of_the_plugin_before_are_there() -> None:
    before = {
        *("height", "width", "num_frames", "num_steps", "schedule", "sigmas", "frame_rate", "randomize_seed"),
        *("base_seed", "i2v_image", "i2v_strength", "control_strength", "audio_input", "audio_mode"),
        *("identity_guidance_scale", "ffn_chunk_size", "lora_merge_strategy", "realtime_pacing_slack"),
    }
    assert before <= CONFIG.model_fields.keys()
    assert SCHEMA["audio_mode"]["enum"] == ["driving", "id_lora"]
