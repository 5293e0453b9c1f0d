"""Checkpoint files: what is wrong with a file is said in words, before any of it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from scope_ltx.checkpoints.header import read_header
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.safetensors"
    save_file(TENSORS, path, {"config": json.dumps({"transformer": {"num_layers": 2}})})
    return path


def test_reads_a_whole_file(whole: Path) -> None:
    file = CheckpointFile(whole)
    assert set(file.keys) == {"a.weight", "b"}
    assert file.shapes["a.weight"] == (3, 4)
    assert file.dtypes == {"a.weight": "F32", "b": "BF16"}
    assert torch.equal(file.tensor("a.weight"), TENSORS["a.weight"])
    assert file.config() == {"transformer": {"num_layers": 2}}
    assert file.quantization == {}
    with pytest.raises(KeyError):
        file.tensor("c")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def truncated_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def damaged_json(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:8] + content[8:].replace(b'"dtype"', b'"dtyp"', 1)[: len(content) - 8] + b" ")


def lying_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"[3,4]", b"[3,5]"))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content)

    write.__name__ = content[:8] or "empty"
    return write


@pytest.mark.parametrize(
    ("damage", "problem", "advice"),
    [
        (Path.unlink, "the file does not exist", "scope-ltx doctor"),
        (directory, "is a directory, expected a .safetensors file", "Name the file inside it"),
        (text(""), "is empty", "Download the file again"),
        (text("<!DOCTYPE html><html>sign in</html>"), "is a web page (HTML)", "login"),
        (text("\n <html>"), "is a web page (HTML)", "login"),
        (
            text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
            "Git LFS pointer",
            "git lfs pull",
        ),
        (text("GGUF----"), "not a safetensors file but a GGUF file", "Download"),
        (text("PK\x03\x04----"), "not a safetensors file but a zip archive", "Download"),
        (text("short"), "is not a safetensors file", "Download the file again"),
        (truncated, "is truncated: ", "compare its size"),
        (truncated_in_header, "is truncated inside its header: 40 bytes", "compare its size"),
        (longer, "is longer than its header says", "Download the file again"),
        (damaged_json, "has a damaged header", "Download the file again"),
        (lying_shape, "F32 of shape [3, 5] does not fill 48 bytes", "Download the file again"),
    ],
)
def test_damage_is_named(whole: Path, damage: Callable[[Path], None], problem: str, advice: str) -> None:
    damage(whole)
    with pytest.raises(CheckpointError) as caught:
        CheckpointFile(whole)
    assert str(caught.value).startswith(f"{whole}: ")
    assert problem in caught.value.problem
    assert advice in caught.value.advice


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"the directory {tmp_path / 'models'} does not exist"):
        CheckpointFile(tmp_path / "models" / "vae.safetensors")


def test_a_length_that_looks_like_a_web_page_is_none(tmp_path: Path) -> None:
    """Headers of 60 bytes, as other writers make them, begin with the byte of `<`."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}).encode().ljust(60)
    assert len(header) == 60
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    assert path.read_bytes().startswith(b"<")
    assert CheckpointFile(path).tensor("x").tolist() == [97, 98]


WHOLE = save(TENSORS)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_caught(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(CheckpointError):
        read_header(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_give_this_error_or_a_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        CheckpointFile(path)


def test_headers_are_read_without_torch(whole: Path) -> None:
    program = (
        "import sys, pathlib; from scope_ltx.checkpoints.header import read_header;"
        "print(len(read_header(pathlib.Path(sys.argv[1])).tensors), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(whole)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["2", "False"]


def write(path: Path, metadata: dict[str, str] | None, **tensors: Any) -> CheckpointFile:
    save_file({"a.weight": torch.ones(1), **tensors}, path, metadata)
    return CheckpointFile(path)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (None, "has no metadata entry `config`"),
        ({"config": "{oops"}, "has a metadata entry `config` that is not JSON"),
        ({"config": "[1]"}, "has a metadata entry `config` that is not a JSON object, got list"),
    ],
)
def test_config_must_be_there_and_be_an_object(
    tmp_path: Path, metadata: dict[str, str] | None, problem: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        write(tmp_path / "x.safetensors", metadata).config()
    assert problem in str(caught.value)


def note(content: bytes) -> torch.Tensor:
    return torch.tensor(list(content), dtype=torch.uint8)


def test_quantization_notes_come_from_tensors_or_metadata(tmp_path: Path) -> None:
    layers = {"layers": {"c": {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}}}
    file = write(
        tmp_path / "x.safetensors",
        {"_quantization_metadata": json.dumps(layers)},
        **{"a.comfy_quant": note(b'{"format": "float8_e4m3fn"}')},
    )
    assert file.quantization == {
        "a": {"format": "float8_e4m3fn"},
        "c": {"format": "float8_e4m3fn", "full_precision_matrix_mult": True},
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"format": "nvfp4"}', "layer `a` is stored in format 'nvfp4', expected 'float8_e4m3fn'"),
        (b"\xff", "has a tensor `a.comfy_quant` that is not JSON"),
    ],
)
def test_bad_quantization_notes(tmp_path: Path, content: bytes, problem: str) -> None:
    file = write(tmp_path / "x.safetensors", None, **{"a.comfy_quant": note(content)})
    with pytest.raises(CheckpointError) as caught:
        _ = file.quantization
    assert problem in str(caught.value)
