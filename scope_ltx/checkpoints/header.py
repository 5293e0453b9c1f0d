"""The header of a safetensors file, checked against the file that it stands in.

Layout: 8 bytes of little-endian length, that many bytes of JSON, then the tensors' bytes. Only the header
is read, so a file of 25 GB takes milliseconds. Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scope_ltx.errors import CheckpointError

MAX_HEADER_NBYTES = 100_000_000
"""Limit of the safetensors format itself."""

DTYPE_NBYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Bytes per element, by the format's own names."""

FETCH_AGAIN = "Download the file again, and compare its size with the published one"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its type as safetensors spells it (F8_E4M3, BF16, ...), its shape, its bytes.

    `start` is where they begin, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int


@dataclass(frozen=True)
class Header:
    """What a file holds. `metadata` is the file's own: a mapping of strings, some of them JSON.

    `nbytes` is the length of the header itself: the tensors' bytes begin there.
    """

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    nbytes: int


def read_header(path: Path) -> Header:
    """Read and check the header of `path`.

    Raises CheckpointError for a path that is missing or a directory, for what is not a safetensors file (with
    what it is instead, where that can be told), and for a file shorter or longer than its header says.
    """
    _require_file(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            lead = file.read(512)
            length = _header_length(path, lead, size)
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            path, f"cannot be read: {error.strerror or error}", advice="Check the file's permissions"
        ) from error
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise TypeError(f"expected an object, got {type(raw).__name__}")
        metadata = raw.pop("__metadata__", None) or {}
        tensors = {key: _entry(value) for key, value in raw.items()}
        end = 8 + length + max((int(value["data_offsets"][1]) for value in raw.values()), default=0)
    # Numbers without end (1e999) and brackets without end are JSON too.
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise CheckpointError(path, f"has a damaged header: {error}", advice=FETCH_AGAIN) from error
    if end != size:
        damage = "is truncated" if end > size else "is longer than its header says"
        raise CheckpointError(path, f"{damage}: {size:,} bytes, expected {end:,}", advice=FETCH_AGAIN)
    return Header(tensors, metadata, 8 + length)


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(
            path, "is a directory, expected a .safetensors file", advice="Name the file inside it"
        )
    if not path.exists():
        missing = path if path.parent.is_dir() else path.parent
        what = "the file" if missing == path else f"the directory {missing}"
        raise CheckpointError(
            path,
            f"{what} does not exist",
            advice="Check the model directory; `scope-ltx doctor` lists the files that belong in it",
        )


def _header_length(path: Path, lead: bytes, size: int) -> int:
    """Length of the JSON. A damaged file is named for what it looks like.

    The `{` that must follow the length comes first: a length may itself begin with the byte of a `<`.
    """
    length = int.from_bytes(lead[:8], "little")
    if lead[8:9] == b"{" and 2 <= length <= MAX_HEADER_NBYTES:
        if 8 + length > size:
            problem = f"is truncated inside its header: {size:,} bytes, expected more than {8 + length:,}"
            raise CheckpointError(path, problem, advice=FETCH_AGAIN)
        return length
    if not lead:
        raise CheckpointError(path, "is empty", advice=FETCH_AGAIN)
    text = lead.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        problem = "is a web page (HTML), not a safetensors file"
        advice = "The server answered with a page, often a login or an error: open the link, then download again"
        raise CheckpointError(path, problem, advice=advice)
    if text.startswith(b"version https://git-lfs"):
        problem = "is a Git LFS pointer, not the file itself"
        raise CheckpointError(path, problem, advice="Run `git lfs pull`, or download the file directly")
    raise CheckpointError(path, f"is not a safetensors file{_other_format(lead)}", advice=FETCH_AGAIN)


def _other_format(lead: bytes) -> str:
    if lead.startswith(b"PK\x03\x04"):
        return " but a zip archive (a pickled .pt file, perhaps)"
    if lead.startswith(b"GGUF"):
        return " but a GGUF file"
    return ""


def _entry(value: Any) -> TensorEntry:
    dtype, shape = str(value["dtype"]), tuple(int(extent) for extent in value["shape"])
    begin, end = (int(offset) for offset in value["data_offsets"])
    if begin < 0 or end < begin or any(extent < 0 for extent in shape):
        raise ValueError(f"shape {list(shape)} at bytes {begin} to {end}")
    if dtype in DTYPE_NBYTES and math.prod(shape) * DTYPE_NBYTES[dtype] != end - begin:
        raise ValueError(f"{dtype} of shape {list(shape)} does not fill {end - begin} bytes")
    return TensorEntry(dtype, shape, end - begin, begin)
