"""Loading a module from a file, whatever the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scope_ltx.checkpoints.keys import KeyMap
from scope_ltx.checkpoints.loading import load_module, require_materialized
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError

CPU = torch.device("cpu")
F32: dict[str, Any] = {"device": CPU, "dtype": torch.float32}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2048, 2048))
        self.register_buffer("table", torch.empty(4), persistent=False)


PLAIN = KeyMap(name="plain", roots=(("", ""),))


def plain_on_meta() -> Plain:
    with torch.device("meta"):
        return Plain()


def test_what_nobody_provides_is_an_error(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2048, 2048)}, tmp_path / "plain.safetensors")
    file = CheckpointFile(tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="missing keys: table"):
        load_module(plain_on_meta(), [file], PLAIN, **F32)
    module = plain_on_meta()
    load_module(module, [file], PLAIN, computed={"table": torch.arange(4.0)}, **F32)
    assert module.table.tolist() == [0, 1, 2, 3]
    module.leftover = torch.empty(2, device="meta")
    with pytest.raises(RuntimeError, match="Plain has tensors without values: leftover"):
        require_materialized(module)


def test_loading_in_the_files_own_type_copies_nothing(tmp_path: Path) -> None:
    """Two loads of a bfloat16 tensor share the file's pages: each load costs no private memory."""
    path = tmp_path / "plain.safetensors"
    save_file({"weight": torch.ones(2048, 2048, dtype=torch.bfloat16)}, path)  # 8 MiB
    file = CheckpointFile(path)
    process = psutil.Process()
    kept = []
    before = process.memory_full_info().uss
    for _ in range(20):
        module = plain_on_meta()
        load_module(module, [file], PLAIN, device=CPU, dtype=torch.bfloat16, computed={"table": torch.zeros(4)})
        assert module.weight.sum() > 0  # touches every page
        kept.append(module)
    grown = process.memory_full_info().uss - before
    assert grown < 4 * 8 * 2**20  # 160 MiB if each were a copy
