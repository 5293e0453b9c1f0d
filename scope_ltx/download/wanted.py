"""Which files to have and where they belong, from plugin.toml. Looks at no network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scope_ltx.catalog import LORA_DIRECTORY, Catalog
from scope_ltx.manifest import ControlModel, Lora, Manifest, RemoteFile, survey


@dataclass(frozen=True)
class Wanted:
    """One file: `repo_path` in `repo` belongs at `path` below `root`. Size and hash as published, if known."""

    repo: str
    repo_path: str
    root: Path
    path: str
    nbytes: int | None
    sha256: str | None

    @property
    def target(self) -> Path:
        return self.root / self.path


def model_files(manifest: Manifest, directory: Path) -> list[Wanted]:
    """The files that every model needs, without those that a complete checkpoint in the directory stands for."""
    missing = {file.role for file in survey(directory) if file.nbytes is None}
    own = [file for file in manifest.files if file.role in missing or (directory / file.path).is_file()]
    return [_remote(file, directory) for file in own]


def upsampler_file(manifest: Manifest, directory: Path) -> Wanted:
    return _remote(manifest.upsampler, directory)


def control_files(models: Iterable[ControlModel], directory: Path) -> list[Wanted]:
    """The models that draw control signals; their sizes are known to the hub alone."""
    return [
        Wanted(model.repo, name, directory, f"{model.path}/{name}", None, None)
        for model in models
        for name in model.files
    ]


def lora_files(
    manifest: Manifest, names: Iterable[str], directory: Path, lora_directory: Path | None
) -> list[Wanted]:
    """LoRAs of the catalog, below the model directory unless they have one of their own.

    Raises ValueError naming the nearest for a name that is not listed.
    """
    catalog = Catalog(manifest.loras)
    return [_lora(catalog.find(name), directory, lora_directory) for name in dict.fromkeys(names)]


def _remote(file: RemoteFile, directory: Path) -> Wanted:
    return Wanted(file.repo, file.repo_path or file.path, directory, file.path, file.bytes, file.sha256)


def _lora(lora: Lora, directory: Path, lora_directory: Path | None) -> Wanted:
    root = directory if lora_directory is None else lora_directory
    path = lora.file if lora_directory is not None else f"{LORA_DIRECTORY}/{lora.file}"
    return Wanted(lora.repo, lora.repo_path or lora.file, root, path, lora.bytes, lora.sha256)
