"""The classes that the Daydream Scope host offers a plugin, written from its contract: names, fields, defaults."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from scope_ltx.hosts.scope.host_api import HostApi

COMPONENTS = {"vace", "lora", "resolution", "cache", "denoising_steps", "noise", "quantization", "image", "audio"}


class Requirements(BaseModel):
    input_size: int


class Pipeline:
    """Never calls `shutdown` or `execute` on a pipeline."""

    node_type_id: ClassVar[str] = ""

    def __init__(self, node_id: str = "", config: dict[str, Any] | None = None) -> None:
        self.node_id = node_id
        self.config = config or {}

    @classmethod
    def get_config_class(cls) -> Any:
        return None

    @classmethod
    def get_artifacts(cls) -> list[Any]:
        return list(cls.get_config_class().artifacts)

    def prepare(self, **kwargs: Any) -> Requirements | None:
        return None


@dataclass(frozen=True)
class MediaTimestamp:
    pts: int | None = None
    time_base: Fraction | None = None


class HuggingfaceRepoArtifact(BaseModel):
    repo_id: str
    files: list[str]


class ModeDefaults(BaseModel):
    model_config = ConfigDict(extra="forbid")

    default: bool = False
    height: int | None = None
    width: int | None = None
    denoising_steps: list[int] | None = None
    noise_scale: float | None = None
    noise_controller: bool | None = None
    input_size: int | None = None
    default_temporal_interpolation_steps: int | None = None


def ui_field_config(
    *,
    order: int | None = None,
    component: str | None = None,
    modes: list[str] | None = None,
    is_load_param: bool = False,
    label: str | None = None,
    category: Literal["configuration", "input"] = "configuration",
) -> dict[str, Any]:
    assert component is None or component in COMPONENTS, f"the page knows no component {component!r}"
    given = {"order": order, "component": component, "modes": modes, "label": label}
    hint = {name: value for name, value in given.items() if value is not None}
    return {"ui": {**hint, "category": category, "is_load_param": is_load_param}}


class BasePipelineConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pipeline_id: ClassVar[str] = "base"
    pipeline_name: ClassVar[str] = "Base Pipeline"
    pipeline_description: ClassVar[str] = "Base"
    pipeline_version: ClassVar[str] = "1.0.0"
    docs_url: ClassVar[str | None] = None
    estimated_vram_gb: ClassVar[float | None] = None
    requires_models: ClassVar[bool] = False
    artifacts: ClassVar[list[Any]] = []
    supports_lora: ClassVar[bool] = False
    supports_vace: ClassVar[bool] = False
    supports_cache_management: ClassVar[bool] = False
    supports_kv_cache_bias: ClassVar[bool] = False
    supports_quantization: ClassVar[bool] = False
    produces_video: ClassVar[bool] = True
    produces_audio: ClassVar[bool] = False
    min_dimension: ClassVar[int] = 1
    modified: ClassVar[bool] = False
    inputs: ClassVar[list[str]] = ["video"]
    outputs: ClassVar[list[str]] = ["video"]
    modes: ClassVar[dict[str, ModeDefaults]] = {"text": ModeDefaults(default=True)}
    supports_prompts: ClassVar[bool] = True

    height: int = Field(default=512, ge=1, description="Output height in pixels")
    width: int = Field(default=512, ge=1, description="Output width in pixels")
    manage_cache: bool = Field(default=True)
    base_seed: int = Field(default=42, ge=0)
    denoising_steps: list[int] | None = None
    lora_merge_strategy: Literal["permanent_merge", "runtime_peft"] | None = None
    noise_scale: float | None = Field(default=None, ge=0, le=1)
    noise_controller: bool | None = None
    input_size: int | None = Field(default=1, ge=1)
    ref_images: list[str] | None = None
    vace_context_scale: float = Field(default=1.0, ge=0, le=2)


def host_api(models: Path = Path("/nowhere")) -> HostApi:
    """What `import_host` finds where Scope is installed."""
    return HostApi(
        pipeline=Pipeline,
        requirements=Requirements,
        base_config=BasePipelineConfig,
        mode_defaults=ModeDefaults,
        ui_field_config=ui_field_config,
        repo_artifact=HuggingfaceRepoArtifact,
        timestamp=MediaTimestamp,
        models_dir=lambda: models,
    )


def install(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    """Put the host's modules where a plugin imports them from, for one test."""
    contents: dict[str, dict[str, Any]] = {
        "scope": {},
        "scope.core": {},
        "scope.core.config": {"get_models_dir": lambda: models},
        "scope.core.pipelines": {},
        "scope.core.pipelines.artifacts": {"HuggingfaceRepoArtifact": HuggingfaceRepoArtifact},
        "scope.core.pipelines.base_schema": {
            "BasePipelineConfig": BasePipelineConfig,
            "ModeDefaults": ModeDefaults,
            "ui_field_config": ui_field_config,
        },
        "scope.core.pipelines.interface": {"Pipeline": Pipeline, "Requirements": Requirements},
        "scope.server": {},
        "scope.server.media_packets": {"MediaTimestamp": MediaTimestamp},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
