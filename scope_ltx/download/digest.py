"""Checksums of files: the two kinds by which the hub names content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BLOCK_NBYTES = 1 << 24
"""Large enough that hashing, not reading, sets the pace; small enough for a smooth progress bar."""


@dataclass(frozen=True)
class Digest:
    """`sha256` of a large file, or `git-sha1` of a small one: SHA-1 of "blob", its size, NUL and its bytes."""

    kind: Literal["sha256", "git-sha1"]
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


def digest_of_etag(etag: str | None) -> Digest | None:
    """The content that an ETag of the hub names; None for an ETag of another kind."""
    if etag and re.fullmatch("[0-9a-f]{64}", etag):
        return Digest("sha256", etag)
    if etag and re.fullmatch("[0-9a-f]{40}", etag):
        return Digest("git-sha1", etag)
    return None


def digest_file(path: Path, kind: Literal["sha256", "git-sha1"], advance: Callable[[int], None]) -> Digest:
    """Read the whole file. `advance` gets the bytes read since it was last called. Raises OSError."""
    state = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git-sha1":
        state.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(BLOCK_NBYTES):
            state.update(block)
            advance(len(block))
    return Digest(kind, state.hexdigest())
