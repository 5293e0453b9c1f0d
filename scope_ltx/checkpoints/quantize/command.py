"""A checkpoint in bfloat16 -> the split files in FP8, in the layout of a model directory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from scope_ltx.checkpoints.keys import DIFFUSION_PREFIX
from scope_ltx.checkpoints.monolithic import ORIGIN, CheckpointPart, MonolithicCheckpoint, roles_in
from scope_ltx.checkpoints.quantize.view import MergeWeight, quantized_view
from scope_ltx.checkpoints.quantize.writing import CheckpointWriteError, Progress, write_files
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.manifest import ModelFiles, Role

Parts = Mapping[Role, CheckpointFile]


@dataclass(frozen=True)
class QuantizeReport:
    """What was written. `layers` are in FP8. `missing`: files of a model that the directory still lacks."""

    files: Mapping[Role, Path]
    layers: int
    nbytes: int
    missing: tuple[Path, ...]

    def as_text(self) -> str:
        lines = [f"wrote    {path}" for path in self.files.values()]
        lines.append(f"{self.layers:,} layers in FP8, {self.nbytes:,} bytes in all")
        lines += [f"missing  {path}: not part of that checkpoint, put it there" for path in self.missing]
        return "\n".join(lines)


def quantized_parts(
    source: Path,
    *,
    keep_blocks: Collection[int] | None = None,
    merge: MergeWeight | None = None,
    device: torch.device,
) -> dict[Role, CheckpointFile]:
    """What the split files of `source` will hold, by role: of a complete checkpoint every part, of a transformer
    file that one. Nothing is read but the header.

    Raises CheckpointError for a file that is missing, damaged, of no known part, without a transformer or in FP8
    already; ValueError for `keep_blocks` that do not fit.
    """
    file = CheckpointFile(source)
    parts: dict[Role, CheckpointFile]
    if len(roles_in(file)) < 2:
        parts = {"transformer": _with_prefix(file)}
    else:
        whole = MonolithicCheckpoint(file)
        transformer: Role = "transformer"
        parts = {role: whole.part(role) for role in dict.fromkeys((transformer, *whole.roles))}
    view = quantized_view(parts["transformer"], keep_blocks=keep_blocks, merge=merge, device=device)
    view.metadata = {**view.metadata, ORIGIN: source.name}
    return {**parts, "transformer": view}


def _with_prefix(file: CheckpointFile) -> CheckpointFile:
    """A transformer file under the published prefix, which some packagers drop."""
    prefix = f"{DIFFUSION_PREFIX}."
    keys = {prefix + key.removeprefix(prefix): key for key in file.keys}
    return CheckpointPart(file, keys, file.metadata)


def quantize_checkpoint(
    source: Path,
    directory: Path,
    *,
    keep_blocks: Collection[int] | None = None,
    overwrite: bool = False,
    merge: MergeWeight | None = None,
    device: torch.device,
    check: Callable[[Parts], None] | None = None,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Write the split files of `source` below `directory`, at the places where a model directory has them.

    keep_blocks   blocks that stay in bfloat16; by default the first two and the last two.
    merge         applied to every weight matrix of the transformer before it is quantized.
    device        where that is done.
    check         called with the parts before anything is written; raises if a loader would refuse them.

    Raises what `quantized_parts` and `write_files` do; then nothing was written.
    """
    parts = quantized_parts(source, keep_blocks=keep_blocks, merge=merge, device=device)
    if check is not None:
        check(parts)
    layout = ModelFiles.below(directory)
    places: dict[Role, Path] = {
        "transformer": layout.transformer,
        "text_projection": layout.text_projection,
        "text_encoder": layout.text_encoder,
        "video_vae": layout.video_vae,
        "audio_vae": layout.audio_vae,
    }
    for role in parts:
        if places[role].exists() and places[role].samefile(source):
            raise CheckpointWriteError(
                places[role], "is the file to quantize", advice="Name another directory to write to"
            )
    files = {places[role]: part for role, part in parts.items()}
    nbytes = write_files(files, overwrite=overwrite, progress=progress)
    return QuantizeReport(
        files={role: places[role] for role in parts},
        layers=len(parts["transformer"].quantization),
        nbytes=nbytes,
        missing=tuple(path for path in places.values() if not path.exists()),
    )
