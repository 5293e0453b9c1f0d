"""Whether a set of LoRAs fits what is to be generated. Pure: reads no file, imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scope_ltx.errors import UnsupportedError
from scope_ltx.lora.kinds import Base, LoraFacts, LoraKind

CELL = 32
"""Pixels of a latent cell's side: what the video VAE needs sizes to be multiples of."""

Audio = Literal["generated", "driving", "identity", "off"]
"""driving: a given soundtrack that the picture follows. identity: a reference voice (`id_lora`)."""


@dataclass(frozen=True)
class Mode:
    """What is to be generated, as far as LoRAs care.

    base: what the checkpoint is, whatever LoRAs are on top. stages: 2 when the first stage runs at half size.
    """

    base: Base
    width: int
    height: int
    reference_video: bool = False
    audio: Audio = "generated"
    stages: Literal[1, 2] = 1


def require_compatible(loras: Sequence[LoraFacts], mode: Mode) -> None:
    """Raises UnsupportedError with all that `problems` finds."""
    found = problems(loras, mode)
    if found:
        raise UnsupportedError(" ".join(found))


def problems(loras: Sequence[LoraFacts], mode: Mode) -> tuple[str, ...]:
    """Sentences, each naming a file and what to do. `loras` are the active ones: leave out strengths of 0."""
    return (*_reference(loras, mode), *_audio(loras, mode), *_base(loras, mode), *_sizes(loras, mode))


def _named(loras: Sequence[LoraFacts], kind: LoraKind) -> list[str]:
    return [lora.name for lora in loras if lora.kind == kind]


def _reference(loras: Sequence[LoraFacts], mode: Mode) -> list[str]:
    in_context = _named(loras, "in_context")
    if mode.reference_video and not in_context:
        given = ", ".join(lora.name for lora in loras) or "no LoRA"
        return [
            f"A reference video needs an in-context LoRA, and {given} is loaded: "
            "add one (`scope-ltx loras` lists them), or switch to text mode."
        ]
    if mode.reference_video:
        return []
    return [
        f"{name} is an in-context LoRA and needs a reference video: switch to video mode, or take it out."
        for name in in_context
    ]


def _audio(loras: Sequence[LoraFacts], mode: Mode) -> list[str]:
    found = []
    identity = _named(loras, "identity")
    if mode.audio == "identity" and not identity:
        given = ", ".join(lora.name for lora in loras) or "no LoRA"
        found.append(f"Audio mode id_lora needs an ID-LoRA, and {given} is loaded: add the ID-LoRA file.")
    if mode.audio != "identity":
        found += [
            f"{name} is an ID-LoRA and needs a reference voice: "
            "set audio_mode to id_lora with a voice as audio_input, or take it out."
            for name in identity
        ]
    if mode.audio == "off":
        found += [
            f"{name} was trained on picture and sound, and audio is off: switch audio on, or take it out."
            for name in _named(loras, "audio_video")
        ]
    return found


def _base(loras: Sequence[LoraFacts], mode: Mode) -> list[str]:
    distillation = _named(loras, "distillation")
    found = []
    if mode.base == "distilled":
        found += [
            f"{name} is the distillation LoRA and this checkpoint is distilled already: "
            "take it out, or use it on the dev checkpoint."
            for name in distillation
        ]
    # The dev checkpoint with the distillation LoRA is, to other LoRAs, a distilled one.
    effective: Base = "distilled" if distillation else mode.base
    for lora in loras:
        if lora.trained_for == "distilled" and effective == "dev":
            found.append(
                f"{lora.name} works on the distilled model only, and this is the dev checkpoint: "
                "use the distilled checkpoint, or add the distillation LoRA."
            )
        if lora.trained_for == "dev" and mode.base == "distilled":
            found.append(
                f"{lora.name} works on the dev checkpoint only, and this one is distilled: use the dev checkpoint."
            )
    return found


def _sizes(loras: Sequence[LoraFacts], mode: Mode) -> list[str]:
    in_context = [lora for lora in loras if lora.kind == "in_context"]
    for what, factors in (
        ("sizes", {lora.name: lora.downscale for lora in in_context if lora.downscale != 1}),
        ("frame rates", {lora.name: lora.temporal_scale for lora in in_context if lora.temporal_scale != 1}),
    ):
        if len(set(factors.values())) > 1:
            told = ", ".join(f"{name} (1/{factor})" for name, factor in factors.items())
            return [f"These in-context LoRAs need references of different {what}: {told}. Take all but one out."]
    scaled = [lora for lora in in_context if lora.downscale != 1]
    if not scaled:
        return []
    factor = scaled[0].downscale
    unit = CELL * factor * mode.stages
    if mode.width % unit == 0 and mode.height % unit == 0:
        return []
    halved = " at half size in the first stage" if mode.stages == 2 else ""
    sizes = [f"{width}x{height}" for height in _nearest(mode.height, unit) for width in _nearest(mode.width, unit)]
    return [
        f"{scaled[0].name} takes its reference at 1/{factor} of the size{halved}, so width and height must be "
        f"multiples of {unit}, got {mode.width}x{mode.height}: use {' or '.join(sizes)}."
    ]


def _nearest(size: int, unit: int) -> list[int]:
    """The multiples of `unit` next below and above, or `size` itself."""
    below = size // unit * unit
    return sorted({max(below, unit), size if below == size else below + unit})
