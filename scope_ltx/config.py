"""The parameters of a stream: names, defaults, ranges and meaning, in one place.

Defaults live only here; below this module every argument is required. Values are checked once, when an
`LTX2Config` is made, and never again. Nothing here knows torch, a model or a host.

Numbers are strict: "384" is refused, 384.0 is taken as 384, 384.5 is refused, NaN and infinity are refused.
Sizes and frame counts inside their range are snapped to what the model can make, and `adjustments` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StrictBool,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

Schedule = Literal["distilled", "linear", "cosine", "linear_quadratic", "beta"]
AudioMode = Literal["driving", "id_lora"]
LoraMergeStrategy = Literal["permanent_merge"]
Kind = Literal["load", "live"]
Widget = Literal["number", "slider", "select", "toggle", "image", "audio", "sigmas", "hidden"]

SIZE_MULTIPLE = 32
"""The video VAE halves height and width five times."""
FRAME_MULTIPLE = 8
"""The video VAE halves time three times and keeps one anchor frame: 8K + 1 frames."""
MAX_CHUNK_S = 60.0
"""Bounds the sound of one chunk. The model's own time axis ends at 20 s."""


def _whole(value: object) -> object:
    """JSON and JavaScript write 384 as 384.0; every other type is left for the strict check."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Whole = Annotated[int, BeforeValidator(_whole), Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
MediaPath = Annotated[StrictStr, Field(min_length=1, max_length=4096)]


def _ltx(kind: Kind, label: str, order: int, widget: Widget, **more: float | str) -> dict[str, Any]:
    """What a page or a host needs to render a field; `more` holds `step` and `unit` where they help."""
    return {"ltx": {"kind": kind, "label": label, "order": order, "widget": widget, **more}}


def _nearest(value: int, multiple: int) -> int:
    """Nearest multiple; a value exactly between two goes up."""
    return (2 * value + multiple) // (2 * multiple) * multiple


class LTX2Config(BaseModel):
    """Every parameter of a stream, immutable. A live parameter takes effect at the next chunk.

    Two configurations are equal when their parameters are; `adjustments` does not count.
    Raises pydantic's ValidationError, which names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    height: Whole = Field(
        default=384,
        ge=32,
        le=2048,
        description="Output height in pixels, snapped to the nearest multiple of 32.",
        json_schema_extra=_ltx("live", "Height", 10, "number", step=SIZE_MULTIPLE, unit="px"),
    )
    width: Whole = Field(
        default=320,
        ge=32,
        le=2048,
        description="Output width in pixels, snapped to the nearest multiple of 32.",
        json_schema_extra=_ltx("live", "Width", 11, "number", step=SIZE_MULTIPLE, unit="px"),
    )
    num_frames: Whole = Field(
        default=129,
        ge=9,
        le=257,
        description="Frames per chunk, snapped to the nearest 8K + 1 (9, 17, 25, ..., 257).",
        json_schema_extra=_ltx("live", "Frames per chunk", 12, "slider", step=FRAME_MULTIPLE, unit="frames"),
    )
    frame_rate: Real = Field(
        default=24.0,
        gt=0,
        le=120,
        description="Frames per second of the output; with the frame count it sets how long the sound is.",
        json_schema_extra=_ltx("live", "Frame rate", 13, "number", step=0.001, unit="fps"),
    )
    num_steps: Whole = Field(
        default=8,
        ge=1,
        le=20,
        description="Euler denoising steps per chunk. The distilled schedule is made for 8.",
        json_schema_extra=_ltx("live", "Steps", 20, "slider", step=1),
    )
    schedule: Schedule = Field(
        default="distilled",
        description="Which noise levels the steps visit. Distilled fits 8 steps, else it becomes linear.",
        json_schema_extra=_ltx("live", "Schedule", 21, "select"),
    )
    sigmas: tuple[Real, ...] | None = Field(
        default=None,
        min_length=2,
        max_length=101,
        description="Your own noise levels, from at most 1 strictly down to 0. Overrides steps and schedule.",
        json_schema_extra=_ltx("live", "Custom sigmas", 22, "sigmas"),
    )
    randomize_seed: StrictBool = Field(
        default=True,
        description="On: every chunk has a seed of its own. Off: every chunk uses the base seed.",
        json_schema_extra=_ltx("live", "New seed for every chunk", 30, "toggle"),
    )
    base_seed: Whole = Field(
        default=42,
        ge=0,
        le=2**63 - 1,
        description="The number from which every chunk's noise follows.",
        json_schema_extra=_ltx("live", "Base seed", 31, "number", step=1),
    )
    i2v_image: MediaPath | None = Field(
        default=None,
        description="Image to start from: the first frame of every chunk is conditioned on it.",
        json_schema_extra=_ltx("live", "First-frame image", 40, "image"),
    )
    i2v_strength: Real = Field(
        default=1.0,
        ge=0,
        le=1,
        description="How strictly the first frame follows the image. 1 matches it, 0 ignores it.",
        json_schema_extra=_ltx("live", "Image strength", 41, "slider", step=0.01),
    )
    control_strength: Real = Field(
        default=1.0,
        ge=0,
        le=1,
        description="How strongly the reference video guides the picture in video mode.",
        json_schema_extra=_ltx("live", "Control strength", 42, "slider", step=0.01),
    )
    audio_input: MediaPath | None = Field(
        default=None,
        description="Audio file: the driving track or the voice to imitate, as the audio mode says.",
        json_schema_extra=_ltx("live", "Audio input", 50, "audio"),
    )
    audio_mode: AudioMode = Field(
        default="driving",
        description="driving: the input becomes the sound. id_lora: the input is a voice to imitate.",
        json_schema_extra=_ltx("live", "Audio mode", 51, "select"),
    )
    identity_guidance_scale: Real = Field(
        default=3.0,
        ge=0,
        le=20,
        description="How strongly ID-LoRA mode amplifies the reference voice.",
        json_schema_extra=_ltx("live", "Identity guidance", 52, "slider", step=0.1),
    )
    realtime_pacing_slack: Real = Field(
        default=0.0,
        ge=0,
        description="How far generation may run ahead of the wall clock before it waits, as a fraction. "
        "0 never makes the generator wait.",
        json_schema_extra=_ltx("live", "Pacing slack", 60, "number", step=0.05),
    )
    ffn_chunk_size: Whole | None = Field(
        default=4096,
        ge=1,
        description="Tokens per slice of the feed-forward layers. Fewer need less memory; none: no slices.",
        json_schema_extra=_ltx("load", "Feed-forward slice", 70, "number", step=1, unit="tokens"),
    )
    lora_merge_strategy: LoraMergeStrategy = Field(
        default="permanent_merge",
        description="How LoRAs are applied. FP8 weights only take a permanent merge.",
        json_schema_extra=_ltx("load", "LoRA merge", 71, "select"),
    )

    _adjustments: tuple[str, ...] = PrivateAttr(default=())

    @property
    def adjustments(self) -> tuple[str, ...]:
        """What was snapped when this object was made, as sentences for the user."""
        return self._adjustments

    @field_validator("height", "width")
    @classmethod
    def _snap_size(cls, value: int) -> int:
        return _nearest(value, SIZE_MULTIPLE)

    @field_validator("num_frames")
    @classmethod
    def _snap_frames(cls, value: int) -> int:
        return _nearest(value - 1, FRAME_MULTIPLE) + 1

    @field_validator("frame_rate")
    @classmethod
    def _bound_chunk(cls, value: float, info: ValidationInfo) -> float:
        frames = info.data.get("num_frames")
        if frames is not None and frames > value * MAX_CHUNK_S:
            raise PydanticCustomError(
                "chunk_too_long",
                "a chunk lasts at most {limit} s: {frames} frames need a frame rate of {least} or more",
                {"limit": f"{MAX_CHUNK_S:g}", "frames": frames, "least": f"{frames / MAX_CHUNK_S:.4g}"},
            )
        return value

    @field_validator("sigmas")
    @classmethod
    def _descend(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        falling = all(high > low for high, low in pairwise(value))
        if not (falling and 0 < value[0] <= 1 and value[-1] == 0):
            raise PydanticCustomError(
                "sigmas_not_descending",
                "sigmas must start in (0, 1], strictly descend and end in 0, got {sigmas}",
                {"sigmas": ", ".join(f"{sigma:g}" for sigma in value)},
            )
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _report_snapping(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        config = handler(data)
        if isinstance(data, Mapping):
            config._adjustments = tuple(_snapped(config, data))
        return config

    def updated(self, /, **changes: Any) -> LTX2Config:
        """This configuration with `changes`, all values checked again.

        The result's `adjustments` are about these changes only. Raises ValidationError naming the field.
        """
        return LTX2Config.model_validate({**self.model_dump(), **changes})

    @classmethod
    def parameters(cls, kind: Kind) -> tuple[str, ...]:
        """Names of the load parameters (fixed while a model is loaded) or the live ones, in display order."""
        schema = cls.model_json_schema()["properties"]
        names = [name for name, field in schema.items() if field["ltx"]["kind"] == kind]
        return tuple(sorted(names, key=lambda name: int(schema[name]["ltx"]["order"])))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LTX2Config):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))


_SNAPPED_FIELDS = {
    "height": f"it must be a multiple of {SIZE_MULTIPLE}",
    "width": f"it must be a multiple of {SIZE_MULTIPLE}",
    "num_frames": f"it must be {FRAME_MULTIPLE}K + 1",
}


def _snapped(config: LTX2Config, given: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {given[name]} became {getattr(config, name)}: {rule}"
        for name, rule in _SNAPPED_FIELDS.items()
        if name in given and given[name] != getattr(config, name)
    ]


def describe_problems(error: ValidationError) -> str:
    """A ValidationError as one line per problem, each starting with its field."""
    return "\n".join(describe_problem(problem) for problem in error.errors(include_url=False))


def describe_problem(problem: ErrorDetails) -> str:
    """One problem of a ValidationError: "num_steps: Input should be a valid integer, got '8'"."""
    head, *rest = problem["loc"] or ("config",)
    field = str(head) + "".join(f"[{part}]" for part in rest)
    if problem["type"] == "extra_forbidden":
        return f"{field}: there is no such parameter"
    value = repr(problem["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    got = "" if ", got " in problem["msg"] else f", got {shown}"
    return f"{field}: {problem['msg']}{got}"
