"""A checkpoint in bfloat16 to the split FP8 files, with a look at the loaders before anything is written.

Imports torch: for the `quantize` command alone, when it runs.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import click
import torch

from scope_ltx.checkpoints.quantize.command import Parts, QuantizeReport, quantize_checkpoint
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.models.connectors import open_connectors
from scope_ltx.models.transformer import open_transformer
from scope_ltx.models.video_vae import load_video_vae
from scope_quant.capability import Fp8Path

_CPU = torch.device("cpu")


def require_loadable(parts: Parts) -> None:
    """Open every part as a pipeline would: settings, names, shapes and types. The VAEs and the vocoder are loaded
    (2 GB at the published size), the transformer and the connectors are compared with their headers.

    Raises CheckpointError naming the file and the keys.
    """
    transformer = parts["transformer"]
    open_transformer(transformer, dtype=torch.bfloat16, fp8_path=Fp8Path.DEQUANTIZE)
    if "text_projection" in parts:
        open_connectors(transformer, parts["text_projection"], dtype=torch.bfloat16, fp8_path=Fp8Path.DEQUANTIZE)
    if "video_vae" in parts:
        load_video_vae(parts["video_vae"], device=_CPU, dtype=torch.bfloat16)
    if "audio_vae" in parts:
        load_audio_vae(parts["audio_vae"], device=_CPU, dtype=torch.bfloat16)
        load_vocoder(parts["audio_vae"], device=_CPU)


class ProgressBar:
    """Bytes written, on stderr, from the first ones on. Give it to `quantize_checkpoint`; leave it with `with`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, path: Path, written: int, total: int) -> None:
        if self._bar is None:
            bar = click.progressbar(length=total, label="quantizing", file=sys.stderr)
            self._bar = self._stack.enter_context(bar)
        self._bar.update(written - self._bar.pos)


def quantize_files(
    source: Path, directory: Path, keep_blocks: tuple[int, ...] | None, overwrite: bool, device: torch.device
) -> QuantizeReport:
    """Raises what `quantize_checkpoint` does."""
    with ProgressBar() as bar:
        return quantize_checkpoint(
            source,
            directory,
            keep_blocks=keep_blocks,
            overwrite=overwrite,
            device=device,
            check=require_loadable,
            progress=bar,
        )
