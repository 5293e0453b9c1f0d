"""A small LTX-2.3 in exactly the published layout, trained on a synthetic world and shipped with the package.

Same file names, key names, FP8 scales and metadata as the published model, only narrower and shallower. It draws
flat shapes that move as a prompt says, with a tone and clicks that follow them, faster than real time on two CPU
cores; weights/README.md says what it knows. Everything that loads it treats it as any other model directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

VERSION = 9
"""Part of the directory's name: raise it whenever a change makes other bytes."""

SEED = 20260305

WEIGHTS = Path(__file__).parent / "weights"
"""What is shipped: a model directory without the parts that no training has touched."""

_SEAL = "small-model.json"
"""Sizes and SHA-256 of the files, written last: a directory without it, or that differs from it, is made again."""


def ensure_small_model(cache_dir: Path) -> Path:
    """The directory of the small model below `cache_dir`; written first (about 1 s) unless it is there and whole.

    Beside the shipped weights it holds what is drawn from a seed: the latent upsampler and stand-ins for LoRAs
    that nothing small was trained for. Two processes may do so at once: each writes a directory of its own and
    moves it into place.

    Raises OSError if `cache_dir` cannot be written, FileNotFoundError if the package lacks its weights.
    """
    target = cache_dir / f"small-v{VERSION}-seed{SEED}"
    if _is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh = scratch / "fresh"
        fresh.mkdir()
        _write(fresh)
        (fresh / _SEAL).write_text(json.dumps(_digests(fresh), indent=1, sort_keys=True) + "\n")
        _put_in_place(fresh, target, scratch / "damaged")
    finally:
        shutil.rmtree(scratch)
    return target


def _write(directory: Path) -> None:
    if not WEIGHTS.is_dir():
        raise FileNotFoundError(
            f"the small model's weights are missing from {WEIGHTS}: install scope-ltx again, or train them "
            "(training/README.md)"
        )
    # PyTorch and diffusers take seconds to import: not for a model that is there.
    from scope_ltx.models.small.published import add_stand_ins  # noqa: PLC0415

    shutil.copytree(WEIGHTS, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.md"))
    add_stand_ins(directory, SEED)


def _put_in_place(fresh: Path, target: Path, damaged: Path) -> None:
    """Move `fresh` to `target`. What lies there goes to `damaged`, unless another process has mended it."""
    if target.exists() and not _is_whole(target):
        target.replace(damaged)
    try:
        fresh.replace(target)
    except OSError:
        if not _is_whole(target):
            raise


def _is_whole(directory: Path) -> bool:
    try:
        sealed = json.loads((directory / _SEAL).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(sealed == _digests(directory))


def _digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every model file by its path below `directory`."""
    found = {}
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root) / name
            if name != _SEAL:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.relative_to(directory).as_posix()] = digest
    return found
