"""The arrows between the rooms, read from the imports; and the sizes that keep a file readable.

    scope_ltx -> scope_streaming     scope_ltx -> scope_quant     nothing else between the packages
    inside scope_ltx: a module may import its own room and the rooms below it
    inside the live host: a folder may import the folders that LIVE_FOLDERS names for it, and its own files

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
    {"", "at_end", "errors", "freed_memory", "media_in", "compose", "mode_parameters", "config", "config_file"}
    | {"engine", "manifest", "catalog", "prompts", "inputs", "request", "model_directory"},
    {"checkpoints", "download"},
    {"conditioning", "sampling", "models", "lora", "sound_in", "control"},
    {"pipeline"},
    {"session", "sources", "splice", "prompt_mix"},
    {"hosts", "plugin"},
    {"cli", "backend", "generate", "clip", "doctor", "inspect_file"},
)
"""From the ground up. "" is the package's own __init__."""

LIVE_HOST = "scope_ltx.hosts.live"
LIVE_FOLDERS: dict[str, set[str]] = {
    "http": set(),
    "stream": set(),
    "uploads": {"http"},
    "recording": {"http"},
    "webrtc": {"http", "stream"},
    "control": {"http", "stream"},
    "operations": {"http", "stream", "recording", "webrtc"},
}
"""The live host's own files, which put these together, may import all of them."""

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
        if inside and (room(target) > room(module) or not allowed_in_live_host(module, target)):
            wrong.append(f"{module} -> {target}")
    return wrong


def live_folder(module: str) -> str | None:
    """ "" for the live host's own files, None for what is not of the live host."""
    if module != LIVE_HOST and not module.startswith(LIVE_HOST + "."):
        return None
    name = module.removeprefix(LIVE_HOST).removeprefix(".").split(".")[0]
    return name if (PACKAGES["scope_ltx"] / "hosts" / "live" / name).is_dir() else ""


def allowed_in_live_host(module: str, target: str) -> bool:
    importer, imported = live_folder(module), live_folder(target)
    # What the live host is built of knows nothing of it; that is what `room` holds.
    if not importer or imported is None or target == LIVE_HOST:
        return True
    return imported == importer or imported in LIVE_FOLDERS[importer]


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
        ("scope_ltx.hosts.live.http.access", "from scope_ltx.hosts.live.stream.live_stream import LiveStream"),
        ("scope_ltx.hosts.live.webrtc.whip", "from ..operations import metrics"),
        ("scope_ltx.hosts.live.webrtc.viewers", "from scope_ltx.hosts.live.options import MAX_VIEWERS"),
    ],
)
def test_a_wrong_arrow_is_found(module: str, source: str) -> None:
    known = {name for name, _ in modules()}
    assert wrong_arrows(module, imports(source, module), known)


def test_the_live_hosts_arrows_go_one_way_and_every_folder_has_them() -> None:
    folders = {path.parent.name for path in (PACKAGES["scope_ltx"] / "hosts" / "live").glob("*/__init__.py")}
    assert set(LIVE_FOLDERS) == folders
    done: set[str] = set()
    while ready := {name for name, below in LIVE_FOLDERS.items() if name not in done and below <= done}:
        done |= ready
    assert done == folders, "these import each other in a circle"


def test_the_live_host_tells_the_arrows_that_are_held() -> None:
    text = ast.get_docstring(
        ast.parse((PACKAGES["scope_ltx"] / "hosts" / "live" / "__init__.py").read_text("utf-8"))
    )
    told = {}
    for line in (text or "").splitlines():
        name, _, rest = line.strip().partition(" ")
        if line.startswith("    ") and name in LIVE_FOLDERS:
            told[name] = set(rest.strip().partition("  ")[2].replace(",", " ").split())
    assert told == LIVE_FOLDERS


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
