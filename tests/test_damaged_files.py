"""Files damaged at random, of a model and of LoRAs: each gives the one error or is as good as whole, and a stream
that runs beside is the same to the last bit afterwards."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.checkpoints.monolithic import open_part
from scope_ltx.config import LTX2Config
from scope_ltx.errors import CheckpointError, UnsupportedError
from scope_ltx.lora.errors import LoraError
from scope_ltx.manifest import ModelFiles
from scope_ltx.mode_parameters import LoraChoice
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.pipeline import load_pipeline
from scope_ltx.session import Session

CPU = torch.device("cpu")
Damage = Callable[[bytes, random.Random], bytes]


def header_of(content: bytes) -> int:
    """Where a safetensors file's values begin."""
    return 8 + int.from_bytes(content[:8], "little")


def bit_flipped(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(header_of(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def key_renamed(content: bytes, chance: random.Random) -> bytes:
    """One letter of one key."""
    found = chance.choice(list(re.finditer(rb'"([\w.]+)":\{"dtype"', content[: header_of(content)])))
    at = chance.randrange(*found.span(1))
    return content[:at] + b"x" + content[at + 1 :]


def retyped(content: bytes, chance: random.Random) -> bytes:
    """One tensor is said to hold other numbers of the same width."""
    found = chance.choice(list(re.finditer(rb'"(BF16|F32|F8_E4M3|U8)"', content[: header_of(content)])))
    others = {b"BF16": [b'"F16" ', b'"I16" '], b"F32": [b'"I32"', b'"U32"'], b"U8": [b'"I8"']}
    new = chance.choice(others.get(found[1], [b'"I8"     ']))
    return content[: found.start()] + new + content[found.end() :]


DAMAGES = [bit_flipped, truncated, key_renamed, retyped]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "damaged.safetensors"


def replace(path: Path, content: bytes) -> None:
    """By a new file: one that is open stays as it was."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_a_checkpoint(small_model_dir: Path, damaged: Path, damage: Damage, seed: int) -> None:
    whole = ModelFiles.in_directory(small_model_dir).audio_vae.read_bytes()
    replace(damaged, damage(whole, random.Random(seed)))
    try:
        file = open_part(damaged, "audio_vae")
        modules = [load_audio_vae(file, device=CPU, dtype=torch.float32), load_vocoder(file, device=CPU)]
    except CheckpointError as error:
        assert str(error).startswith(f"{damaged}: ")
        return
    for module in modules:
        assert not any(tensor.is_meta for tensor in module.state_dict().values())


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lora_beside_a_stream(small_model_dir: Path, damaged: Path, damage: Damage) -> None:
    whole = next((small_model_dir / "loras").glob("*ual-*haracter*")).read_bytes()
    config = LTX2Config(height=64, width=64, num_frames=9, num_steps=1, schedule="linear", randomize_seed=False)
    pipeline = load_pipeline(small_model_dir, "cpu")
    session = Session(pipeline, config, "a red ball")
    before = session.next_segment()
    end, refused = before.times.end, 0
    for seed in range(12):
        replace(damaged, damage(whole, random.Random(seed)))
        session.update(loras=(LoraChoice(path=str(damaged), strength=1.0),))
        try:
            end = session.next_segment().times.end
        except (LoraError, UnsupportedError) as error:
            refused += 1
            assert damaged.name in str(error)
        session.update(loras=())
        after = session.next_segment()
        assert after.times.start == end
        end = after.times.end
        assert np.array_equal(after.frames, before.frames)
        assert np.array_equal(after.samples, before.samples)
    # A key that is no longer one of the model's is left out and told; every other damage ends the file.
    assert refused > (0 if damage in (key_renamed, retyped) else 6)
    session.close()
    pipeline.close()
