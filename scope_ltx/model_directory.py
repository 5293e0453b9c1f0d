"""Which directory holds the model files. Knows where Daydream Scope keeps them; looks at names only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scope_ltx.manifest import load_manifest, survey

MODELS_VARIABLE = "DAYDREAM_SCOPE_MODELS_DIR"
DEFAULT_MODELS = "~/.daydream-scope/models"


def model_directory(given: Path) -> Path:
    """`given`, or the directory below it in which the host keeps the files, if only that one has any.

    So a models directory of the host, or of the plugin before this one, is used where it is.
    """
    below = given / load_manifest().plugin.scope.models_directory
    return below if not has_model_files(given) and has_model_files(below) else given


def has_model_files(directory: Path) -> bool:
    """Whether at least one file of the model is there."""
    return any(file.nbytes is not None for file in survey(directory))


def host_model_directory(environment: Mapping[str, str]) -> Path:
    """Where the Scope host looks for the model files, whether or not there is a host or a file."""
    models = Path(environment.get(MODELS_VARIABLE) or DEFAULT_MODELS).expanduser()
    return models / load_manifest().plugin.scope.models_directory
