"""What is decided when the host loads the pipeline: which model, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from scope_ltx.config import LTX2Config
from scope_ltx.engine import EngineOptions
from scope_ltx.hosts.scope.prompt_values import Report
from scope_ltx.hosts.scope.translate import HOST_KEYS, lora_choices, pins_of, valid_changes
from scope_ltx.hosts.scope.values import described, shown
from scope_ltx.mode_parameters import Real, ltx


class LoadOptions(BaseModel):
    """Load parameters beside those of `LTX2Config`. Raises ValidationError naming the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    model: StrictStr | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Model directory. None: the host's own. small: a tiny model, to try things out.",
        json_schema_extra=ltx("load", "Model directory", 102, "text"),
    )
    device: StrictStr = Field(
        default="auto",
        min_length=1,
        max_length=32,
        description="auto, cpu or cuda:N.",
        json_schema_extra=ltx("load", "Device", 103, "hidden"),
    )
    vram_budget_gb: Real | None = Field(
        default=None,
        gt=0,
        description="Device memory that may be used, in GiB. None: what is free. Less means more streaming.",
        json_schema_extra=ltx("load", "VRAM budget", 104, "number", unit="GiB"),
    )
    pageable: StrictBool = Field(
        default=False,
        description="Do not lock host memory. Copies are slower then.",
        json_schema_extra=ltx("load", "Pageable host memory", 105, "toggle"),
    )
    acceleration: Literal["auto", "off", "graphs", "compile"] = Field(
        default="auto",
        description="Captured and compiled kernels. auto: what the device can.",
        json_schema_extra=ltx("load", "Acceleration", 106, "select"),
    )

    @property
    def engine(self) -> EngineOptions:
        return EngineOptions(self.vram_budget_gb, self.pageable, self.acceleration)


def load_values(kwargs: Mapping[str, object], report: Report) -> tuple[LTX2Config, LoadOptions]:
    """What the host gives `__init__`: schema defaults and whatever a client asked for, none of it checked.

    A value that cannot be used leaves its default, and is reported. Never raises for what came.
    """
    defaults = LTX2Config()
    wanted: dict[str, Any] = {name: kwargs[name] for name in LTX2Config.model_fields if name in kwargs}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if "loras" in wanted:
        wanted["loras"] = lora_choices(wanted["loras"], report)
    if "images" in wanted:
        wanted["images"] = pins_of(wanted["images"], {**defaults.__dict__, **wanted}, report)
    if kwargs.get("lora_merge_mode") not in (None, "permanent_merge"):
        report(
            f"lora_merge_mode: {shown(kwargs['lora_merge_mode'])} is not possible with FP8 weights: LoRAs are "
            "merged permanently"
        )
    config = defaults.updated(**valid_changes(defaults, wanted, report))
    known = HOST_KEYS | LTX2Config.model_fields.keys() | LoadOptions.model_fields.keys()
    for name in kwargs:
        if name not in known:
            report(f"{shown(name)}: there is no such load parameter, it is ignored")
    return config, _options(kwargs, report)


def _options(kwargs: Mapping[str, object], report: Report) -> LoadOptions:
    wanted: dict[str, Any] = {
        name: kwargs[name] for name in LoadOptions.model_fields if kwargs.get(name) is not None
    }
    while True:
        try:
            return LoadOptions(**wanted)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                report(f"{described(problem)}: the default is used")
                wanted.pop(str(problem["loc"][0]), None)
