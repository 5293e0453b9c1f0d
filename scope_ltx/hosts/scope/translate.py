"""From the host's keyword arguments to changes of a session. Decides only: it opens nothing and waits for nothing.

The host checks nothing, sends a session's whole parameters with every call, and removes some of them once they
were sent. So a value counts when it differs from the one before, and those that come once are kept first of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from scope_ltx.config import FRAME_MULTIPLE, LTX2Config
from scope_ltx.hosts.scope.prompt_values import Report, TransitionAsked, mix_of, transition_of
from scope_ltx.hosts.scope.values import described, frozen, shown
from scope_ltx.prompt_mix import Mix

ONE_SHOT = ("images", "first_frame_image", "last_frame_image", "vace_ref_images", "lora_scales")
IMAGE_ONCE = ("first_frame_image", "last_frame_image")
PATHS = ("i2v_image", "reference_video", "audio_input")
HOST_KEYS = frozenset(
    {"prompts", "transition", "prompt_interpolation_method", "init_cache", "input_mode", "video", "input_size"}
    | {"vace_context_scale", "vace_enabled", "vace_use_input_video", "ref_images"}
    | {"denoising_step_list", "denoising_steps", "noise_scale", "noise_controller", "quantization"}
    | {"manage_cache", "kv_cache_attention_bias", "lora_merge_mode", "ctrl_input"}
    | {"pipeline_ids", "graph", "recording", "produces_video", "produces_audio", "node_id"}
    | {"bpm", "beat_phase", "bar_position", "beat_count", "is_playing", "beat_cache_reset_rate", "modulations"}
    | {"paused", "reset_cache", "quantize_mode", "_quantized", "lookahead_ms", "output_sinks", "input_source"}
)
"""What the host itself puts there, used or not: nothing to tell anybody about."""

KNOWN = HOST_KEYS | LTX2Config.model_fields.keys() | set(ONE_SHOT)
FIXED = LTX2Config.parameters("load")


@dataclass(frozen=True)
class Asked:
    """What a call asks for. changes: of the configuration, together valid. mix: prompts that have changed.
    once: {key: path or None} of pictures for the next chunk alone. fresh: the host wants to start anew."""

    changes: dict[str, Any] = field(default_factory=dict)
    mix: Mix | None = None
    transition: TransitionAsked | None = None
    once: dict[str, str | None] = field(default_factory=dict)
    fresh: bool = False


class Translator:
    """One host session's. `take` never raises for what the host or a client sends."""

    def __init__(self, loaded: LTX2Config, report: Report) -> None:
        """`loaded` is what the session begins with, and what a null goes back to."""
        self._loaded = loaded
        self._report = report
        self._seen: dict[str, object] = {}
        self._latched: dict[str, object] = {}
        self._has_prompt = False

    def take(self, kwargs: Mapping[str, object], config: LTX2Config) -> Asked:
        """`config` is what governs now."""
        self._latched.update({name: kwargs[name] for name in ONE_SHOT if name in kwargs})
        wanted = {
            name: self._value(name, kwargs[name])
            for name in LTX2Config.model_fields
            if name in kwargs and name not in ONE_SHOT and self._is_new(name, kwargs[name])
        }
        wanted |= self._latched_changes({**config.__dict__, **wanted})
        mix, transition = self._prompts(kwargs)
        asked = Asked(
            changes=valid_changes(config, self._unfixed(wanted, config), self._report),
            mix=mix,
            transition=transition,
            once=self._once(),
            fresh=kwargs.get("init_cache") is True,
        )
        self._report_unknown(kwargs)
        self._latched.clear()
        return asked

    def _is_new(self, name: str, value: object) -> bool:
        key = frozen(value)
        if name in self._seen and self._seen[name] == key:
            return False
        self._seen[name] = key
        return True

    def _value(self, name: str, value: object) -> object:
        """As the configuration knows it."""
        if name == "loras":
            return lora_choices(value, self._report)
        if name in PATHS:
            # The host's picker sends null for a cleared field, its text box an empty string.
            return None if _is_empty(value) else value
        if value is None and getattr(self._loaded, name) is not None:
            self._report(f"{name}: null is no value of it: back to {shown(getattr(self._loaded, name))}")
            return getattr(self._loaded, name)
        return value

    def _latched_changes(self, config: Mapping[str, Any]) -> dict[str, object]:
        changes: dict[str, object] = {}
        if "images" in self._latched:
            changes["images"] = pins_of(self._latched["images"], config, self._report)
        if "lora_scales" in self._latched:
            changes["loras"] = scaled_loras(self._latched["lora_scales"], config["loras"], self._report)
        if not _is_empty(self._latched.get("vace_ref_images")):
            self._report("vace_ref_images: LTX-2.3 has no VACE; pin pictures with images or i2v_image")
        return changes

    def _once(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name in IMAGE_ONCE:
            if name not in self._latched:
                continue
            value = self._latched[name]
            if _is_empty(value):
                found[name] = None
            elif isinstance(value, str):
                found[name] = value
            else:
                self._report(f"{name}: expected the path of an image, got {shown(value)}: it is left out")
        return found

    def _prompts(self, kwargs: Mapping[str, object]) -> tuple[Mix | None, TransitionAsked | None]:
        mix, transition = None, None
        if "prompts" in kwargs and self._is_new("prompts", kwargs["prompts"]):
            mix = mix_of(kwargs["prompts"], "prompts", self._report)
            if mix is None:
                state = "the last one stays" if self._has_prompt else "nothing is made until there is one"
                self._report(f"prompts: there is no usable prompt in {shown(kwargs['prompts'])}: {state}")
        if kwargs.get("transition") is None:
            # The host takes it away when it is done: the same one again is another one.
            self._seen.pop("transition", None)
        elif self._is_new("transition", kwargs["transition"]):
            transition = transition_of(kwargs["transition"], self._report)
            if transition is not None and transition.target == mix and self._has_prompt:
                mix = None  # or there would be nothing to go over from
        self._has_prompt = self._has_prompt or mix is not None or transition is not None
        if not self._has_prompt and "prompts" not in kwargs:
            self._report("prompts: there is no prompt yet, nothing is made until there is one")
        return mix, transition

    def _unfixed(self, wanted: dict[str, object], config: LTX2Config) -> dict[str, object]:
        """Without what is fixed while a model is loaded."""
        for name in [name for name in FIXED if name in wanted]:
            value = wanted.pop(name)
            if frozen(value) != frozen(getattr(config, name)):
                self._report(f"{name}: it is fixed while the pipeline is loaded; load again with {shown(value)}")
        return wanted

    def _report_unknown(self, kwargs: Mapping[str, object]) -> None:
        for name in kwargs:
            if name not in KNOWN and not name.endswith("_timestamps"):
                self._report(f"{shown(name)}: there is no such parameter, it is ignored")


def _is_empty(value: object) -> bool:
    """Asks no tensor whether it is."""
    return value is None or (isinstance(value, str | list | tuple) and len(value) == 0)


def valid_changes(config: LTX2Config, wanted: dict[str, object], report: Report) -> dict[str, Any]:
    """As many of `wanted` as `config` can take together. Says which it cannot, and what was snapped."""
    kept = _without_faulty(config, wanted, report)
    if not kept:
        return {}
    for sentence in config.updated(**kept).adjustments:
        report(sentence)
    return kept


def _without_faulty(config: LTX2Config, wanted: dict[str, object], report: Report) -> dict[str, Any]:
    remaining = dict(wanted)
    while remaining:
        try:
            config.updated(**remaining)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            faulty = {str(problem["loc"][0]) for problem in problems if problem["loc"]} & remaining.keys()
            for problem in problems:
                report(f"{described(problem)}: {_left(config, str((problem['loc'] or ('config',))[0]))}")
            if not faulty:
                return _one_by_one(config, remaining, report)
            remaining = {name: value for name, value in remaining.items() if name not in faulty}
        except (OverflowError, RecursionError, ValueError, TypeError) as error:
            report(f"{', '.join(remaining)}: {type(error).__name__}: {shown(str(error))}")
            return _one_by_one(config, remaining, report)
        else:
            return remaining
    return {}


def _one_by_one(config: LTX2Config, wanted: dict[str, object], report: Report) -> dict[str, Any]:
    """For values that only together are wrong, so that none of them is blamed: the first ones win."""
    kept: dict[str, Any] = {}
    for name, value in wanted.items():
        try:
            config.updated(**kept, **{name: value})
        except (OverflowError, RecursionError, ValueError, TypeError):
            report(f"{name}: {shown(value)} does not go with the other parameters: {_left(config, name)}")
        else:
            kept[name] = value
    return kept


def _left(config: LTX2Config, name: str) -> str:
    return f"it stays {shown(getattr(config, name))}" if name in LTX2Config.model_fields else "it is left out"


def lora_choices(value: object, report: Report) -> object:
    """The host's `[{path, scale, merge_mode}]` as LoRA choices; what is no such list is left for the check."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        return value
    return tuple(_lora_choice(item, report) for item in value)


def _lora_choice(item: object, report: Report) -> object:
    if isinstance(item, str):
        return {"path": item}
    if not isinstance(item, Mapping):
        return item
    choice = dict(item)
    mode = choice.pop("merge_mode", None)
    if mode not in (None, "permanent_merge"):
        report(f"merge_mode: {shown(mode)} is not possible with FP8 weights: the LoRA is merged permanently")
    if "scale" in choice and "strength" not in choice:
        choice["strength"] = choice["scale"]
    choice.pop("scale", None)
    return choice


def scaled_loras(value: object, loras: object, report: Report) -> object:
    """The present LoRAs with the host's `[{path, scale}]` as their strengths."""
    if not isinstance(value, list | tuple):
        report(f"lora_scales: expected a list of objects with path and scale, got {shown(value)}")
        return loras
    choices = [
        dict(choice) if isinstance(choice, Mapping) else choice.model_dump()
        for choice in (loras if isinstance(loras, tuple) else ())
        if isinstance(choice, Mapping) or hasattr(choice, "model_dump")
    ]
    for item in value:
        path = item.get("path") if isinstance(item, Mapping) else None
        fitting = [choice for choice in choices if isinstance(path, str) and choice.get("path") == path]
        if not fitting or not isinstance(item, Mapping):
            report(f"lora_scales: {shown(path if path is not None else item)} is not among the loaded LoRAs")
        for choice in fitting:
            choice["strength"] = item.get("scale")
    return tuple(choices)


def pins_of(value: object, config: Mapping[str, Any], report: Report) -> object:
    """The host's list of paths as pins over the chunk: the first on its first frame, or after the first-frame
    image, the last on its last. Objects are pins already."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not any(isinstance(item, str) for item in value):
        return value
    frames = config["num_frames"] if isinstance(config["num_frames"], int) else FRAME_MULTIPLE + 1
    places = range(0 if _is_empty(config["i2v_image"]) else FRAME_MULTIPLE, min(frames, 1 << 12), FRAME_MULTIPLE)
    paths = list(value)[: len(places)]
    if len(value) > len(paths):
        report(f"images: a chunk of {frames} frames has {len(places)} places for pictures, got {len(value)}")
    last = max(1, len(paths) - 1)
    spread = [places[round(i * (len(places) - 1) / last)] for i in range(len(paths))]
    return tuple(
        {"path": item, "frame_idx": at} if isinstance(item, str) else item
        for item, at in zip(paths, spread, strict=True)
    )
