"""Damaged LoRA files, 50 of each sort: each one is refused with the one error, or is as good as a whole one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.file import LoraFile, linear_shapes
from scope_ltx.lora.loras import LoraSet
from scope_ltx.lora.merging import LoraMerger
from tests.fakes.loras import draw_factors, layers_of, lora_state
from tests.tiny import tiny_transformer

with torch.device("meta"):
    SHAPES = linear_shapes(tiny_transformer(layers=1))
FACTORS = draw_factors(SHAPES, layers_of("standard", SHAPES), rank=2)
STATE = lora_state(FACTORS, "kohya", alpha=2.0)
METADATA = {"reference_downscale_factor": "2", "lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 2})}
WHOLE: bytes = save(STATE, METADATA)
HEADER = 8 + int.from_bytes(WHOLE[:8], "little")


def flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def bit_in_header(chance: random.Random) -> bytes:
    return flipped(WHOLE, chance.randrange(HEADER), chance.randrange(8))


def bit_in_values(chance: random.Random) -> bytes:
    return flipped(WHOLE, chance.randrange(HEADER, len(WHOLE)), chance.randrange(8))


def truncated(chance: random.Random) -> bytes:
    return WHOLE[: chance.randrange(len(WHOLE))]


def bytes_in_header(chance: random.Random) -> bytes:
    content = WHOLE
    for _ in range(chance.randrange(2, 9)):
        at = chance.randrange(HEADER)
        content = content[:at] + bytes([chance.randrange(32, 127)]) + content[at + 1 :]
    return content


def renamed(chance: random.Random) -> bytes:
    """A key cut, doubled, swapped with another's parts, or with letters changed."""
    state = dict(STATE)
    for key in chance.sample(sorted(state), chance.choice([1, 2, len(state)])):
        parts = key.split(".")
        at = chance.randrange(len(parts))
        parts[at] = chance.choice(["", "0", "99", "weight", "lora_up", "lora_down", parts[at] * 2, "é\n"])
        state[".".join(parts)] = state.pop(key).clone()
    made: bytes = save(state, METADATA)
    return made


def retyped(chance: random.Random) -> bytes:
    state: dict[str, Tensor] = dict(STATE)
    types = [torch.int8, torch.int64, torch.bool, torch.float64, torch.float16, torch.float8_e4m3fn, torch.uint8]
    for key in chance.sample(sorted(state), chance.choice([1, 2, len(state)])):
        state[key] = state[key].to(chance.choice(types))
    made: bytes = save(state, METADATA)
    return made


def reshaped(chance: random.Random) -> bytes:
    state: dict[str, Tensor] = dict(STATE)
    for key in chance.sample(sorted(state), chance.choice([1, 2, len(state)])):
        tensor = state[key]
        forms = [tensor.reshape(-1), tensor.t() if tensor.ndim == 2 else tensor, tensor[None], tensor.new_empty(0)]
        state[key] = chance.choice(forms).clone(memory_format=torch.contiguous_format)
    made: bytes = save(state, METADATA)
    return made


def other_metadata(chance: random.Random) -> bytes:
    values = ["", "0", "-1", "1e999", "2.5", "nan", "null", "[]", "{}", '{"lora_alpha": 1e999}', "[" * 5000, "٣"]
    made: bytes = save(STATE, {name: chance.choice(values) for name in METADATA})
    return made


DAMAGES = [bit_in_header, bit_in_values, truncated, bytes_in_header, renamed, retyped, reshaped, other_metadata]


def read_pristine(name: str, target: Tensor) -> None:
    target.fill_(0.5)


@pytest.mark.parametrize("damage", DAMAGES)
@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, damage: Callable[[random.Random], bytes], seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"{damage.__name__}.safetensors"
    path.unlink(missing_ok=True)
    path.write_bytes(damage(random.Random(seed)))
    try:
        lora = LoraFile(path, SHAPES)
    except LoraError as error:
        assert str(error).startswith(f"{path}: ")
        assert error.advice
        return
    assert_valid(lora)


def assert_valid(lora: LoraFile) -> None:
    """Every layer is one of the model's, and can be merged."""
    assert lora.layers
    assert lora.notes or set(lora.layers) == set(FACTORS)
    merger = LoraMerger(torch.device("cpu"), LoraSet.of({lora: 1.0}))
    for module in lora.layers:
        weight = torch.empty(SHAPES[module])
        merger.reader(module, {"weight": weight}, read_pristine)("weight", weight)
        assert torch.isfinite(weight).all()
        assert weight.shape == SHAPES[module]


def test_the_whole_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    path.write_bytes(WHOLE)
    lora = LoraFile(path, SHAPES)
    assert set(lora.layers) == set(FACTORS)
    assert (lora.facts.kind, lora.facts.downscale, lora.notes) == ("in_context", 2, ())
    assert_valid(lora)
    assert load(WHOLE).keys() == STATE.keys()


@pytest.mark.parametrize("value", ["1e999", "[" * 100_000, "-1", "1" * 5000, "null", "[3.5]"])
def test_headers_that_are_json_and_no_header(tmp_path: Path, value: str) -> None:
    entry = f'{{"x.lora_A.weight":{{"dtype":"F32","shape":[{value}],"data_offsets":[0,{value}]}}}}'.encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(entry).to_bytes(8, "little") + entry + bytes(64))
    with pytest.raises(LoraError, match="damaged header"):
        LoraFile(path, SHAPES)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, HEADER - 1, HEADER, len(WHOLE) - 1])
def test_every_edge_of_a_truncation(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(LoraError):
        LoraFile(path, SHAPES)
