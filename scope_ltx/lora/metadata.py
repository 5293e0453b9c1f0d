"""What a LoRA file says of itself beside its tensors: how its reference is scaled, and PEFT's alpha."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_ltx.lora.errors import LoraError

_SPATIAL = ("reference_downscale_factor", "reference_spatial_scale_factor")
"""The second is the name that newer trainers write; the meaning is the same."""
_TEMPORAL = "reference_temporal_scale_factor"
_ADAPTER = "lora_adapter_metadata"
_MOST = 64
"""No reference is smaller than one 64th: latent cells are 32 pixels, and the largest output has 2048."""
_LARGE = 1e6


@dataclass(frozen=True)
class ReferenceScale:
    """A reference video is `downscale` times smaller than the output and has every `temporal`-th frame.

    marked: the file says one of the two.
    """

    downscale: int = 1
    temporal: int = 1
    marked: bool = False


def reference_scale(path: Path, metadata: Mapping[str, str]) -> ReferenceScale:
    """Raises LoraError for a factor that is not a whole number of at least 1, or two that disagree."""
    spatial = {name: _factor(path, name, metadata[name]) for name in _SPATIAL if name in metadata}
    if len(set(spatial.values())) > 1:
        told = " and ".join(f"{name} {value}" for name, value in spatial.items())
        raise LoraError(path, f"has metadata that disagrees: {told}", advice="Ask its author for the right value")
    temporal = _factor(path, _TEMPORAL, metadata[_TEMPORAL]) if _TEMPORAL in metadata else 1
    return ReferenceScale(next(iter(spatial.values()), 1), temporal, bool(spatial) or _TEMPORAL in metadata)


def adapter_alpha(path: Path, metadata: Mapping[str, str]) -> float | None:
    """The alpha that diffusers writes for all layers alike; None if the file has none.

    Raises LoraError for settings that would change the meaning of the tensors: DoRA, rank-stabilised scaling,
    alphas by layer.
    """
    if _ADAPTER not in metadata:
        return None
    settings = _json_object(path, metadata[_ADAPTER])
    for name, value in settings.items():
        setting = name.rpartition(".")[2]
        if setting in ("use_dora", "use_rslora", "alpha_pattern") and value:
            problem = f"metadata `{_ADAPTER}` sets {setting}, which is not supported"
            raise LoraError(path, problem, advice="Export it as a plain LoRA with one alpha")
    alphas = [value for name, value in settings.items() if name.rpartition(".")[2] == "lora_alpha"]
    if not alphas:
        return None
    alpha = alphas[0]
    if (
        isinstance(alpha, bool)
        or not isinstance(alpha, int | float)
        or not 0 < alpha < _LARGE
        or alphas != [alpha]
    ):
        problem = f"metadata `{_ADAPTER}` has lora_alpha {alphas}, expected one number above 0"
        raise LoraError(path, problem, advice="Export it as a plain LoRA with one alpha")
    return float(alpha)


def _factor(path: Path, name: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= _MOST or value != int(value):
        problem = f"has metadata {name} {text[:40]!r}, expected a whole number from 1 to {_MOST}"
        raise LoraError(path, problem, advice="Download the file again, or ask its author for the right value")
    return int(value)


def _json_object(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problem = f"has metadata `{_ADAPTER}` that is not a JSON object"
        raise LoraError(path, problem, advice="Download the file again")
    return value
