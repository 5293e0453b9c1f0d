"""Parameters from a TOML or JSON file and from `name=value` arguments, as one checked configuration.

A file may also hold a table "serve" with the options of that command, so that one file starts a server again:

    num_steps = 6
    [serve]
    port = 8001
    prompt = "Waves roll onto a beach at dusk."
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scope_ltx.config import LTX2Config, describe_problem

SERVE = "serve"


def load_config(path: Path | None, overrides: Mapping[str, Any]) -> LTX2Config:
    """The defaults, changed by the file, changed by `overrides`; checked once, together.

    Raises ValueError with one line per problem: "FILE: field: ..." for a value that came from the file,
    "field: ..." for one that came from `overrides`.
    """
    from_file = {} if path is None else read_parameters(path)
    try:
        return LTX2Config.model_validate({**from_file, **overrides})
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            ours = problem["loc"] and problem["loc"][0] in from_file and problem["loc"][0] not in overrides
            lines.append(f"{path}: {describe_problem(problem)}" if ours else describe_problem(problem))
        raise ValueError("\n".join(lines)) from error


def read_parameters(path: Path) -> dict[str, Any]:
    """The parameters a .toml or .json file holds, unchecked. TOML has no null; JSON has.

    Raises ValueError as `_read_file`.
    """
    values = _read_file(path)
    values.pop(SERVE, None)
    return values


def read_serving(path: Path) -> dict[str, Any]:
    """The options of `serve` that a file holds, by the name of their argument, unchecked.

    Raises ValueError as `_read_file`, and for a [serve] that is no table.
    """
    options = _read_file(path).get(SERVE, {})
    if not isinstance(options, dict):
        raise ValueError(f"{path}: [{SERVE}] must be a table of options, got a {type(options).__name__}")
    return {name.replace("-", "_"): value for name, value in options.items()}


def _read_file(path: Path) -> dict[str, Any]:
    """Raises ValueError naming the file when it cannot be read or is no table of parameters."""
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"{path}: a configuration file ends in .toml or .json")
    try:
        # Editors and shells on Windows begin a UTF-8 file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: is not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold one object of parameters, got a {type(values).__name__}")
    return values


def parse_assignment(text: str) -> tuple[str, Any]:
    """`name=value`; a value that is not JSON is plain text: num_steps=4, schedule=linear.

    Raises ValueError when there is no name or no "=".
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"expected name=value, got {text!r}")
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value
