"""Image pins as parameters: which picture holds which frame of a chunk, and how strictly.

Only pydantic is imported here, so that the configuration can hold pins. The pictures are opened elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, field_validator
from pydantic_core import PydanticCustomError

PIN_MULTIPLE = 8
"""The video VAE folds eight frames into one latent frame, so a pin holds the last frame of such a group."""


def _whole(value: object) -> object:
    """JSON and JavaScript write 64 as 64.0; every other type is left for the strict check."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


class ImagePin(BaseModel):
    """One picture pinned to one frame of every chunk. Immutable; raises ValidationError naming the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    path: Annotated[StrictStr, Field(min_length=1, max_length=4096)] = Field(description="Image file.")
    frame_idx: Annotated[int, BeforeValidator(_whole), Field(strict=True)] = Field(
        default=0, ge=0, description="Frame of the chunk that the picture holds: 0 or a multiple of 8."
    )
    strength: Annotated[float, Field(strict=True, allow_inf_nan=False)] = Field(
        default=1.0, ge=0, le=1, description="How strictly the frame follows the picture. 0 ignores it."
    )

    @field_validator("frame_idx")
    @classmethod
    def _on_latent_boundary(cls, value: int) -> int:
        check_frame_idx(value)
        return value


def check_frame_idx(frame_idx: int) -> None:
    """Raises ValueError naming the nearest frames that can be pinned."""
    if frame_idx < 0 or frame_idx % PIN_MULTIPLE:
        lower = max(0, frame_idx // PIN_MULTIPLE * PIN_MULTIPLE)
        raise PydanticCustomError(
            "pin_frame",
            "a pinned frame must be 0 or a multiple of {multiple}, got {frame_idx}: use {near}",
            {
                "multiple": PIN_MULTIPLE,
                "frame_idx": frame_idx,
                "near": f"{lower} or {lower + PIN_MULTIPLE}" if frame_idx > 0 else "0",
            },
        )


def check_pins(pins: Sequence[ImagePin], num_frames: int) -> None:
    """Raises ValueError for a pin outside a chunk of `num_frames`, and for two pins on one frame."""
    taken: set[int] = set()
    for pin in pins:
        if pin.frame_idx >= num_frames:
            last = (num_frames - 1) // PIN_MULTIPLE * PIN_MULTIPLE
            raise PydanticCustomError(
                "pin_outside_chunk",
                "{path} is pinned to frame {frame_idx}, but a chunk has {num_frames} frames: pin one up to {last}",
                {"path": pin.path, "frame_idx": pin.frame_idx, "num_frames": num_frames, "last": last},
            )
        if pin.frame_idx in taken:
            raise _two_on_one_frame(pins, pin.frame_idx)
        taken.add(pin.frame_idx)


def _two_on_one_frame(pins: Sequence[ImagePin], frame_idx: int) -> PydanticCustomError:
    paths = [pin.path for pin in pins if pin.frame_idx == frame_idx]
    return PydanticCustomError(
        "two_pins_on_one_frame",
        "a frame takes one image, got {count} for frame {frame_idx} ({paths}): composite them into one image "
        "(python -m scope_ltx.compose), or stagger them (say frames 0 and 64)",
        {"count": len(paths), "frame_idx": frame_idx, "paths": ", ".join(paths)},
    )


def all_pins(
    image: str | None, strength: float, further: Sequence[ImagePin], num_frames: int
) -> tuple[ImagePin, ...]:
    """The first-frame image and the further pins as one checked list, by frame. Pins of strength 0 are left out:
    they have no effect.

    Raises ValueError as `check_pins` does.
    """
    first = () if image is None else (ImagePin(path=image, frame_idx=0, strength=strength),)
    pins = tuple(pin for pin in (*first, *further) if pin.strength > 0)
    check_pins(pins, num_frames)
    return tuple(sorted(pins, key=lambda pin: pin.frame_idx))
