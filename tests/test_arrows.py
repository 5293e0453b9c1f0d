"""The arrows between the rooms, read from the imports; and the sizes that keep a file readable.

    scope_ltx -> scope_streaming     scope_ltx -> scope_quant     nothing else between the packages
    inside scope_ltx: a module may import its own room and the rooms below it

A new module of scope_ltx must be given a room in ROOMS.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "scope_ltx": ROOT / "scope_ltx",
    "scope_streaming": ROOT / "streaming" / "scope_streaming",
    "scope_quant": ROOT / "quant" / "scope_quant",
}
ALLOWED = {
    "scope_ltx": {"scope_streaming", "scope_quant"},
    "scope_streaming": set(),
    "scope_quant": set(),
}
ROOMS = (
    {"", "errors", "media_in", "compose", "mode_parameters", "config", "config_file"}
    | {"engine", "manifest", "catalog", "prompts", "inputs", "request", "model_directory"},
    {"checkpoints", "download"},
    {"conditioning", "sampling", "models", "lora", "sound_in", "control"},
    {"pipeline"},
    {"session", "sources", "splice", "prompt_mix"},
    {"hosts", "plugin"},
    {"cli", "backend", "generate", "clip", "doctor", "inspect_file"},
)
"""From the ground up. "" is the package's own __init__."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


def imports(source: str, module: str, is_package: bool = False) -> set[str]:
    """Dotted names that `source` imports, relative ones resolved; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") if is_package else module.split(".")[:-1]
                kept = parents[: len(parents) - node.level + 1]
                base = ".".join([*kept, base] if base else kept)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def room(module: str) -> int:
    """Floor of a module of scope_ltx."""
    name = [*module.split("."), ""][1]
    for floor, names in enumerate(ROOMS):
        if name in names:
            return floor
    raise AssertionError(f"{module} has no room: add {name!r} to ROOMS in tests/test_arrows.py")


def wrong_arrows(module: str, imported: set[str], known: set[str]) -> list[str]:
    package = module.split(".", maxsplit=1)[0]
    wrong = []
    for target in sorted(imported):
        other = target.split(".")[0]
        if other not in PACKAGES:
            continue
        if other != package and other not in ALLOWED[package]:
            wrong.append(f"{module} -> {target}")
            continue
        inside = other == package == "scope_ltx" and target in known and target != package
        if inside and room(target) > room(module):
            wrong.append(f"{module} -> {target}")
    return wrong


def test_every_arrow_is_allowed() -> None:
    known = {name for name, _ in modules()}
    wrong = [
        arrow
        for name, path in modules()
        for arrow in wrong_arrows(name, imports(path.read_text("utf-8"), name, path.name == "__init__.py"), known)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scope_streaming.weights.plan", "import scope_ltx.config"),
        ("scope_quant.fp8", "from scope_streaming import clock"),
        ("scope_quant.fp8", "def f():\n    from scope_ltx.errors import ScopeLtxError"),
        ("scope_ltx.config", "from scope_ltx import pipeline"),
        ("scope_ltx.sampling.loop", "from ..pipeline import Pipeline"),
        ("scope_ltx.pipeline", "from scope_ltx.session import Session"),
    ],
)
def test_a_wrong_arrow_is_found(module: str, source: str) -> None:
    known = {"scope_ltx.pipeline", "scope_ltx.session", "scope_ltx.config", "scope_ltx.errors"}
    assert wrong_arrows(module, imports(source, module), known)


def test_files_and_functions_stay_readable() -> None:
    long = []
    for name, path in modules():
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            long.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{name}.{node.name}: {length} lines")
    assert long == []


@pytest.mark.parametrize(
    "statement",
    [
        "import scope_ltx.config",
        "import scope_ltx.manifest",
        "import scope_ltx.sampling.schedules",
        "import scope_ltx.config_file",
        "import scope_ltx.cli",
        "import scope_ltx.inspect_file",
    ],
)
def test_light_modules_do_not_import_torch(statement: str) -> None:
    heavy = "[name for name in ('torch', 'numpy', 'diffusers', 'av') if name in sys.modules]"
    program = f"import sys; {statement}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
