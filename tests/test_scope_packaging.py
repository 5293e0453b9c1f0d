"""How the Scope host finds the plugin, and that every place which names the same fact names it alike."""

from __future__ import annotations

import ast
import logging
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pluggy
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import scope_ltx
from scope_ltx import plugin
from scope_ltx.config import LTX2Config
from scope_ltx.download.sizes import size_text
from scope_ltx.errors import CheckpointError
from scope_ltx.hosts.scope.config import build_config_class
from scope_ltx.hosts.scope.host_api import import_host
from scope_ltx.hosts.scope.loading import find_model
from scope_ltx.hosts.scope.options import LoadOptions
from scope_ltx.manifest import load_manifest
from tests.fakes.cli_backend import complete_directory
from tests.fakes.scope_api import host_api

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FACTS = load_manifest().plugin
DEPENDENCIES = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
CONSTRAINTS = ("constraints/dev.txt", "constraints/host.txt")


# the entry point


def test_one_entry_point_which_is_the_light_module() -> None:
    """The host refuses a distribution with more than one, and reloads modules named like the distribution."""
    assert PROJECT["entry-points"] == {"scope": {PROJECT["name"]: FACTS.scope.entry_point}}
    assert import_module(FACTS.scope.entry_point) is plugin
    assert FACTS.scope.entry_point.split(".")[0] == PROJECT["name"].replace("-", "_")


def in_a_fresh_process(program: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.alone
def test_importing_it_is_fast_and_light() -> None:
    program = (
        "import sys, time; started = time.perf_counter()\n"
        f"import {FACTS.scope.entry_point}\n"
        "taken = time.perf_counter() - started\n"
        "heavy = ('torch', 'numpy', 'diffusers', 'transformers', 'pydantic', 'av', 'scope', 'PIL')\n"
        "print(taken, [name for name in heavy if name in sys.modules])"
    )
    taken_s = []
    for _ in range(5):
        seconds, heavy = in_a_fresh_process(program).stdout.strip().split(" ", 1)
        assert heavy == "[]"
        taken_s.append(float(seconds))
    assert median(taken_s) < 0.3


def test_importing_it_never_raises_and_the_hook_says_what_is_missing() -> None:
    program = (
        "import sys; sys.modules['pluggy'] = sys.modules['scope'] = sys.modules['torch'] = None\n"
        f"import {FACTS.scope.entry_point} as plugin\n"
        "plugin.register_pipelines(print)"
    )
    done = in_a_fresh_process(program)
    assert done.stdout == ""
    assert "LTX-2.3 is not available: ModuleNotFoundError: import of " in done.stderr


def test_without_the_host_there_is_no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scope", None)
    with pytest.raises(ImportError, match="scope"):
        import_host()


class Specification:
    """What the host declares."""

    @pluggy.HookspecMarker("scope")
    def register_pipelines(self, register: object) -> None:
        """Called once by name and once more positionally."""


class OtherPlugin:
    @pluggy.HookimplMarker("scope")
    def register_pipelines(self, register: Any) -> None:
        register(int)


@pytest.fixture
def manager() -> pluggy.PluginManager:
    found = pluggy.PluginManager("scope")
    found.add_hookspecs(Specification)
    found.register(OtherPlugin())
    found.register(plugin)
    return found


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    """Stands in for the pipeline class, which needs the host."""

    class Pipeline:
        pass

    module = ModuleType("scope_ltx.hosts.scope")
    module.pipeline_class = lambda: Pipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Pipeline


def test_the_host_calls_the_hook_twice(manager: pluggy.PluginManager, pipeline: type[Any]) -> None:
    registered: list[type[Any]] = []
    manager.hook.register_pipelines(register=registered.append)
    assert sorted(registered, key=str) == sorted([int, pipeline], key=str)
    recorded: list[type[Any]] = []
    plugin.register_pipelines(recorded.append)
    assert recorded == [pipeline]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ModuleNotFoundError("No module named 'diffusers'"), "daydream-scope install scope-ltx"),
        (OSError("libcudart.so.12 not found"), "scope-ltx doctor"),
    ],
)
def test_a_failure_is_logged_and_other_plugins_go_on(
    error: Exception,
    advice: str,
    manager: pluggy.PluginManager,
    pipeline: type[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys.modules["scope_ltx.hosts.scope"], "pipeline_class", fail)
    registered: list[type[Any]] = []
    with caplog.at_level(logging.WARNING):
        manager.hook.register_pipelines(register=registered.append)
    assert registered == [int]
    assert f"LTX-2.3 is not available: {type(error).__name__}: {error}" in caplog.text
    assert advice in caplog.text
    assert "Traceback" in caplog.text


def test_a_host_that_refuses_the_class_is_told_of_in_the_log(
    pipeline: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(cls: type[Any]) -> None:
        raise TypeError(f"{cls.__name__} has no get_config_class")

    plugin.register_pipelines(refuse)
    assert "LTX-2.3 is not available: TypeError: Pipeline has no get_config_class" in caplog.text


# one source of truth


def test_identity() -> None:
    assert FACTS.id == "ltx2"
    assert FACTS.package == PROJECT["name"]
    assert FACTS.version == scope_ltx.__version__
    assert "version" in PROJECT["dynamic"]
    module, _, factory = FACTS.scope.pipeline_factory.partition(":")
    assert module.startswith("scope_ltx.hosts.")
    source = ROOT.joinpath(*module.split("."))
    text = (source / "__init__.py" if source.is_dir() else source.with_suffix(".py")).read_text()
    assert f"def {factory}(" in text
    assert f"from {module} import {factory}" in Path(plugin.__file__).read_text()


def test_the_artifacts_are_what_every_model_needs_where_the_host_will_put_them() -> None:
    """The host names a directory after the last part of a repository; ours is found there."""
    manifest = load_manifest()
    artifacts = manifest.artifacts()
    assert {repo.split("/")[-1] for repo in artifacts} == {FACTS.scope.models_directory}
    assert [path for paths in artifacts.values() for path in paths] == [file.path for file in manifest.files]
    assert not [path for paths in artifacts.values() for path in paths if "lora" in path]


def test_the_config_class_names_the_same() -> None:
    """What the host shows before it loads anything."""
    shown = build_config_class(host_api())
    assert (shown.pipeline_id, shown.pipeline_name) == (FACTS.id, FACTS.name)
    assert (shown.pipeline_version, shown.pipeline_description) == (FACTS.version, FACTS.description)
    assert (shown.estimated_vram_gb, shown.docs_url) == (FACTS.estimated_vram_gb, FACTS.homepage)
    assert tuple(shown.modes) == FACTS.scope.modes
    assert {artifact.repo_id: artifact.files for artifact in shown.artifacts} == load_manifest().artifacts()


def test_a_missing_model_file_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    """The command line that is shown, given back to a shell, is the one for this directory."""
    directory = complete_directory(tmp_path / "my models" / FACTS.scope.models_directory)
    missing = load_manifest().file("audio_vae").path
    (directory / missing).unlink()
    with pytest.raises(CheckpointError, match=r"1 of 5 model files are missing") as caught:
        find_model(None, tmp_path / "my models")
    assert missing in str(caught.value)
    shown = re.search(r"`(scope-ltx download [^`]*)`", str(caught.value))
    assert shown
    assert shlex.split(shown[1]) == ["scope-ltx", "download", "--model", str(directory)]


def test_every_dependency_has_both_bounds() -> None:
    """An editable install into the host is held by nothing else."""
    for requirement in DEPENDENCIES.values():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, str(requirement)


def pinned(path: str) -> dict[str, str]:
    lines = (ROOT / path).read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pairs}


@pytest.mark.parametrize("path", CONSTRAINTS)
def test_the_tested_versions_are_within_the_dependencies(path: str) -> None:
    versions = pinned(path)
    for name, requirement in DEPENDENCIES.items():
        assert requirement.specifier.contains(versions[name]), f"{path}: {name} {versions[name]}"


def test_the_host_set_is_what_the_host_allows() -> None:
    """Except torch, of which there is no CPU build at the host's version to test with."""
    versions = pinned("constraints/host.txt")
    lines = (ROOT / "constraints/scope_host_direct.txt").read_text().splitlines()
    allowed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    shared = [
        requirement for requirement in allowed if requirement.name in versions and requirement.name != "torch"
    ]
    assert {"diffusers", "transformers", "huggingface-hub", "aiortc"} <= {
        requirement.name for requirement in shared
    }
    for requirement in shared:
        assert requirement.specifier.contains(versions[requirement.name]), str(requirement)
    torch = next(requirement for requirement in allowed if requirement.name == "torch")
    assert DEPENDENCIES["torch"].specifier.contains(str(torch.specifier).removeprefix("=="))


def test_pythons() -> None:
    requires = SpecifierSet(PROJECT["requires-python"])
    assert requires.contains("3.11.0")
    assert requires.contains("3.12.8"), "the host's"
    assert not requires.contains("3.10.14")


BROUGHT_BY = {"PIL": "pillow", "pydantic_core": "pydantic", "starlette": "fastapi"}
"""Import names that are another distribution's than they say."""
OPTIONAL = {"scope": "the host", "pluggy": "the host brings it", "torchao": "not used without it"}


def imported_packages() -> Iterator[tuple[str, Path]]:
    for folder in ("scope_ltx", "streaming", "quant"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((alias.name.split(".")[0], path) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    yield (node.module or "").split(".")[0], path


def test_everything_that_is_imported_is_a_dependency() -> None:
    own = {"scope_ltx", "scope_streaming", "scope_quant", *sys.stdlib_module_names}
    missing = {
        f"{name} ({path.relative_to(ROOT)})"
        for name, path in imported_packages()
        if name not in own | OPTIONAL.keys() and BROUGHT_BY.get(name, name).replace("_", "-") not in DEPENDENCIES
    }
    assert missing == set()


# what the documents say


DOCUMENT = (ROOT / "docs/scope.md").read_text()


def test_the_document_names_what_there_is() -> None:
    for fact in (FACTS.id, FACTS.package, FACTS.scope.minimum_host_version, FACTS.scope.models_directory):
        assert fact in DOCUMENT
    for licence in (FACTS.model_license, FACTS.text_encoder_license):
        assert licence in DOCUMENT
    for file in load_manifest().files:
        assert f"| `{file.path}` | {size_text(file.bytes)} |" in DOCUMENT
    for name in LoadOptions.model_fields:
        assert f"| `{name}` |" in DOCUMENT


def test_the_documents_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", DOCUMENT)
    assert links
    for link in links:
        page, _, heading = link.partition("#")
        if page.startswith("https://"):
            continue
        path = ROOT / "docs" / page if page else ROOT / "docs/scope.md"
        titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        assert not heading or heading in {title.lower().replace(" ", "-") for title in titles}, link


def test_what_the_document_calls_unchanged_is_there() -> None:
    """Ids, names and keys that users of the plugin before this one have in their settings."""
    kept = re.search(r"^Unchanged: (.*?)\n\n", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert kept
    names = set(re.findall(r"`([a-z0-9_]+)`", kept[1]))
    assert len(names) > 20
    assert names - {FACTS.id, "lora_merge_mode"} <= LTX2Config.model_fields.keys()
