"""The config class that the host reads: its base's ports and metadata, our fields with the hints its page needs.

The host makes no object of it from a user's values. It copies the defaults and renders the schema.
"""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar

from pydantic import create_model
from pydantic.fields import FieldInfo

from scope_ltx.config import SIZE_MULTIPLE, LTX2Config
from scope_ltx.hosts.scope.host_api import HostApi
from scope_ltx.hosts.scope.options import LoadOptions
from scope_ltx.manifest import load_manifest

COMPONENTS = {"height": "resolution", "width": "resolution", "lora_merge_strategy": "lora"}
"""Fields that the host's page has a widget of its own for. The LoRA list hangs on the merge strategy."""
WIDGETS = {"image": "image", "audio": "audio"}
PLAIN = frozenset({"number", "slider", "select", "toggle", "text", "video"})
"""Widgets that the host's page finds by the field's type; a video is a path in a text box. The others (lists of
objects and of numbers) it cannot show: they are for clients."""
INPUTS = frozenset(
    {"i2v_image", "i2v_strength", "audio_input", "audio_mode", "reference_video", "control_strength"}
)
"""Shown below the prompt."""
LOADED = frozenset({"height", "width"})
"""Live with us, but the host's page offers them only between streams."""


def build_config_class(host: HostApi) -> type[Any]:
    """Derived from the host's base, `LoadOptions` and `LTX2Config`; each field is an inherited one with hints."""
    facts = load_manifest().plugin
    ours: dict[str, FieldInfo] = {**LoadOptions.model_fields, **LTX2Config.model_fields}
    # The host's base comes first and is overridden field by field: LTX2Config's order of fields must stay, since
    # some of its checks look at the fields before.
    fields: dict[str, Any] = {name: (info.annotation, _hinted(name, info, host)) for name, info in ours.items()}
    bases = (host.base_config, LoadOptions, LTX2Config)
    parent: type[Any] = create_model("LTX2ScopeFields", __base__=bases, __module__=__name__, **fields)

    class LTX2ScopeConfig(parent):  # type: ignore[misc]
        __doc__ = facts.description

        pipeline_id: ClassVar[str] = facts.id
        pipeline_name: ClassVar[str] = facts.name
        pipeline_description: ClassVar[str] = facts.description
        pipeline_version: ClassVar[str] = facts.version
        docs_url: ClassVar[str | None] = facts.homepage
        estimated_vram_gb: ClassVar[float | None] = facts.estimated_vram_gb
        requires_models: ClassVar[bool] = True
        artifacts: ClassVar[list[Any]] = [
            host.repo_artifact(repo_id=repo, files=files) for repo, files in load_manifest().artifacts().items()
        ]
        supports_lora: ClassVar[bool] = True
        produces_video: ClassVar[bool] = True
        produces_audio: ClassVar[bool] = True
        supports_prompts: ClassVar[bool] = True
        min_dimension: ClassVar[int] = SIZE_MULTIPLE
        modes: ClassVar[dict[str, Any]] = {
            name: host.mode_defaults(default=name == facts.scope.modes[0]) for name in facts.scope.modes
        }

    return LTX2ScopeConfig


def _hinted(name: str, info: FieldInfo, host: HostApi) -> FieldInfo:
    """The field itself, with the host's hint beside ours where its page can show it."""
    extra = info.json_schema_extra
    hint = extra.get("ltx") if isinstance(extra, dict) else None
    if not isinstance(hint, dict):
        return info
    widget = str(hint["widget"])
    component = COMPONENTS.get(name) or WIDGETS.get(widget)
    if component is None and widget not in PLAIN:
        return info
    ui = host.ui_field_config(
        order=hint["order"],
        component=component,
        is_load_param=hint["kind"] == "load" or name in LOADED,
        label=hint["label"],
        category="input" if name in INPUTS else "configuration",
    )
    hinted = copy(info)
    hinted.json_schema_extra = {**extra, **ui} if isinstance(extra, dict) else ui
    return hinted
