"""The classes of the Daydream Scope host that the plugin builds upon, imported when they are asked for."""

# ruff: noqa: PLC0415 - the host is there only in its own process
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class HostApi:
    """The host has no types that a checker could see, so these are classes of any kind.

    pipeline: base of what is registered. requirements: `requirements(input_size=8)`. base_config: base of the
    config class. mode_defaults, ui_field_config, repo_artifact: its parts. timestamp: `timestamp(pts, time_base)`.
    models_dir: where the host keeps model files.
    """

    pipeline: type[Any]
    requirements: Callable[..., Any]
    base_config: type[Any]
    mode_defaults: Callable[..., Any]
    ui_field_config: Callable[..., dict[str, Any]]
    repo_artifact: Callable[..., Any]
    timestamp: Callable[..., Any]
    models_dir: Callable[[], Path]


def import_host() -> HostApi:
    """Raises ImportError where Scope is not installed."""
    from scope.core.config import get_models_dir
    from scope.core.pipelines.artifacts import HuggingfaceRepoArtifact
    from scope.core.pipelines.base_schema import BasePipelineConfig, ModeDefaults, ui_field_config
    from scope.core.pipelines.interface import Pipeline, Requirements
    from scope.server.media_packets import MediaTimestamp

    return HostApi(
        pipeline=Pipeline,
        requirements=Requirements,
        base_config=BasePipelineConfig,
        mode_defaults=ModeDefaults,
        ui_field_config=ui_field_config,
        repo_artifact=HuggingfaceRepoArtifact,
        timestamp=MediaTimestamp,
        models_dir=get_models_dir,
    )
