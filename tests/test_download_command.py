"""The `download` command: which files are wanted, where they belong, and what a person reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scope_ltx import cli
from scope_ltx.download.wanted import control_files, lora_files, model_files, upsampler_file
from scope_ltx.manifest import Manifest, load_manifest
from scope_ltx.model_directory import host_model_directory, model_directory
from tests.fakes.cli_backend import complete_directory
from tests.fakes.downloads import NOWHERE, WEIGHTS
from tests.fakes.hub import FakeHub, serve_hub

MANIFEST: Manifest = load_manifest()


# what is wanted, and where


def test_the_model_and_its_optional_parts(tmp_path: Path) -> None:
    files = model_files(MANIFEST, tmp_path)
    assert [file.path for file in files] == [file.path for file in MANIFEST.files]
    assert {file.repo for file in files} == set(MANIFEST.artifacts())
    upsampler = upsampler_file(MANIFEST, tmp_path)
    assert upsampler.repo_path == "ltx-2.3-spatial-upscaler-x2-1.1.safetensors"
    assert upsampler.target == tmp_path / MANIFEST.upsampler.path
    control = control_files(MANIFEST.control_models, tmp_path)
    assert control[0].target == tmp_path / "control/depth-anything-v2-small/config.json"
    assert len(control) == 6


def test_a_complete_checkpoint_stands_for_four_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/ltx.safetensors").touch()
    assert [Path(file.path).name for file in model_files(MANIFEST, tmp_path)] == [
        "gemma_3_12B_it_fp8_scaled.safetensors"
    ]


def test_loras_go_where_they_are_found(tmp_path: Path) -> None:
    ungrade, voice = lora_files(MANIFEST, ("ungrade", "id-lora", "ungrade"), tmp_path, None)
    assert ungrade.target == tmp_path / "loras/ltx-2.3-22b-ic-lora-ungrade.safetensors"
    assert voice.repo_path == "loras/ltx-2.3-id-lora-talkvid-3k.safetensors"
    assert voice.target == tmp_path / "loras/ltx-2.3-id-lora-talkvid-3k.safetensors"
    (other,) = lora_files(MANIFEST, ("ungrade",), tmp_path, tmp_path / "app")
    assert other.target == tmp_path / "app/ltx-2.3-22b-ic-lora-ungrade.safetensors"
    with pytest.raises(ValueError, match="did you mean union-control"):
        lora_files(MANIFEST, ("union",), tmp_path, None)


def test_the_files_of_the_plugin_before_this_one_are_used_where_they_are(tmp_path: Path) -> None:
    assert model_directory(tmp_path) == tmp_path
    old = complete_directory(tmp_path / "LTX2.3")
    assert model_directory(tmp_path) == old
    assert model_directory(old) == old
    complete_directory(tmp_path)
    assert model_directory(tmp_path) == tmp_path
    assert host_model_directory({"DAYDREAM_SCOPE_MODELS_DIR": str(tmp_path)}) == old
    assert host_model_directory({}) == Path.home() / ".daydream-scope/models/LTX2.3"


# the command


def command(*arguments: str | Path, **environment: str) -> Result:
    """With a token that is nobody's, not that of whoever runs the tests."""
    variables = {"HF_TOKEN": "hf_wrong", **environment}
    result = CliRunner().invoke(cli.main, ["download", *map(str, arguments)], env=variables)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def published_size(directory: Path) -> Path:
    """Every model file with its published size and no content: sparse."""
    for file in MANIFEST.files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as written:
            written.truncate(file.bytes)
    return directory


def test_the_command_finds_a_complete_old_directory_and_fetches_nothing(tmp_path: Path) -> None:
    published_size(tmp_path / "LTX2.3")
    for given in (("--model", tmp_path), ()):
        result = command(*given, "--endpoint", NOWHERE, DAYDREAM_SCOPE_MODELS_DIR=str(tmp_path))
        assert result.exit_code == 0, result.output
        assert result.stdout.count("  present") == 5
        assert "nothing to fetch" in result.stdout
        assert result.stdout.rstrip().endswith(f"ready: scope-ltx serve --model {tmp_path / 'LTX2.3'}")


def test_the_command_fills_the_hosts_directory(tmp_path: Path) -> None:
    """A models directory of the host is not the model directory: the files go one below it."""
    with serve_hub(FakeHub()) as address:
        result = command("--model", tmp_path, "--endpoint", address, DAYDREAM_SCOPE_MODELS_DIR=str(tmp_path))
    assert result.exit_code == 2
    assert f"model files below {tmp_path / 'LTX2.3'}" in result.stdout
    assert "42.6 GB to fetch in 5 files" in result.stdout
    assert "daydreamlive/LTX2.3 is not there, or not for you" in result.stderr
    assert "42.6 GB for the model" in command("--help").stdout


def test_the_command_fetches_a_lora(tmp_path: Path) -> None:
    (lora,) = lora_files(MANIFEST, ("ungrade",), tmp_path, None)
    hub = FakeHub()
    hub.add(lora.repo, {lora.repo_path: WEIGHTS})
    with serve_hub(hub) as address:
        arguments = ("--only-loras", "--lora", "ungrade", "--model", tmp_path, "--endpoint", address)
        result = command(*arguments, "--dry-run")
        assert result.exit_code == 0, result.output
        assert f"licence   see https://huggingface.co/{lora.repo}" in result.stdout
        assert not lora.target.exists()
        result = command(*arguments)
    assert result.exit_code == 0, result.output
    assert lora.target.read_bytes() == WEIGHTS
    assert "ready" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--lora", "union"), "did you mean union-control"),
        (("--only-loras",), "--only-loras needs at least one --lora"),
        (("--only-loras", "--lora", "ungrade", "--control"), "neither --two-stage nor --control"),
        (("--model", "small"), "the model 'small' is built on first use"),
        (("--revision", "main"), "expected OWNER/NAME=REVISION, got 'main'"),
    ],
)
def test_mistakes_of_the_users(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    result = command("--model", tmp_path, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_the_default_is_the_hosts_directory(tmp_path: Path) -> None:
    """What the host downloaded is what the command fills, and the other way round."""
    models = tmp_path / "elsewhere"
    with serve_hub(FakeHub()) as address:
        result = command("--endpoint", address, DAYDREAM_SCOPE_MODELS_DIR=str(models))
    assert f"model files below {models / 'LTX2.3'}" in result.stdout
    assert not models.exists()


def test_a_terminal_sees_how_far_the_transfer_is(tmp_path: Path) -> None:
    """The library draws the bar, and only where there is a terminal with room for it."""
    (lora,) = lora_files(MANIFEST, ("ungrade",), tmp_path, None)
    hub = FakeHub()
    hub.add(lora.repo, {lora.repo_path: WEIGHTS})
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 110))
    with serve_hub(hub) as address:
        program = "from scope_ltx.cli import main; main()"
        arguments = ("download", "--only-loras", "--lora", "ungrade", "--model", tmp_path, "--endpoint", address)
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "HF_TOKEN": "hf_wrong"},
            timeout=60,
            check=False,
        )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0, shown
    assert re.search(r"ungrade\.safetensors: +100%.*10\.2k/10\.2k", shown), shown
    assert "checking ltx-2.3-22b-ic-lora-ungrade.safetensors" in shown
