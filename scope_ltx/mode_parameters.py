"""The parameters of the modes: pins, reference video, sound input, LoRAs, guidance, continuity.

A part of `LTX2Config`, kept in a file of its own. Paths are opened later, where a chunk is prepared.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from scope_ltx.media_in.pins import ImagePin

Kind = Literal["load", "live"]
Section = Literal[
    "Size and steps", "Picture", "Reference video", "Sound", "LoRAs", "Guidance", "Continuity",
    "Fixed while running",
]  # fmt: skip
Widget = Literal[
    "number", "slider", "select", "toggle", "text", "sigmas", "hidden",
    "image", "audio", "video", "images", "loras", "blocks",
]  # fmt: skip

AudioMode = Literal["driving", "id_lora"]
AtEnd = Literal["loop", "silence", "stop"]
ImageFit = Literal["crop", "letterbox"]
ReferenceAtEnd = Literal["loop", "hold"]
ControlGroup = Literal["none", "canny", "depth", "pose"]
StgMode = Literal["both", "video"]
Continuity = Literal["cut", "extend"]
LoraMergeStrategy = Literal["permanent_merge"]

MAX_LORAS = 16
SECTIONS: tuple[tuple[int, Section], ...] = (
    (10, "Size and steps"),
    (40, "Picture"),
    (44, "Reference video"),
    (50, "Sound"),
    (55, "LoRAs"),
    (80, "Guidance"),
    (90, "Continuity"),
    (100, "Fixed while running"),
)
"""Each section with the first `order` number in it."""
ADVANCED: tuple[Section, ...] = ("Guidance", "Continuity", "Fixed while running")
"""Sections that a page shows folded."""


def whole(value: object) -> object:
    """JSON and JavaScript write 384 as 384.0; every other type is left for the strict check."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Whole = Annotated[int, BeforeValidator(whole), Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
MediaPath = Annotated[StrictStr, Field(min_length=1, max_length=4096)]


def ltx(
    kind: Kind, label: str, order: int, widget: Widget, **more: float | str | dict[str, str]
) -> dict[str, Any]:
    """What a page or a host needs to render a field. `more` holds `step` and `unit` where they help, `labels` of
    choices or of an object's fields, and `item`, what one object of a list is called."""
    section = [title for first, title in SECTIONS if first <= order][-1]
    return {"ltx": {"kind": kind, "section": section, "label": label, "order": order, "widget": widget, **more}}


class LoraChoice(BaseModel):
    """One LoRA of a set. Immutable; raises ValidationError naming the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    path: MediaPath = Field(description="LoRA file, or the name of one in the catalog (`scope-ltx loras`).")
    strength: Real | None = Field(
        default=None,
        ge=-10,
        le=10,
        description="How much of it is merged. None: what the catalog recommends, or 1.",
    )
    stage_two_strength: Real | None = Field(
        default=None,
        ge=-10,
        le=10,
        description="With two stages, the strength in the second one. None: as in the first, but 0 for a LoRA "
        "that needs a reference or a voice, which only the first stage has.",
    )


class ModeParameters(BaseModel):
    """Fields of `LTX2Config`. The order of fields on a page is that of their `order` numbers."""

    i2v_image: MediaPath | None = Field(
        default=None,
        description="Image to start from: the first frame of every chunk is conditioned on it.",
        json_schema_extra=ltx("live", "First-frame image", 40, "image"),
    )
    i2v_strength: Real = Field(
        default=1.0,
        ge=0,
        le=1,
        description="How strictly the first frame follows the image. 1 matches it, 0 ignores it.",
        json_schema_extra=ltx("live", "Image strength", 41, "slider", step=0.01),
    )
    images: tuple[ImagePin, ...] = Field(
        default=(),
        max_length=33,
        description="Further images, each pinned to a frame of every chunk: 0 or a multiple of 8.",
        json_schema_extra=ltx("live", "Pinned images", 42, "images", item="Image", labels={"frame_idx": "Frame"}),
    )
    image_fit: ImageFit = Field(
        default="crop",
        description="How images and reference frames of another shape are fitted: cut to fill, or whole on black.",
        json_schema_extra=ltx("live", "Fit", 43, "select"),
    )
    reference_video: MediaPath | None = Field(
        default=None,
        description="Video file, directory of images, or a still: what an in-context LoRA looks at (video mode).",
        json_schema_extra=ltx("live", "Reference video", 44, "video"),
    )
    control_strength: Real = Field(
        default=1.0,
        ge=0,
        le=1,
        description="How strongly the reference video guides the picture in video mode.",
        json_schema_extra=ltx("live", "Control strength", 45, "slider", step=0.01),
    )
    control_group: ControlGroup = Field(
        default="none",
        description="What is drawn from the reference video before it guides. none: it is used as it is.",
        json_schema_extra=ltx("live", "Control signal", 46, "select"),
    )
    reference_at_end: ReferenceAtEnd = Field(
        default="loop",
        description="What follows the reference video's last frame: its first, or that frame for ever.",
        json_schema_extra=ltx("live", "Reference at its end", 47, "select"),
    )
    audio_input: MediaPath | None = Field(
        default=None,
        description="Audio file: the driving track or the voice to imitate, as the audio mode says.",
        json_schema_extra=ltx("live", "Audio input", 50, "audio"),
    )
    audio_mode: AudioMode = Field(
        default="driving",
        description="driving: the input becomes the sound. id_lora: the input is a voice to imitate.",
        json_schema_extra=ltx("live", "Audio mode", 51, "select", labels={"id_lora": "ID-LoRA"}),
    )
    identity_guidance_scale: Real = Field(
        default=3.0,
        ge=0,
        le=20,
        description="How strongly ID-LoRA mode amplifies the reference voice.",
        json_schema_extra=ltx("live", "Identity guidance", 52, "slider", step=0.1),
    )
    audio_at_end: AtEnd = Field(
        default="loop",
        description="What follows the driving track's end: its beginning, silence, or the end of the stream.",
        json_schema_extra=ltx("live", "Track at its end", 53, "select"),
    )
    loras: tuple[LoraChoice, ...] = Field(
        default=(),
        max_length=MAX_LORAS,
        description="LoRAs merged into the model's weights, each with a strength.",
        json_schema_extra=ltx(
            "live", "LoRAs", 55, "loras", item="LoRA", labels={"stage_two_strength": "In stage 2"}
        ),
    )
    negative_prompt: StrictStr = Field(
        default="",
        max_length=10_000,
        description="What shall not be there. Takes part when a CFG scale is above 1.",
        json_schema_extra=ltx("live", "Negative prompt", 80, "text"),
    )
    cfg_scale: Real = Field(
        default=1.0,
        ge=1,
        le=20,
        description="Away from the negative prompt, picture. 1: off, as the distilled model wants it.",
        json_schema_extra=ltx("live", "CFG, picture", 81, "slider", step=0.1),
    )
    audio_cfg_scale: Real = Field(
        default=1.0,
        ge=1,
        le=20,
        description="Away from the negative prompt, sound. 1: off.",
        json_schema_extra=ltx("live", "CFG, sound", 82, "slider", step=0.1),
    )
    stg_scale: Real = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Spatio-temporal guidance: away from perturbed self-attention. 0: off.",
        json_schema_extra=ltx("live", "STG", 83, "slider", step=0.1),
    )
    stg_blocks: tuple[Whole, ...] = Field(
        default=(28,),
        max_length=8,
        description="Blocks of the transformer that are perturbed for STG, from 0.",
        json_schema_extra=ltx("live", "STG blocks", 84, "blocks"),
    )
    stg_mode: StgMode = Field(
        default="both",
        description="Whose self-attention is perturbed: picture and sound, or the picture's alone.",
        json_schema_extra=ltx("live", "STG on", 85, "select"),
    )
    modality_scale: Real = Field(
        default=1.0,
        ge=1,
        le=20,
        description="Away from picture and sound that do not know of each other. 1: off.",
        json_schema_extra=ltx("live", "Modality guidance", 86, "slider", step=0.1),
    )
    guidance_rescale: Real = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How far guided predictions get the spread of unguided ones: against overexposure.",
        json_schema_extra=ltx("live", "Guidance rescale", 87, "slider", step=0.05),
    )
    continuity: Continuity = Field(
        default="cut",
        description="cut: chunks are independent. extend: each goes on from the end of the one before.",
        json_schema_extra=ltx("live", "Continuity", 90, "select"),
    )
    overlap_latents: Whole = Field(
        default=2,
        ge=1,
        le=8,
        description="Latent frames that an extending chunk repeats: 1 is one frame, each further one eight.",
        json_schema_extra=ltx("live", "Overlap", 91, "slider", step=1, unit="latent frames"),
    )
    trim_tail: Whole = Field(
        default=0,
        ge=0,
        le=64,
        description="Frames dropped at every chunk's end, where the model smears.",
        json_schema_extra=ltx("live", "Trim at the end", 92, "slider", step=1, unit="frames"),
    )
    two_stage: StrictBool = Field(
        default=False,
        description="Generate at half size, upsample the latents, refine. Height and width: multiples of 64.",
        json_schema_extra=ltx("live", "Two stages", 23, "toggle"),
    )
    lora_merge_strategy: LoraMergeStrategy = Field(
        default="permanent_merge",
        description="How LoRAs are applied. FP8 weights only take a permanent merge.",
        json_schema_extra=ltx("load", "LoRA merge", 101, "select"),
    )

    @field_validator("images", "loras", "stg_blocks", mode="before")
    @classmethod
    def _a_list(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, list | tuple):
            example = "[28, 29]" if info.field_name == "stg_blocks" else '[{"path": "FILE", "strength": 1}]'
            raise PydanticCustomError("not_a_list", "expected a list, such as {example}", {"example": example})
        return value

    @field_validator("stg_blocks")
    @classmethod
    def _blocks_once(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if not value and info.data.get("stg_scale"):
            raise PydanticCustomError("stg_blocks_empty", "name at least one block while stg_scale is above 0")
        if any(block < 0 for block in value) or len(set(value)) < len(value):
            raise PydanticCustomError(
                "stg_blocks",
                "blocks are numbers from 0, each once, got {blocks}",
                {"blocks": ", ".join(str(block) for block in value) or "none"},
            )
        return value
