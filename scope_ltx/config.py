"""The parameters of a stream: names, defaults, ranges and meaning, in one place.

Defaults live only here; below this module every argument is required. Values are checked once, when an
`LTX2Config` is made, and never again. Nothing here knows torch, a model or a host.

Numbers are strict: "384" is refused, 384.0 is taken as 384, 384.5 is refused, NaN and infinity are refused.
Sizes and frame counts inside their range are snapped to what the model can make, and `adjustments` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from scope_ltx.media_in.pins import all_pins
from scope_ltx.mode_parameters import ADVANCED, Kind, ModeParameters, Real, Whole, ltx

Schedule = Literal["distilled", "linear", "cosine", "linear_quadratic", "beta", "dev"]

SIZE_MULTIPLE = 32
"""The video VAE halves height and width five times."""
FRAME_MULTIPLE = 8
"""The video VAE halves time three times and keeps one anchor frame: 8K + 1 frames."""
MAX_STEPS, MAX_DEV_STEPS = 20, 60
MAX_CHUNK_S = 60.0
"""Bounds the sound of one chunk. The model's own time axis ends at 20 s."""


def _nearest(value: int, multiple: int) -> int:
    """Nearest multiple; a value exactly between two goes up."""
    return (2 * value + multiple) // (2 * multiple) * multiple


class LTX2Config(ModeParameters):
    """Every parameter of a stream, immutable. A live parameter takes effect at the next chunk.

    Two configurations are equal when their parameters are; `adjustments` does not count.
    Raises pydantic's ValidationError, which names the field.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, json_schema_extra={"ltx": {"folded": [*ADVANCED]}}
    )

    height: Whole = Field(
        default=384,
        ge=32,
        le=2048,
        description="Output height in pixels, snapped to the nearest multiple of 32; of 64 with two stages.",
        json_schema_extra=ltx("live", "Height", 10, "number", step=SIZE_MULTIPLE, unit="px"),
    )
    width: Whole = Field(
        default=320,
        ge=32,
        le=2048,
        description="Output width in pixels, snapped to the nearest multiple of 32; of 64 with two stages.",
        json_schema_extra=ltx("live", "Width", 11, "number", step=SIZE_MULTIPLE, unit="px"),
    )
    num_frames: Whole = Field(
        default=129,
        ge=9,
        le=257,
        description="Frames per chunk, snapped to the nearest 8K + 1 (9, 17, 25, ..., 257).",
        json_schema_extra=ltx("live", "Frames per chunk", 12, "slider", step=FRAME_MULTIPLE, unit="frames"),
    )
    frame_rate: Real = Field(
        default=24.0,
        gt=0,
        le=120,
        description="Frames per second of the output; with the frame count it sets how long the sound is.",
        json_schema_extra=ltx("live", "Frame rate", 13, "number", step=0.001, unit="fps"),
    )
    schedule: Schedule = Field(
        default="distilled",
        description="Which noise levels the steps visit. Distilled fits 8 steps, else it becomes linear; dev is "
        "the dev checkpoint's own.",
        json_schema_extra=ltx("live", "Schedule", 21, "select"),
    )
    num_steps: Whole = Field(
        default=8,
        ge=1,
        le=MAX_DEV_STEPS,
        description="Euler denoising steps per chunk, at most 20; with the dev schedule, made for 30, up to 60.",
        json_schema_extra=ltx("live", "Steps", 20, "slider", step=1),
    )
    sigmas: tuple[Real, ...] | None = Field(
        default=None,
        min_length=2,
        max_length=101,
        description="Your own noise levels, from at most 1 strictly down to 0. Overrides steps and schedule.",
        json_schema_extra=ltx("live", "Custom sigmas", 22, "sigmas"),
    )
    randomize_seed: StrictBool = Field(
        default=True,
        description="On: every chunk has a seed of its own. Off: every chunk uses the base seed.",
        json_schema_extra=ltx("live", "New seed for every chunk", 30, "toggle"),
    )
    base_seed: Whole = Field(
        default=42,
        ge=0,
        le=2**63 - 1,
        description="The number from which every chunk's noise follows.",
        json_schema_extra=ltx("live", "Base seed", 31, "number", step=1),
    )
    realtime_pacing_slack: Real = Field(
        default=0.0,
        ge=0,
        description="How far generation may run ahead of the wall clock before it waits, as a fraction. "
        "0 never makes the generator wait.",
        json_schema_extra=ltx("live", "Pacing slack", 93, "number", step=0.05),
    )
    ffn_chunk_size: Whole | None = Field(
        default=4096,
        ge=1,
        description="Tokens per slice of the feed-forward layers. Fewer need less memory; none: no slices.",
        json_schema_extra=ltx("load", "Feed-forward slice", 100, "number", step=1, unit="tokens"),
    )
    _adjustments: tuple[str, ...] = PrivateAttr(default=())

    @property
    def adjustments(self) -> tuple[str, ...]:
        """What was snapped when this object was made, as sentences for the user."""
        return self._adjustments

    @field_validator("height", "width")
    @classmethod
    def _snap_size(cls, value: int, info: ValidationInfo) -> int:
        return _nearest(value, SIZE_MULTIPLE * (2 if info.data.get("two_stage") else 1))

    @field_validator("num_frames")
    @classmethod
    def _snap_frames(cls, value: int) -> int:
        return _nearest(value - 1, FRAME_MULTIPLE) + 1

    @field_validator("num_steps")
    @classmethod
    def _bound_steps(cls, value: int, info: ValidationInfo) -> int:
        if value > MAX_STEPS and info.data.get("schedule") != "dev":
            problem = "at most {most} steps, only the dev schedule takes more"
            raise PydanticCustomError("too_many_steps", problem, {"most": MAX_STEPS})
        return value

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
    def _as_a_whole(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        config = handler(data)
        problems = [*_pin_problems(config), *_length_problems(config)]
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
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


def _pin_problems(config: LTX2Config) -> list[InitErrorDetails]:
    """Images that cannot be pinned in a chunk of so many frames, or not together."""
    try:
        all_pins(config.i2v_image, config.i2v_strength, config.images, config.num_frames)
    except PydanticCustomError as problem:
        return [InitErrorDetails(type=problem, loc=("images",), input=[pin.path for pin in config.images])]
    return []


def _length_problems(config: LTX2Config) -> list[InitErrorDetails]:
    """Chunks of which an overlap and a trimmed end leave no frame to show."""
    overlap = FRAME_MULTIPLE * (config.overlap_latents - 1) + 1 if config.continuity == "extend" else 0
    if overlap + config.trim_tail < config.num_frames:
        return []
    name = "trim_tail" if config.trim_tail else "overlap_latents"
    problem = PydanticCustomError(
        "nothing_left",
        "a chunk of {num_frames} frames, {overlap} of them repeated and {trimmed} dropped at its end, leaves "
        "nothing to show: use more frames, a shorter overlap or a smaller trim_tail",
        {"num_frames": config.num_frames, "overlap": overlap, "trimmed": config.trim_tail},
    )
    return [InitErrorDetails(type=problem, loc=(name,), input=getattr(config, name))]


_SNAPPED_FIELDS = {
    "height": "it must be a multiple of {unit}",
    "width": "it must be a multiple of {unit}",
    "num_frames": f"it must be {FRAME_MULTIPLE}K + 1",
}


def _snapped(config: LTX2Config, given: Mapping[str, Any]) -> list[str]:
    unit = SIZE_MULTIPLE * (2 if config.two_stage else 1)
    return [
        f"{name} {given[name]} became {getattr(config, name)}: {rule.format(unit=unit)}"
        for name, rule in _SNAPPED_FIELDS.items()
        if name in given and given[name] != getattr(config, name)
    ]


def describe_problems(error: ValidationError) -> str:
    """A ValidationError as one line per problem, each starting with its field."""
    return "\n".join(describe_problem(problem) for problem in error.errors(include_url=False))


def describe_problem(problem: ErrorDetails) -> str:
    """One problem of a ValidationError: "num_steps: Input should be a valid integer, got '8'"."""
    head, *rest = problem["loc"] or ("config",)
    field = str(head) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)
    if problem["type"] == "extra_forbidden":
        return f"{field}: there is no such parameter"
    value = repr(problem["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    got = "" if ", got " in problem["msg"] else f", got {shown}"
    return f"{field}: {problem['msg']}{got}"
