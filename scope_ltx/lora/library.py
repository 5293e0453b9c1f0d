"""From what a user wrote to an opened LoRA file: a path, a path below the model directory, or a catalog name."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePath

from scope_ltx.catalog import LORA_DIRECTORY, Catalog, download_command, find_files
from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.file import LoraFile
from scope_ltx.lora.kinds import LinearShapes, LoraHint
from scope_ltx.lora.source import FileIdentity
from scope_ltx.manifest import Lora

KEPT = 32
"""Opened files: twice as many as a set can have. Each is a descriptor and a table of its keys."""


@dataclass(frozen=True)
class FoundLora:
    """A file, and what the catalog knows of it."""

    file: LoraFile
    listed: Lora | None


class LoraLibrary:
    """Finds and opens. A file is opened once, and again when it was replaced on disk."""

    def __init__(self, models: Path, shapes: LinearShapes, catalog: Catalog) -> None:
        """`models` is the model directory, `shapes` are the model's layers."""
        self._models = models
        self._shapes = shapes
        self._catalog = catalog
        self._opened: OrderedDict[FileIdentity, LoraFile] = OrderedDict()

    def find(self, name: str) -> FoundLora:
        """Raises LoraError for a name that leads nowhere, and for a file that is no LoRA of this model."""
        path = self._path(name)
        listed = self._catalog.get(path)
        return FoundLora(self._open(path, listed), listed)

    def identity(self) -> FoundLora:
        """The catalog's ID-LoRA. Raises LoraError with the download command where it is not there."""
        known = [lora for lora in self._catalog.loras if lora.kind == "identity"]
        for lora in known:
            path = self._below(lora)
            if path is not None:
                return FoundLora(self._open(path, lora), lora)
        raise self._not_there(known[0], "is not there, and audio_mode id_lora needs it")

    def _path(self, name: str) -> Path:
        given = Path(name)
        tried = [given] if given.is_absolute() else [given, self._models / given]
        tried += [self._loras / given] if given.name == name else []
        for path in tried:
            if _is_file(path):
                return path
        if given.name == name and (lora := self._catalog.get(name)):
            found = self._below(lora)
            if found is None:
                raise self._not_there(lora, f"is not there ({lora.id} of the catalog)")
            return found
        raise self._unknown(name, tried)

    @property
    def _loras(self) -> Path:
        return self._models / LORA_DIRECTORY

    def _below(self, lora: Lora) -> Path | None:
        """Where a listed file is: among the LoRAs, else anywhere in the model directory."""
        for directory in (self._loras, self._models):
            if found := find_files([lora], directory):
                return found[lora.id]
        return None

    def _open(self, path: Path, listed: Lora | None) -> LoraFile:
        try:
            found = path.stat()
            file = self._opened.get(FileIdentity(path.absolute(), found.st_size, found.st_mtime_ns))
        except OSError:
            file = None  # It is gone since it was found: opening it says so.
        if file is None:
            file = LoraFile(path, self._shapes, hint=_hint(listed))
            self._opened[file.identity] = file
            while len(self._opened) > KEPT:
                self._opened.popitem(last=False)
        self._opened.move_to_end(file.identity)
        return file

    def _not_there(self, lora: Lora, problem: str) -> LoraError:
        path, advice = self._loras / lora.file, f"Download it: `{download_command(lora, self._models)}`"
        return LoraError(path, f"{problem}; looked everywhere below {self._models}", advice=advice)

    def _unknown(self, name: str, tried: list[Path]) -> LoraError:
        places = ", ".join(str(path) for path in tried)
        listed = self._catalog.get(name)
        near = self._near(PurePath(name).name)
        if listed is not None:
            advice = f"Name {listed.id}, or download it: `{download_command(listed, self._models)}`"
        elif near:
            advice = f"Did you mean {' or '.join(near)}? `scope-ltx loras` lists the catalog"
        else:
            advice = "`scope-ltx loras` lists the catalog; any other LoRA is named by its path"
        return LoraError(Path(name), f"is no file, and no LoRA of the catalog; looked for {places}", advice=advice)

    def _near(self, asked: str) -> list[str]:
        """Names of the catalog and of the files among the LoRAs that are like this one."""
        files = [path.name for path in sorted(self._loras.rglob("*.safetensors"))]
        known = [*(lora.id for lora in self._catalog.loras), *files]
        inside = [name for name in known if len(asked) > 2 and asked.lower() in name.lower()]
        return inside[:3] or get_close_matches(asked, known, n=3)


def _hint(listed: Lora | None) -> LoraHint | None:
    if listed is None:
        return None
    return LoraHint(listed.kind, listed.trained_for, listed.reference_downscale_factor)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system, a directory that may not be entered
        return False
