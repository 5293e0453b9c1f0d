"""One LoRA file, checked against the model that it is to change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from scope_ltx.errors import CheckpointError
from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.families import family_by_name, family_by_shape, is_text_encoder
from scope_ltx.lora.keys import LayerNames, Role, is_difference, other_method, parse_key
from scope_ltx.lora.kinds import LinearShapes, LoraFacts, LoraHint, classify, hears
from scope_ltx.lora.metadata import adapter_alpha, reference_scale
from scope_ltx.lora.source import TYPES, FileIdentity, TensorSource

_WRONG_MODEL = "Use a LoRA that was made for LTX-2.3 (22B)"
_DAMAGED = "Download the file again; if it is as published, its author must export it again"
_LARGEST = 1e30
"""Changes beyond this could leave float32 when several are added. Real ones are around 0.01."""


@dataclass(frozen=True)
class LoraLayer:
    """The change of one linear layer: (alpha / rank) * up @ down, with down (rank, in) and up (out, rank).

    Without an alpha in the file it is the rank, so that the factor is 1.
    """

    module: str
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass
class _Pair:
    """The keys of one stored layer."""

    layer: str
    keys: dict[Role, str] = field(default_factory=dict)


class LoraFile:
    """An opened file: `layers` by diffusers' module names, `facts` about it, and what of it is not used.

    left_out   {reason: keys} of keys that change nothing here: layers that the model does not have, and changes
               of biases and norms (`.diff`, `.diff_b`), which are not low-rank and not merged. To be told.

    Two are equal when path, size and time of writing are.
    """

    facts: LoraFacts
    layers: Mapping[str, LoraLayer]
    left_out: Mapping[str, tuple[str, ...]]

    def __init__(
        self, path: Path, shapes: LinearShapes, *, hint: LoraHint | None = None, check_values: bool = True
    ) -> None:
        """`shapes` are the model's layers (`linear_shapes`), `hint` is what a catalog knows of the file.

        `check_values` reads every factor once, so that nothing can be wrong with the values later. It costs what
        reading the file does; a merge then finds it in the page cache.

        Raises LoraError for a file that is damaged, no plain LoRA, made for another model, or not of the kind
        that the hint says.
        """
        self._source = TensorSource(path)
        self.path = path
        self.reference = reference_scale(path, self._source.metadata)
        pairs, rest = self._sort_keys()
        found = self._find_modules(pairs, LayerNames(shapes))
        self._require_pairs(pairs)
        self._keys = {module: pair.keys for module, pair in found.items()}
        self._require_tensors(shapes)
        alpha = adapter_alpha(path, self._source.metadata)
        self.layers = {module: self._layer(module, alpha) for module in found}
        used = {pair.layer for pair in found.values()}
        missing = tuple(key for pair in pairs if pair.layer not in used for key in pair.keys.values())
        self.left_out = {
            reason: keys
            for reason, keys in {"layers that this model does not have": missing, **rest}.items()
            if keys
        }
        self.facts = self._facts(shapes, hint or LoraHint())
        if check_values:
            self._require_values()

    @property
    def identity(self) -> FileIdentity:
        return self._source.identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoraFile) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"LoraFile({self.facts.name}: {self.facts.kind}, {len(self.layers)} layers)"

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about what was left out."""
        return tuple(
            f"{self.facts.name}: {len(keys)} keys are left out, {reason}: {_listed(keys)}"
            for reason, keys in self.left_out.items()
        )

    def factors(self, module: str) -> tuple[Tensor, Tensor]:
        """(down (r, in), up (out, r)) of a layer, copied to the CPU in the file's type. Raises LoraError."""
        keys = self._keys[module]
        return self._source.tensor(keys["down"]), self._source.tensor(keys["up"])

    def _sort_keys(self) -> tuple[list[_Pair], dict[str, tuple[str, ...]]]:
        """The pairs, and the keys that are none by the reason why they are not used."""
        keys = self._source.keys
        methods = {method for key in keys if (method := other_method(key))}
        if methods:
            others = [key for key in keys if other_method(key)]
            problem = f"uses {', '.join(sorted(methods))}, not plain low-rank pairs"
            raise self._error(
                problem, others, "Export it as a plain LoRA: lora_A and lora_B, or lora_down and lora_up"
            )
        pairs: dict[str, _Pair] = {}
        differences: list[str] = []
        unknown: list[str] = []
        for key in keys:
            parsed = parse_key(key)
            if parsed is None:
                (differences if is_difference(key) else unknown).append(key)
                continue
            pair = pairs.setdefault(parsed.layer, _Pair(parsed.layer))
            if parsed.role in pair.keys:
                raise self._error("holds a factor twice", [pair.keys[parsed.role], key], _DAMAGED)
            pair.keys[parsed.role] = key
        if not any("down" in pair.keys or "up" in pair.keys for pair in pairs.values()):
            raise self._not_a_lora(differences)
        return list(pairs.values()), {
            "changes of biases, norms or whole weights": tuple(differences),
            "keys that no LoRA has": tuple(unknown),
        }

    def _not_a_lora(self, differences: list[str]) -> LoraError:
        keys = self._source.keys
        if not keys:
            return self._error("holds no tensors", [], _DAMAGED)
        if differences:
            problem = "holds whole changes of weights, not low-rank pairs"
            return self._error(problem, differences, "Export it as a LoRA: lora_A and lora_B")
        problem = f"is not a LoRA but perhaps a whole checkpoint: none of its {len(keys)} keys is lora_A or lora_B"
        return self._error(problem, keys, "Name a LoRA file here; a checkpoint belongs into the model directory")

    def _find_modules(self, pairs: list[_Pair], names: LayerNames) -> dict[str, _Pair]:
        found: dict[str, _Pair] = {}
        for pair in pairs:
            module = names.module(pair.layer)
            if module is None:
                continue
            if module in found:
                both = [*found[module].keys.values(), *pair.keys.values()]
                raise self._error(f"changes layer {module} under two names", both, _DAMAGED)
            found[module] = pair
        if not found:
            keys = [key for pair in pairs for key in pair.keys.values()]
            family = family_by_name(keys)
            if is_text_encoder(family):
                raise self._error("is a LoRA for a text encoder, which is not supported", keys, _WRONG_MODEL)
            guess = f"; it looks like one for {family}" if family else ""
            problem = f"has no layer of LTX-2.3 in its {len(keys)} LoRA keys{guess}"
            raise self._error(problem, keys, _WRONG_MODEL)
        return found

    def _require_pairs(self, pairs: list[_Pair]) -> None:
        for missing, name in (("up", "lora_B"), ("down", "lora_A")):
            keys = [key for pair in pairs if missing not in pair.keys for key in pair.keys.values()]
            if keys:
                raise self._error(f"has factors without their {name}", keys, _DAMAGED)

    def _require_tensors(self, shapes: LinearShapes) -> None:
        """Types and shapes of all factors, and of the alphas."""
        source = self._source
        used = [key for keys in self._keys.values() for key in keys.values()]
        wrong = [f"{key} {source.dtype(key)}" for key in used if source.dtype(key) not in TYPES]
        if wrong:
            raise self._error(
                f"has types other than {', '.join(TYPES)}", wrong, "Export it in bfloat16 or float32"
            )
        empty = [key for key in used if 0 in source.shape(key)]
        if empty:
            raise self._error("has tensors without values", empty, _DAMAGED)
        for module, keys in self._keys.items():
            if "alpha" in keys and math.prod(source.shape(keys["alpha"])) != 1:
                raise self._error("has an alpha that is not one number", [keys["alpha"]], _DAMAGED)
            self._require_shapes(module, source.shape(keys["down"]), source.shape(keys["up"]), shapes[module])

    def _require_shapes(
        self, module: str, down: tuple[int, ...], up: tuple[int, ...], expected: tuple[int, int]
    ) -> None:
        keys = [self._keys[module]["down"], self._keys[module]["up"]]
        if len(down) != 2 or len(up) != 2 or down[0] != up[1]:
            problem = (
                f"layer {module} has lora_A {list(down)} and lora_B {list(up)}, expected [r, in] and [out, r]"
            )
            raise self._error(problem, keys, _DAMAGED)
        found = (up[0], down[1])
        if found != expected:
            family = family_by_shape(module, expected, found)
            guess = f"; probably made for {family}" if family else ""
            problem = f"layer {module} changes a weight {list(found)}, expected {list(expected)}{guess}"
            raise self._error(problem, keys, _WRONG_MODEL)

    def _layer(self, module: str, alpha: float | None) -> LoraLayer:
        keys = self._keys[module]
        rank = self._source.shape(keys["down"])[0]
        if "alpha" in keys:
            alpha = float(self._source.tensor(keys["alpha"]).item())
            if not 0 < alpha < _LARGEST:
                raise self._error(f"has alpha {alpha}, expected a number above 0", [keys["alpha"]], _DAMAGED)
        return LoraLayer(module, rank, float(rank) if alpha is None else alpha)

    def _facts(self, shapes: LinearShapes, hint: LoraHint) -> LoraFacts:
        ranks = {module: layer.rank for module, layer in self.layers.items()}
        kind = classify(ranks, shapes, has_reference=self.reference.marked)
        if hint.kind in ("audio_video", "identity") and not hears(ranks):
            problem = f"is listed as {hint.kind.replace('_', '-')}, but changes no layer that hears"
            raise self._error(problem, [], "It is another file than its name says: download it again")
        return LoraFacts(
            name=self.path.name,
            kind=hint.kind or kind,
            downscale=self.reference.downscale if self.reference.marked else hint.downscale or 1,
            temporal_scale=self.reference.temporal,
            trained_for=hint.trained_for,
        )

    def _require_values(self) -> None:
        """Nothing that is not a number, and nothing that could leave float32."""
        for module, layer in self.layers.items():
            # Each entry of up @ down is a sum over the rank.
            largest = layer.alpha * math.prod(float(factor.abs().amax()) for factor in self.factors(module))
            if not largest < _LARGEST:
                keys = [self._keys[module]["down"], self._keys[module]["up"]]
                what = "values too large for a weight" if math.isfinite(largest) else "NaN or infinity"
                raise self._error(f"layer {module} has {what}", keys, _DAMAGED)

    def _error(self, problem: str, keys: list[str] | tuple[str, ...], advice: str) -> LoraError:
        return LoraError(self.path, problem, keys=keys, advice=advice)


def linear_shapes(*modules: nn.Module) -> dict[str, tuple[int, int]]:
    """{name: (out, in)} of the linear layers of a transformer and of text connectors, in whatever form they are:
    plain, FP8, or split by rows. They may be on the meta device."""
    shapes: dict[str, tuple[int, int]] = {}
    for module in modules:
        around = ""
        for name, child in module.named_modules():
            rows, columns = getattr(child, "out_features", None), getattr(child, "in_features", None)
            # A layer that is split by rows has parts that are layers too; a walk comes to them right after it.
            inside = around and name.startswith(f"{around}.")
            if isinstance(rows, int) and isinstance(columns, int) and not inside:
                shapes[name] = (rows, columns)
                around = name
    return shapes


def _listed(keys: tuple[str, ...]) -> str:
    more = len(keys) - CheckpointError.SHOWN
    return ", ".join(keys[: CheckpointError.SHOWN]) + (f" and {more} more" if more > 0 else "")
