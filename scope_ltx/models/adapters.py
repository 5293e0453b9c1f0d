"""The LoRAs of a loaded model: chosen and checked for each request, merged into the weights when they change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from scope_ltx.catalog import lint, lint_strength, load_catalog, recommended_strength
from scope_ltx.config import LTX2Config
from scope_ltx.errors import UnsupportedError
from scope_ltx.lora.compatibility import Audio, Mode, require_compatible
from scope_ltx.lora.file import linear_shapes
from scope_ltx.lora.kinds import LoraFacts, is_text_layer
from scope_ltx.lora.library import FoundLora, LoraLibrary
from scope_ltx.lora.loras import LoraSet, changed_modules
from scope_ltx.manifest import Lora
from scope_ltx.mode_parameters import LoraChoice
from scope_ltx.models.components import Components
from scope_ltx.models.placement import Placement
from scope_streaming.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

Chosen: TypeAlias = tuple[FoundLora, float]
"""A LoRA and its strength."""


@dataclass(frozen=True)
class Selection:
    """LoRAs that fit a request; `refining` are those of the second of two stages.

    A reference video is `downscale` times smaller than the output and has every `temporal_scale`-th frame.
    `looks`: there is one, and it is looked at. `listed`: what the catalog knows of the active ones. `notes` are
    for the user.
    """

    loras: LoraSet
    refining: LoraSet
    downscale: int
    temporal_scale: int
    looks: bool
    notes: tuple[str, ...]
    listed: tuple[Lora, ...] = ()

    def prompt_notes(self, prompt: str) -> tuple[str, ...]:
        """What these LoRAs will not understand in a prompt, or understand better otherwise."""
        return tuple(finding.text for lora in self.listed for finding in lint(lora, prompt))


@dataclass(frozen=True)
class Applied:
    """What a change of LoRAs took. text_changed: contexts of prompts are no longer what they were."""

    seconds: float
    layers: int
    text_changed: bool


NOTHING_CHANGED = Applied(0.0, 0, text_changed=False)


class LoraAdapter:
    """Belongs to the thread that owns the device."""

    def __init__(self, components: Components, clock: Clock | None = None) -> None:
        shapes = linear_shapes(components.transformer, components.connectors)
        self._components = components
        self._clock = clock or SystemClock()
        self._library = LoraLibrary(components.directory, shapes, load_catalog())
        self._uncertain: frozenset[str] = frozenset()

    def select(self, config: LTX2Config, *, reference: bool, camera: bool = False) -> Selection:
        """The LoRAs of a request; `reference` is whether it comes with reference frames, `camera` whether one may
        send them (`ChunkInputs.camera_may_come`). In the audio mode id_lora the catalog's ID-LoRA is added unless
        one is chosen. Opens files, touches no weight.

        Raises LoraError for a file that is not there or cannot be used, UnsupportedError for LoRAs that do not
        fit the request, its size and length, or each other.
        """
        given = self._given(config)
        stacked = sum(one.strength != 0 and found.file.facts.kind != "distillation" for found, one in given) > 1
        chosen = [(found, _strength(found, one.strength, stacked)) for found, one in given]
        second = [
            (found, _refining_strength(found.file.facts, strength, one.stage_two_strength))
            for (found, one), (_, strength) in zip(given, chosen, strict=True)
        ]
        sets = _set_of(chosen), _set_of(second)
        used = sets if config.two_stage else sets[:1]
        facts = tuple(dict.fromkeys(fact for one in used for fact in one.facts))
        in_context = [one for one in facts if one.kind == "in_context"]
        resting = in_context if camera and not reference else []
        looks = reference and (bool(in_context) or not camera)
        mode = self._mode(config, reference_video=looks or bool(resting))
        # Of those that rest, too: what does not fit shall be told now, and not when the camera comes.
        require_compatible(facts, mode)
        active = [(found, strength) for found, strength in chosen if strength]
        _require_length([found.listed for found, _ in active if found.listed], config.num_frames)
        if resting:
            sets = _set_of(_awake(chosen)), _set_of(_awake(second))
            active = _awake(active)
        return Selection(
            *sets,
            # Compatible ones agree, but for those that do not scale.
            downscale=max((one.downscale for one in in_context), default=1),
            temporal_scale=max((one.temporal_scale for one in in_context), default=1),
            looks=looks,
            notes=(
                *self._base_notes(facts),
                *_stage_notes(mode, sets[1]),
                *_camera_notes(resting, unseen=reference and not looks),
                *_notes(active, stacked),
            ),
            listed=tuple(found.listed for found, _ in active if found.listed),
        )

    def _given(self, config: LTX2Config) -> list[tuple[FoundLora, LoraChoice]]:
        given = [(self._library.find(choice.path), choice) for choice in config.loras]
        if _audio_of(config) == "identity" and not any(one.file.facts.kind == "identity" for one, _ in given):
            found = self._library.identity()
            given.append((found, LoraChoice(path=str(found.file.path))))
        return given

    def _mode(self, config: LTX2Config, *, reference_video: bool) -> Mode:
        return Mode(
            self._components.base or "distilled",
            config.width,
            config.height,
            reference_video=reference_video,
            audio=_audio_of(config),
            stages=2 if config.two_stage else 1,
        )

    def apply(self, loras: LoraSet, placement: Placement) -> Applied:
        """Make the weights those of `loras`, from the pristine ones: only layers that differ are merged. Between
        chunks. What is placed later is read with the same set merged.

        On an error the weights are those of the set before; if not even that succeeds, the next call begins with
        what is then uncertain. Raises LoraError, CheckpointError, OutOfMemoryError.
        """
        merger = self._components.merger
        before = merger.loras
        changed = changed_modules(before, loras) | self._uncertain
        if not changed:
            merger.use(loras)
            return NOTHING_CHANGED
        started = self._clock.now()
        self._uncertain = changed
        failure: Exception | None = None
        try:
            self._write(loras, changed, placement)
        except Exception as error:
            logger.warning("LoRAs could not be merged, going back to the set before: %s", error)
            # Its traceback would hold on to what the device had no room for.
            failure = error.with_traceback(None)
        if failure is not None:
            self._write(before, changed, placement)
        self._uncertain = frozenset()
        if failure is not None:
            raise failure
        return Applied(self._clock.now() - started, len(changed), any(map(is_text_layer, changed)))

    def _write(self, loras: LoraSet, layers: frozenset[str], placement: Placement) -> None:
        merger, transformer = self._components.merger, self._components.transformer
        merger.use(loras)
        # Also in the middle of a chunk: weights are ordinary tensors, and stay that.
        with torch.inference_mode(False):
            outside = placement.read_again(layers)
            merger.write_again(transformer, outside, self._components.read_transformer)

    def _base_notes(self, loras: Sequence[LoraFacts]) -> list[str]:
        cares = [lora.name for lora in loras if lora.trained_for or lora.kind == "distillation"]
        if self._components.base is not None or not cares:
            return []
        return [
            f"The name of the transformer's file says neither distilled nor dev; it is taken for distilled, which "
            f"matters to {', '.join(cares)}."
        ]


def _audio_of(config: LTX2Config) -> Audio:
    if config.audio_input is None:
        return "generated"
    return "identity" if config.audio_mode == "id_lora" else "driving"


def _refining_strength(facts: LoraFacts, strength: float, given: float | None) -> float:
    """Of the second stage, which has no reference and takes its sound from the first.

    Source: Lightricks/LTX-2, ltx-pipelines ic_lora: its second stage has no in-context LoRA.
    """
    if given is not None:
        return given
    return 0.0 if facts.kind in ("in_context", "identity") else strength


def _stage_notes(mode: Mode, refining: LoraSet) -> tuple[str, ...]:
    distilled = mode.base == "distilled" or any(lora.kind == "distillation" for lora in refining.facts)
    if mode.stages == 1 or distilled:
        return ()
    return (
        "The second stage's three steps are made for a distilled model, and this is the dev checkpoint: add "
        "distilled-lora, with strength 0 and a stage_two_strength of 1 to have it there alone.",
    )


def _set_of(entries: Sequence[Chosen]) -> LoraSet:
    try:
        return LoraSet.of((found.file, strength) for found, strength in entries)
    except ValueError as error:
        raise UnsupportedError(f"loras: {error}") from error


def _awake(entries: Sequence[Chosen]) -> list[Chosen]:
    """Those that need no reference."""
    return [one for one in entries if one[0].file.facts.kind != "in_context"]


def _camera_notes(resting: Sequence[LoraFacts], *, unseen: bool) -> list[str]:
    notes = [
        f"{one.name} rests: it looks at a reference video, and there is none. Start a camera, set "
        "reference_video, or take it out."
        for one in resting
    ]
    if unseen:
        notes.append(
            "The camera is not looked at: that needs an in-context LoRA with a strength, and there is none. Add "
            "one (`scope-ltx loras` lists them)."
        )
    return notes


def _require_length(loras: Sequence[Lora], num_frames: int) -> None:
    for lora in loras:
        needed = lora.preparation.min_frames
        if needed is not None and num_frames < needed:
            raise UnsupportedError(
                f"loras: {lora.name} was trained on clips of at least {needed} frames, got {num_frames}: set "
                f"num_frames to {needed} or more, or take it out"
            )


def _strength(found: FoundLora, given: float | None, stacked: bool) -> float:
    if given is not None:
        return given
    beside = stacked and found.file.facts.kind != "distillation"
    return recommended_strength(found.listed, stacked=beside) if found.listed else 1.0


def _notes(active: Sequence[Chosen], stacked: bool) -> list[str]:
    notes: list[str] = []
    for found, strength in active:
        notes += found.file.notes
        if found.listed:
            notes += [finding.text for finding in lint_strength(found.listed, strength, stacked=stacked)]
    return notes
