"""LTX-2.3's five files at full size with random values, in the published layout: 42 GB that the loaders take for
the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from benchmarks.full_model import full_audio_vae, full_connectors, full_text_encoder, full_video_vae, full_vocoder
from benchmarks.full_settings import AUDIO_SETTINGS, VIDEO_VAE_SETTINGS, transformer_settings
from benchmarks.full_size import PUBLISHED_BF16_BLOCKS, build_transformer
from scope_ltx.checkpoints.keys import (
    AUDIO_VAE,
    CONNECTORS,
    SPIECE_MODEL,
    TEXT_ENCODER,
    TRANSFORMER,
    VIDEO_VAE,
    VOCODER,
    KeyMap,
)
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.small.vocabulary import train_tokenizer
from scope_quant.capability import Fp8Path

PATTERN_NBYTES = 64 * 2**20
"""Values repeat after this many bytes: drawing 42 GB would take minutes and load no differently."""
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.uint8: "U8"}


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: `values` are its bytes where they matter, else they are drawn."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    values: bytes | None = None

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_full_model(directory: Path, layers: int = 48) -> None:
    """All five files below `directory`; `layers` of the transformer and of Gemma (fewer for a quick check)."""
    paths = ModelFiles.below(directory)
    bf16 = tuple(block for block in PUBLISHED_BF16_BLOCKS if block < layers)
    transformer = build_transformer(Fp8Path.DEQUANTIZE, bf16, layers)
    connectors = full_connectors(layers + 1)
    projections = [entry for entry in _entries(connectors, CONNECTORS) if "aggregate_embed" in entry.name]
    rest = [entry for entry in _entries(connectors, CONNECTORS) if "aggregate_embed" not in entry.name]
    tokenizer = train_tokenizer()
    spiece = Entry(SPIECE_MODEL, (len(tokenizer),), torch.uint8, tokenizer)
    _write(paths.transformer, [*_entries(transformer, TRANSFORMER), *rest], transformer_settings(layers))
    _write(paths.text_projection, projections, None)
    text_encoder = full_text_encoder(Fp8Path.DEQUANTIZE, layers)
    _write(paths.text_encoder, [*_entries(text_encoder, TEXT_ENCODER), spiece], None)
    _write(paths.video_vae, list(_entries(full_video_vae(), VIDEO_VAE)), VIDEO_VAE_SETTINGS)
    sound = [*_entries(full_audio_vae(), AUDIO_VAE), *_entries(full_vocoder(), VOCODER)]
    _write(paths.audio_vae, sound, AUDIO_SETTINGS)


def _entries(module: nn.Module, keymap: KeyMap) -> Iterator[Entry]:
    """The module's stored tensors (it may be on `meta`), under published names and in published types."""
    for name, tensor in module.state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith(".weight_scale"):
            layer = keymap.to_published(f"{name.removesuffix('_scale')}").removesuffix(".weight")
            scale = np.float32(1 / 64).tobytes()
            yield Entry(f"{layer}.weight_scale", (), torch.float32, scale)
            note = json.dumps({"format": "float8_e4m3fn"}).encode()
            yield Entry(f"{layer}.comfy_quant", (len(note),), torch.uint8, note)
            continue
        dtype = tensor.dtype if tensor.dtype == torch.float8_e4m3fn else torch.bfloat16
        if name.endswith("scale_shift_table"):
            dtype = torch.float32
        yield Entry(keymap.to_published(name), shape, dtype)


def _write(path: Path, entries: list[Entry], settings: Mapping[str, Any] | None) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    if settings is not None:
        header["__metadata__"] |= {"config": json.dumps(settings), "model_version": "2.3.0"}
    ordered = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    end = 0
    for entry in ordered:
        begin, end = end, end + entry.nbytes
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    patterns = {dtype: _pattern(dtype) for dtype in _NAMES}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            _write_values(file, entry, patterns[entry.dtype])


def _write_values(file: BinaryIO, entry: Entry, pattern: memoryview) -> None:
    if entry.values is not None:
        file.write(entry.values)
        return
    for start in range(0, entry.nbytes, len(pattern)):
        file.write(pattern[: min(len(pattern), entry.nbytes - start)])


def _pattern(dtype: torch.dtype) -> memoryview:
    """Normal values: of deviation 1 for FP8, whose scale makes them small, else of 0.02."""
    generator = torch.Generator().manual_seed(0)
    spread = 1.0 if dtype == torch.float8_e4m3fn else 0.02
    values = torch.randn(PATTERN_NBYTES // dtype.itemsize // 8, generator=generator) * spread
    return memoryview(values.to(dtype).view(torch.uint8).repeat(8).numpy().data)
