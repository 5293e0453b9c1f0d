#!/usr/bin/env python3
"""Whether the wheel holds what a user needs, and what the Scope host finds in it. Needs a package index.

Builds it and looks for every file of the packages in it. Installs it into an empty environment with the light half
of its dependencies, and there, away from the source: the entry point of group `scope` loads, the manifest and the
command work. PyTorch is left out: 2 GB, and nothing here may need it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIGHT = ("pydantic", "click", "platformdirs")
PACKAGES = ("scope_ltx", "streaming/scope_streaming", "quant/scope_quant")

IN_THE_ENVIRONMENT = """
import sys
from importlib import metadata

(entry_point,) = metadata.entry_points(group="scope")
module = entry_point.load()
assert callable(module.register_pipelines), module
assert "site-packages" in module.__file__, module.__file__
from scope_ltx.manifest import load_manifest, manifest_path
facts = load_manifest().plugin
assert manifest_path().parent.name == "scope_ltx", manifest_path()
assert metadata.version(facts.package) == facts.version
assert "torch" not in sys.modules
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder) / "environment")
        run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = Path(folder).glob("*.whl")
        missing = sorted(source_files() - set(zipfile.ZipFile(wheel).namelist()))
        if missing:
            sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
        run(python, "-m", "pip", "install", "--quiet", *light_requirements())
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
        # -I: neither this directory nor PYTHONPATH may lend the package to it.
        run(python, "-I", "-c", IN_THE_ENVIRONMENT)
        run(python.with_name("scope-ltx"), "loras")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB, {len(source_files())} files")
    return 0


def source_files() -> set[str]:
    """Every file of the three packages by its name in a wheel, and the manifest, which lies beside them here."""
    found = {"scope_ltx/plugin.toml"}
    for package in PACKAGES:
        root = (ROOT / package).parent
        paths = (path.relative_to(root) for path in (ROOT / package).rglob("*") if path.is_file())
        found |= {path.as_posix() for path in paths if "__pycache__" not in path.parts}
    return found


def light_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [line for line in project["dependencies"] if line.split(">=")[0] in LIGHT]


def make_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    return next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())


def run(*command: str | Path) -> None:
    """Away from the source. Its output is shown when it fails."""
    done = subprocess.run(command, cwd=ROOT.anchor, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
