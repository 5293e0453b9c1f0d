#!/usr/bin/env python3
"""Whether the Scope host can install this package, both ways it has. Needs a package index; installs uv by itself.

A named package or an archive: the host resolves it together with its own requirements. Here: `uv pip compile` of
our metadata with constraints/scope_host_direct.txt for CPython 3.12 on Linux. No solution is a failure.

A directory under development: the host installs it without any constraint into what is there. Here: a dry run into
an environment that claims to hold the host's versions. Whatever would move one of them out of the host's bounds is
a failure.

uv reads UV_DEFAULT_INDEX, not pip's settings: where that is unset, pip's index is passed on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIRECT = ROOT / "constraints/scope_host_direct.txt"
TARGET = ("--python-version", "3.12", "--python-platform", "x86_64-unknown-linux-gnu")
"""The only Python for which the host's attention kernels are built."""
UV = "uv==0.13.8"

OVERRIDE = "nvidia-cudnn-cu12>=9.15"
"""The host's own, against a slow convolution in torch 2.9.1."""

LOCKED_REQUIREMENTS = {
    "transformers": ("huggingface-hub>=0.34.0,<1.0", "tokenizers>=0.22.0,<=0.23.0"),
    "diffusers": ("huggingface-hub>=0.34.0,<2.0",),
    "torch": ("triton==3.5.1",),
    "torchvision": ("torch==2.9.1",),
}
"""What the host's versions say of each other, where that restricts us."""

SHOWN = ("torch", "torchao", "peft", "diffusers", "transformers", "huggingface-hub", "safetensors", "av", "numpy")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        uv, environment = install_uv(Path(folder)), index_environment()
        resolved = compile_with_host(uv, environment, Path(folder))
        print("resolved together with the host:", ", ".join(f"{name} {resolved[name]}" for name in SHOWN))
        moved = editable_install(uv, environment, Path(folder))
        print("moved by an editable install:", ", ".join(moved) or "nothing")
    return 0


def install_uv(folder: Path) -> str:
    """A version of its own, whatever is on the PATH: another one may resolve otherwise."""
    venv.create(folder / "uv", with_pip=True)
    scripts = scripts_of(folder / "uv")
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", UV], check=True)
    return str(scripts / "uv")


def scripts_of(environment: Path) -> Path:
    return environment / ("Scripts" if os.name == "nt" else "bin")


def index_environment() -> dict[str, str]:
    """This process's environment, and pip's index where none is set for uv."""
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    if not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(environment):
        asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        configured = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        index = environment.get("PIP_INDEX_URL") or configured
        if index:
            environment["UV_DEFAULT_INDEX"] = index
    return environment


def compile_with_host(uv: str, environment: dict[str, str], folder: Path) -> dict[str, str]:
    """{package: version} of everything. Ends the program with uv's explanation when there is no solution."""
    overrides = folder / "overrides.txt"
    overrides.write_text(OVERRIDE + "\n")
    command: list[str | Path] = [uv, "pip", "compile", "pyproject.toml", DIRECT.relative_to(ROOT)]
    command += [*TARGET, "--override", overrides, "--no-annotate", "--no-header"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"our metadata and the host's cannot be installed together:\n{done.stderr}")
    return dict(line.split("==") for line in done.stdout.split() if "==" in line)


def host_bounds() -> dict[str, tuple[str, str | None]]:
    """{package: (installed version, version it must stay below)}; exact pins must not move at all."""
    lines = [line.strip() for line in DIRECT.read_text().splitlines()]
    found: dict[str, tuple[str, str | None]] = {}
    for line in lines:
        if pinned := re.fullmatch(r"([\w-]+)==([\w.]+)", line):
            found[pinned[1]] = (pinned[2], None)
        elif bounded := re.fullmatch(r"([\w-]+)>=([\w.]+),<([\w.]+)", line):
            found[bounded[1]] = (bounded[2], bounded[3])
        elif line and not line.startswith("#"):
            sys.exit(f"{DIRECT}: expected name==version or name>=version,<version, got {line!r}")
    return found


def editable_install(uv: str, environment: dict[str, str], folder: Path) -> list[str]:
    """What `uv pip install --editable` would move in the host's environment, as "name old -> new"."""
    bounds = host_bounds()
    venv.create(folder / "host")
    python = scripts_of(folder / "host") / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    for name, (version, _) in bounds.items():
        claim_installed(site, name, version)
    command: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--dry-run",
        "--python",
        python,
        *TARGET,
        "--editable",
        ROOT,
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"an editable install into the host fails:\n{done.stderr}")
    new = dict(re.findall(r"^ \+ ([\w-]+)==(\S+)$", done.stderr, re.MULTILINE))
    old = dict(re.findall(r"^ - ([\w-]+)==(\S+)$", done.stderr, re.MULTILINE))
    moved = [(name, version, new[name]) for name, version in old.items()]
    for name, before, after in moved:
        below = bounds[name][1]
        if below is None or numbers(after) >= numbers(below):
            sys.exit(f"an editable install moves {name} from {before} to {after}, which the host cannot have")
    return [f"{name} {before} -> {after}" for name, before, after in moved]


def claim_installed(site: Path, name: str, version: str) -> None:
    """A distribution without content: uv reads no more than this of what is installed."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    requirements = [f"Requires-Dist: {line}" for line in LOCKED_REQUIREMENTS.get(name, ())]
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *requirements]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n")
    (info / "INSTALLER").write_text("uv\n")
    (info / "RECORD").write_text("")


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


if __name__ == "__main__":
    sys.exit(main())
