"""A download in a test: two files of a repository, what a person would read, and the run itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scope_ltx.download.hub import HuggingFaceHub
from scope_ltx.download.plan import Plan
from scope_ltx.download.run import Options, run_download
from scope_ltx.download.wanted import Wanted
from scope_ltx.manifest import load_manifest

REPO = "someone/Models2.3"
WEIGHTS = bytes(range(256)) * 40
NOWHERE = "ftp://127.0.0.1"
SMALL = b'{"layers": 3}'


@dataclass
class Lines:
    """Keeps what a person would read, and which files were hashed."""

    lines: list[str] = field(default_factory=list)
    hashed: list[tuple[str, int]] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def hashing(self, name: str, nbytes: int) -> Iterator[Callable[[int], None]]:
        read: list[int] = []
        yield read.append
        assert sum(read) == nbytes
        self.hashed.append((name, nbytes))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weights(root: Path, *, nbytes: int | None = len(WEIGHTS), digest: str | None = sha256(WEIGHTS)) -> Wanted:
    return Wanted(REPO, "vae/weights.safetensors", root, "vae/weights.safetensors", nbytes, digest)


def config(root: Path) -> Wanted:
    return Wanted(REPO, "config.json", root, "control/config.json", None, None)


def run(address: str, *wanted: Wanted, output: Lines | None = None, free: int = 10**12, **options: Any) -> Plan:
    hub = HuggingFaceHub(address)
    return run_download(
        load_manifest(), wanted, hub, output or Lines(), Options(**options), free_nbytes=lambda _: free
    )
