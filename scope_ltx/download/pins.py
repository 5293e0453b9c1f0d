"""Which commit a repository is held at: recorded when the first file of it was fetched, kept from then on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from scope_ltx.download.errors import DownloadError

OWN_DIRECTORY = ".scope-ltx"
"""What a download keeps for itself below the directory that it fills: record, lock and unfinished files."""


def record_path(directory: Path) -> Path:
    return directory / OWN_DIRECTORY / "revisions.json"


def read_record(directory: Path) -> dict[str, str]:
    """{repository: commit}; empty when nothing was fetched yet. Raises DownloadError for a damaged record."""
    path = record_path(directory)
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
        for repo, commit in found.items():
            if not (isinstance(commit, str) and re.fullmatch("[0-9a-f]{40}", commit)):
                raise ValueError(f"expected a commit of 40 hexadecimal digits for {repo}, got {commit!r}")
    except ValueError as error:
        advice = "Delete it: the next download makes a new one"
        raise DownloadError(f"{path} is no record of revisions: {error}. {advice}") from error
    return found


def write_record(directory: Path, commits: Mapping[str, str]) -> None:
    """Add to the record. It is replaced as a whole: a crash leaves the old one or the new one."""
    path = record_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(
        json.dumps({**read_record(directory), **commits}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    new.replace(path)
