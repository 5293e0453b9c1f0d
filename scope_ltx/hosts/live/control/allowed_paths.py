"""Which files a request may name: uploads, LoRAs below the model directory, and what the operator has named.

The library and the command line take every path; over HTTP a path is first resolved, links too, and must then lie
below one of these directories. What lies elsewhere is refused alike whether or not it exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scope_ltx.catalog import LORA_DIRECTORY, Catalog
from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.http.problems import FieldProblem

MEDIA_FIELDS = ("i2v_image", "audio_input", "reference_video")

Rule = Callable[[str], str]


class ForbiddenPathError(ValueError):
    """The text is fit for a user, and tells nothing about what is on the server."""


class AllowedPaths:
    """named: the configuration that the operator has started with, whose paths stay allowed wherever they lie."""

    def __init__(
        self, uploads: Path | None, models: Path | None, media: Sequence[Path], catalog: Catalog, named: LTX2Config
    ) -> None:
        known = [directory.resolve() for directory in media]
        self._media = [*([uploads.resolve()] if uploads else []), *known]
        self._loras = [*([(models / LORA_DIRECTORY).resolve()] if models else []), *known]
        self._models = models.resolve() if models else None
        self._catalog = catalog
        self._named = frozenset(named_paths(named))

    def checked(self, changes: dict[str, Any]) -> tuple[dict[str, Any], list[FieldProblem]]:
        """`changes` with every path as the file that it leads to, and what is wrong with the others.

        What is no path at all is left as it is, for the configuration to refuse.
        """
        problems: list[FieldProblem] = []

        def check(rule: Rule, value: Any, *loc: str | int) -> Any:
            if not isinstance(value, str) or value in self._named or not value:
                return value
            try:
                return rule(value)
            except ForbiddenPathError as error:
                problems.append(FieldProblem(loc=["body", *loc], msg=str(error)))
                return value

        result = dict(changes)
        for name in MEDIA_FIELDS:
            if name in result:
                result[name] = check(self.media, result[name], name)
        for name, rule in (("images", self.media), ("loras", self.lora)):
            entries = result.get(name)
            if isinstance(entries, list):
                result[name] = [
                    {**entry, "path": check(rule, entry["path"], name, index, "path")}
                    if isinstance(entry, dict) and "path" in entry
                    else entry
                    for index, entry in enumerate(entries)
                ]
        return result, problems

    def media(self, path: str) -> str:
        """The file of a picture, clip or sound. Raises ForbiddenPathError."""
        return _found(path, self._media, "upload it, or start the server with --media-dir and its directory")

    def lora(self, path: str) -> str:
        """The file of a LoRA, or a name of the catalog as it is. Raises ForbiddenPathError."""
        listed = self._catalog.get(path) if path == Path(path).name else None
        if listed is not None and not _exists(Path(path)):
            return path
        advice = f"put it below {LORA_DIRECTORY}/ of the model directory, or start the server with --media-dir"
        # The catalog finds its files anywhere below the model directory, and the page gives them by their path.
        known = self._models is not None and self._catalog.get(path) is not None
        return _found(path, [*self._loras, *([self._models] if known and self._models else [])], advice)


def _found(path: str, directories: Iterable[Path], advice: str) -> str:
    given = Path(path)
    missing = None
    for directory in directories:
        try:
            # An absolute path stands for itself below every directory.
            candidate = (directory / given).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise ForbiddenPathError("this is no path of a file") from error
        if not candidate.is_relative_to(directory):
            continue
        if _exists(candidate):
            return str(candidate)
        missing = candidate
    if missing is not None:
        raise ForbiddenPathError(f"there is no file {missing.name} in the directories that this server reads from")
    raise ForbiddenPathError(f"this is outside of the directories that this server reads from: {advice}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a NUL in it, a directory that may not be entered
        return False


def named_paths(config: LTX2Config) -> list[str]:
    """Every path in a configuration."""
    single = [getattr(config, name) for name in MEDIA_FIELDS]
    listed = [*(pin.path for pin in config.images), *(lora.path for lora in config.loras)]
    return [path for path in (*single, *listed) if path is not None]
