"""What a safetensors file is, told from its header alone: its kind, size, dtypes and settings.

Only the header is read, so a 25 GB file takes milliseconds. Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_ltx.checkpoints.header import TensorEntry, read_header

_LORA_PARTS = ("lora_A", "lora_B", "lora_down", "lora_up", "dora_scale", "lokr_w1", "hada_w1_a")
_AUDIO_PARTS = ("audio_attn1", "audio_attn2", "audio_ff", "audio_to_video_attn", "video_to_audio_attn")
_SCALE_SUFFIXES = (".weight_scale", ".input_scale", ".scale_weight", ".comfy_quant")


@dataclass(frozen=True)
class FileReport:
    """What `scope-ltx inspect` tells. `parameters` leaves out scales, quantisation tags and embedded bytes.

    metadata: the file's own, with JSON values parsed.
    """

    path: Path
    kind: str
    nbytes: int
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    metadata: Mapping[str, Any]
    details: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}

    def as_text(self) -> str:
        dtypes = ", ".join(f"{name} x{count}" for name, count in self.dtypes.items())
        lines = [
            f"file        {self.path}",
            f"kind        {self.kind}",
            f"size        {self.nbytes:,} bytes",
            f"tensors     {self.tensors:,} ({dtypes})",
            f"parameters  {self.parameters:,}",
        ]
        lines += [f"{name:<12}{value}" for name, value in self.details.items()]
        lines += [f"metadata    {name}: {_shortened(value)}" for name, value in self.metadata.items()]
        return "\n".join(lines)


def inspect_file(path: Path) -> FileReport:
    """Raises CheckpointError when `path` is no complete safetensors file."""
    header = read_header(path)
    tensors = header.tensors
    parsed = {name: _parsed(value) for name, value in header.metadata.items()}
    return FileReport(
        path=path,
        kind=file_kind(tensors, parsed),
        nbytes=path.stat().st_size,
        tensors=len(tensors),
        parameters=sum(math.prod(entry.shape) for key, entry in tensors.items() if _is_parameter(key)),
        dtypes=dict(Counter(entry.dtype for entry in tensors.values()).most_common()),
        metadata=parsed,
        details=_lora_details(tensors) if _is_lora(tensors) else {},
    )


def file_kind(tensors: Collection[str], metadata: Mapping[str, Any]) -> str:
    """The kind in words, from the keys' prefixes (the published files use a fixed set of them)."""
    if _is_lora(tensors):
        return _lora_kind(tensors, metadata)
    found = [name for name, prefixes in _PREFIXES.items() if any(key.startswith(prefixes) for key in tensors)]
    if {"transformer", "audio VAE"} <= set(found):
        return "complete checkpoint: " + ", ".join(found)
    if not found and any(key.startswith("transformer_blocks.") for key in tensors):
        return "transformer (keys without the published prefix)"
    if not found and any(key.startswith(("encoder.", "decoder.")) for key in tensors):
        known = any(key.startswith("per_channel_statistics.") for key in tensors)
        return "video VAE" if known else "unknown VAE"
    if not found and "initial_conv.weight" in tensors:
        return "latent upsampler"
    return " + ".join(found) if found else "unknown: no known key prefix"


_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.transformer_blocks.", "diffusion_model.transformer_blocks."),
    "text projection": ("text_embedding_projection.",),
    "text encoder (Gemma)": ("model.layers.", "language_model.model.layers."),
    "tokenizer": ("spiece_model",),
    "video VAE": ("vae.",),
    "audio VAE": ("audio_vae.",),
    "vocoder": ("vocoder.",),
}


def _is_lora(tensors: Collection[str]) -> bool:
    return any(part in key for key in tensors for part in _LORA_PARTS)


def _lora_kind(tensors: Collection[str], metadata: Mapping[str, Any]) -> str:
    if not any("transformer_blocks." in key for key in tensors):
        return "LoRA for another model (no transformer_blocks keys)"
    if any(part in key for key in tensors for part in ("dora_scale", "lokr_", "hada_")):
        return "LoRA of an unsupported type (DoRA, LoKr or LoHa)"
    if "reference_downscale_factor" in metadata:
        return f"IC-LoRA (reference downscale {metadata['reference_downscale_factor']})"
    blocks = [key for key in tensors if "transformer_blocks." in key]
    audio = [key for key in blocks if any(f".{part}." in key for part in _AUDIO_PARTS)]
    if len(audio) == len(blocks):
        return "ID-LoRA (audio modules only)"
    return "LoRA (video and audio)" if audio else "LoRA (video; an IC-LoRA if its author says so)"


def _lora_details(tensors: Mapping[str, TensorEntry]) -> dict[str, str]:
    ranks = {
        min(entry.shape)
        for key, entry in tensors.items()
        if len(entry.shape) == 2 and any(part in key for part in ("lora_A", "lora_down"))
    }
    if not ranks:
        return {}
    return {"rank": str(min(ranks)) if len(ranks) == 1 else f"{min(ranks)} to {max(ranks)}"}


def _is_parameter(key: str) -> bool:
    return not key.endswith(_SCALE_SUFFIXES) and key != "spiece_model"


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, TypeError):
        return value


def _shortened(value: Any, limit: int = 200) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters; --json shows all)"
