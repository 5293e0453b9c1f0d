"""plugin.toml as typed objects, and the five model files as paths.

Knows names, places and published sizes. Opens no model file and imports no torch.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from scope_ltx.errors import CheckpointError

Role = Literal["transformer", "text_projection", "text_encoder", "video_vae", "audio_vae"]


class PluginFacts(BaseModel):
    """The `[plugin]` table: what a host or a person reads before any code runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    description: str
    package: str
    estimated_vram_gb: float = Field(gt=0)
    sample_rate: int = Field(gt=0)
    homepage: str
    model_license: str


class PublishedFile(BaseModel):
    """One `[[files]]` table. `path` is below a model directory, size and hash are as published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    path: str
    repo: str
    bytes: int = Field(gt=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """All of plugin.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plugin: PluginFacts
    files: tuple[PublishedFile, ...]

    def file(self, role: Role) -> PublishedFile:
        """The file of a role. Raises ValueError unless there is exactly one."""
        found = [file for file in self.files if file.role == role]
        if len(found) != 1:
            raise ValueError(f"plugin.toml must list one file for the role {role!r}, it lists {len(found)}")
        return found[0]


def manifest_path() -> Path:
    """plugin.toml: beside the package in an installed wheel, else in the repository's root."""
    package = Path(__file__).parent
    inside = package / "plugin.toml"
    return inside if inside.is_file() else package.parent / "plugin.toml"


def load_manifest(path: Path | None = None) -> Manifest:
    """Read plugin.toml, the product's own unless `path` is given. Raises ValidationError naming the entry."""
    with (path or manifest_path()).open("rb") as file:
        return Manifest.model_validate(tomllib.load(file))


@dataclass(frozen=True)
class FileStatus:
    """One model file as found: `nbytes` is None when it is not there."""

    role: Role
    path: Path
    nbytes: int | None
    published: PublishedFile


@dataclass(frozen=True)
class ModelFiles:
    """Where the five files of one model are."""

    transformer: Path
    text_projection: Path
    text_encoder: Path
    video_vae: Path
    audio_vae: Path

    @classmethod
    def below(cls, directory: Path) -> ModelFiles:
        """Where the files belong below `directory`, whether or not they are there."""
        manifest = load_manifest()
        return cls(**{role: directory / manifest.file(role).path for role in _roles()})

    @classmethod
    def in_directory(cls, directory: Path) -> ModelFiles:
        """The files of a complete model directory. Raises CheckpointError listing what is missing."""
        if not directory.is_dir():
            problem = "is a file, not a model directory" if directory.exists() else "no such model directory"
            raise CheckpointError(directory, problem, advice=_ADVICE)
        missing = [file.published.path for file in survey(directory) if file.nbytes is None]
        if missing:
            count = f"{len(missing)} of {len(_roles())} model files are missing"
            raise CheckpointError(directory, count, keys=missing, advice=_ADVICE)
        return cls.below(directory)


def survey(directory: Path) -> tuple[FileStatus, ...]:
    """Every model file with its size or its absence; never raises for what is not there."""
    manifest = load_manifest()
    found = []
    for role in _roles():
        published = manifest.file(role)
        path = directory / published.path
        found.append(FileStatus(role, path, path.stat().st_size if path.is_file() else None, published))
    return tuple(found)


def _roles() -> tuple[Role, ...]:
    return tuple(field.name for field in fields(ModelFiles))  # type: ignore[misc]


_ADVICE = (
    "Run `scope-ltx doctor --model DIR` to see which files are expected where, "
    "or use `--model small`, which needs no download"
)
