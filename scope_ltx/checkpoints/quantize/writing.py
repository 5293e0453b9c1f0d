"""Writes safetensors files tensor by tensor: all of them whole, or none.

Each is written beside its place as `<name>.partial`, made durable, and moved when the last one is done. The
same tensors and metadata give the same bytes.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scope_ltx.checkpoints.header import DTYPE_NBYTES
from scope_ltx.checkpoints.quantize.view import TORCH_TYPES
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError

Progress = Callable[[Path, int, int], None]
"""(file being written, bytes written of all files, bytes of all files)."""

PIECE_NBYTES = 384 * 2**20
"""Copied at a time. The largest weight of the transformer, 302 MB in bfloat16, is one piece; a text projection of
1.5 GB is five."""

_HEADER_ALIGNMENT = 8


class CheckpointWriteError(CheckpointError):
    """A model file cannot be written. Nothing is left of it; what was there before still is."""


@dataclass(frozen=True)
class _Draft:
    """A file as it will be. `starts` are the places of its tensors in it."""

    source: CheckpointFile
    header: bytes
    starts: Mapping[str, int]
    nbytes: int


def write_files(
    files: Mapping[Path, CheckpointFile],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    piece_nbytes: int = PIECE_NBYTES,
    free_nbytes: Callable[[Path], int] | None = None,
    create: Callable[[Path], io.FileIO] | None = None,
) -> int:
    """Write each of `files` to its path, and return the bytes written. Directories are made as needed.

    Holds one tensor at a time, and of larger ones than `piece_nbytes` as many rows as that. free_nbytes, create:
    the disk; by default the real one.

    Raises CheckpointWriteError, and leaves every path as it was, for paths that exist (unless `overwrite`), for a
    draft that is there already, when the disk has too little space, and when writing fails. Interrupting it
    leaves every path as it was too, unless that is while finished files are moved: then each is whole.
    """
    if not overwrite:
        _require_absent(files)
    drafts = {path: _draft(file) for path, file in files.items()}
    total = sum(draft.nbytes for draft in drafts.values())
    for path in files:
        _make_directory(path.parent)
    _require_space(drafts, free_nbytes or _free_nbytes)
    written = 0
    partials: dict[Path, Path] = {}
    try:
        for path, draft in drafts.items():
            partial = path.with_name(f"{path.name}.partial")
            with _create(path, partial, create or _open_new) as file:
                partials[path] = partial
                for count in _write(path, file, draft, piece_nbytes):
                    written += count
                    if progress is not None:
                        progress(path, written, total)
        for path, partial in partials.items():
            partial.replace(path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
    for directory in {path.parent for path in files}:
        _make_durable(directory)
    return written


def _require_absent(files: Mapping[Path, CheckpointFile]) -> None:
    for path in files:
        if path.exists():
            raise CheckpointWriteError(
                path, "exists already", advice="Name another directory, or ask for it to be replaced (--overwrite)"
            )


def _draft(source: CheckpointFile) -> _Draft:
    """Widest types first, so that every tensor starts at a multiple of its element's size; then by name."""
    unknown = [f"{key} {dtype}" for key, dtype in source.dtypes.items() if dtype not in TORCH_TYPES]
    if unknown:
        raise CheckpointError(
            source.path, "has tensors of a type that cannot be copied", keys=unknown, advice="Use published files"
        )
    header: dict[str, Any] = {"__metadata__": dict(sorted(source.metadata.items()))}
    end = 0
    starts = {}
    for key in sorted(source.keys, key=lambda key: (-DTYPE_NBYTES[source.dtypes[key]], key)):
        starts[key] = end
        end += math.prod(source.shapes[key]) * DTYPE_NBYTES[source.dtypes[key]]
        header[key] = {
            "dtype": source.dtypes[key],
            "shape": list(source.shapes[key]),
            "data_offsets": [starts[key], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    lead = len(text).to_bytes(8, "little") + text
    return _Draft(source, lead, {key: len(lead) + start for key, start in starts.items()}, len(lead) + end)


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made a directory: {error.strerror}"
        raise CheckpointWriteError(directory, problem, advice="Name another directory") from error


def _require_space(drafts: Mapping[Path, _Draft], free_nbytes: Callable[[Path], int]) -> None:
    """All drafts together must fit beside what is there: what they replace goes only when they are done."""
    needed: dict[int, tuple[Path, int]] = {}
    for path, draft in drafts.items():
        device = path.parent.stat().st_dev
        first, before = needed.get(device, (path.parent, 0))
        needed[device] = (first, before + draft.nbytes)
    for directory, nbytes in needed.values():
        free = free_nbytes(directory)
        if nbytes > free:
            problem = f"has too little space: {nbytes:,} bytes are needed, {free:,} are free"
            raise CheckpointWriteError(directory, problem, advice="Free some, or name a directory elsewhere")


def _free_nbytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def _open_new(path: Path) -> io.FileIO:
    """Without a buffer: one that cannot be emptied would raise a second error when the file is closed."""
    return io.FileIO(path, "xb")


def _create(path: Path, partial: Path, create: Callable[[Path], io.FileIO]) -> io.FileIO:
    try:
        return create(partial)
    except FileExistsError as error:
        advice = f"If no other process is writing it, one was killed: delete {partial.name}, then try again"
        raise CheckpointWriteError(partial, "is there already", advice=advice) from error
    except OSError as error:
        raise _failed(path, 0, error) from error


def _write(path: Path, file: io.FileIO, draft: _Draft, piece_nbytes: int) -> Iterator[int]:
    """Write one file and make it durable; yields the bytes of each piece."""
    done = 0
    for place, data in _pieces(draft, piece_nbytes):
        left = data
        try:
            file.seek(place)
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise _failed(path, done, error) from error
        count = len(data)
        done += count
        # Before the next piece is made: two would be held at a time.
        del data, left
        yield count
    try:
        os.fsync(file.fileno())
    except OSError as error:
        raise _failed(path, done, error) from error


def _pieces(draft: _Draft, piece_nbytes: int) -> Iterator[tuple[int, memoryview]]:
    """Where to write what. Scales come first in the file and are written last: a view knows a scale once it has
    quantized the weight, and would else read every weight twice."""
    yield 0, memoryview(draft.header)
    source = draft.source
    for key in sorted(draft.starts, key=lambda key: (key.endswith(".weight_scale"), draft.starts[key])):
        shape, dtype = source.shapes[key], TORCH_TYPES[source.dtypes[key]]
        place, nbytes = draft.starts[key], math.prod(shape) * dtype.itemsize
        if nbytes == 0:
            continue
        if nbytes <= piece_nbytes or not shape:
            yield place, _bytes_of(source, key, torch.empty(shape, dtype=dtype), 0)
            continue
        row_nbytes = nbytes // shape[0]
        step = max(1, piece_nbytes // row_nbytes)
        buffer = torch.empty((step, *shape[1:]), dtype=dtype)
        for row in range(0, shape[0], step):
            target = buffer[: shape[0] - row]
            yield place + row * row_nbytes, _bytes_of(source, key, target, row)
        del buffer, target


def _bytes_of(source: CheckpointFile, key: str, target: Tensor, first_row: int) -> memoryview:
    source.read_into(key, target, first_row)
    data: memoryview = target.view(-1).view(torch.uint8).numpy().data
    return data


def _failed(path: Path, done: int, error: OSError) -> CheckpointWriteError:
    problem = f"cannot be written, after {done:,} bytes: {error.strerror or error}"
    return CheckpointWriteError(path, problem, advice="Free some space, or name a directory elsewhere")


def _make_durable(directory: Path) -> None:
    """So that a moved file is still there after a power cut. Directories cannot be opened on Windows."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
