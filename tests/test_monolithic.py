"""One complete file in place of the split ones: every part opens from it, and nothing else slips in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scope_ltx.checkpoints.loading import StoredModule
from scope_ltx.checkpoints.monolithic import MonolithicCheckpoint, base_of, open_part, roles_in
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import Role
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.models.connectors import open_connectors
from scope_ltx.models.transformer import open_transformer
from scope_ltx.models.video_vae import load_video_vae
from scope_quant.capability import Fp8Path
from tests.fakes.monolith import State, write_monolith
from tests.fakes.published import PublishedFiles, write_published

CPU = torch.device("cpu")
F32: dict[str, Any] = {"device": CPU, "dtype": torch.float32}
FP8: dict[str, Any] = {"dtype": torch.float32, "fp8_path": Fp8Path.DEQUANTIZE}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedFiles:
    return write_published(tmp_path_factory.mktemp("published"), fp8=False)


@pytest.fixture(scope="module")
def monolith(published: PublishedFiles) -> Path:
    return write_monolith(published.directory / "ltx-2.3-22b-dev.safetensors", published)


def load(part: str, file: Callable[[Role], CheckpointFile]) -> nn.Module:
    loaders: dict[str, Callable[[], Any]] = {
        "transformer": lambda: open_transformer(file("transformer"), **FP8),
        "connectors": lambda: open_connectors(file("transformer"), file("text_projection"), **FP8),
        "video_vae": lambda: load_video_vae(file("video_vae"), **F32),
        "audio_vae": lambda: load_audio_vae(file("audio_vae"), **F32),
        "vocoder": lambda: load_vocoder(file("audio_vae"), device=CPU),
    }
    found = loaders[part]()
    if isinstance(found, StoredModule):
        found.load(CPU)
        found = found.module
    assert isinstance(found, nn.Module)
    return found


@pytest.mark.parametrize("part", ["transformer", "connectors", "video_vae", "audio_vae", "vocoder"])
def test_every_part_is_the_one_of_the_split_files(part: str, published: PublishedFiles, monolith: Path) -> None:
    def split(role: Role) -> CheckpointFile:
        return open_part(getattr(published.files, role), role)

    expected = load(part, split).state_dict()
    got = load(part, lambda role: open_part(monolith, role)).state_dict()
    assert got.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


def test_a_part_has_the_names_and_settings_of_its_split_file(published: PublishedFiles, monolith: Path) -> None:
    sections = {
        "transformer": {"transformer"},
        "text_projection": None,
        "video_vae": {"vae"},
        "audio_vae": {"audio_vae", "vocoder"},
    }
    roles: tuple[Role, ...] = ("transformer", "text_projection", "video_vae", "audio_vae")
    assert roles_in(CheckpointFile(monolith)) == roles
    for role in roles:
        part, split = open_part(monolith, role), CheckpointFile(getattr(published.files, role))
        assert part.shapes == split.shapes
        assert part.dtypes == split.dtypes
        assert part.path == monolith
        assert part.metadata["model_version"] == "2.3.0"
        expected = sections[role]
        if expected is None:
            assert "config" not in part.metadata
        else:
            assert set(part.config()) == expected
            assert part.config() == split.config()
        for key in sorted(part.keys)[:5]:
            rows = torch.empty_like(split.tensor(key))
            part.read_into(key, rows)
            assert torch.equal(rows, split.tensor(key))
            assert torch.equal(part.tensor(key), split.tensor(key))
    with pytest.raises(KeyError):
        open_part(monolith, "video_vae").tensor("vae.encoder.conv_in.conv.weight")


def test_a_split_file_is_opened_as_it_is(published: PublishedFiles) -> None:
    path = published.files.text_encoder
    file = open_part(path, "text_encoder")
    assert type(file) is CheckpointFile
    assert file.keys == CheckpointFile(path).keys


def test_fp8_layers_and_their_notes_are_seen(published: PublishedFiles, tmp_path: Path) -> None:
    fp8 = write_published(tmp_path / "fp8")
    path = write_monolith(tmp_path / "whole.safetensors", fp8)
    expected = CheckpointFile(fp8.files.transformer).quantization
    assert len(expected) == 3 * 34
    assert open_part(path, "transformer").quantization == expected
    assert open_part(path, "video_vae").quantization == {}


def damaged(tmp_path: Path, published: PublishedFiles, change: Callable[[State, dict[str, Any]], None]) -> Path:
    return write_monolith(tmp_path / "whole.safetensors", published, change)


def test_keys_of_no_part_are_an_error(published: PublishedFiles, tmp_path: Path) -> None:
    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        state["lipsync.weight"] = torch.ones(1)
        state["vae2.bias"] = torch.ones(1)

    path = damaged(tmp_path, published, change)
    with pytest.raises(CheckpointError) as caught:
        open_part(path, "video_vae")
    assert str(caught.value) == (
        f"{path}: holds keys that belong to no part of LTX-2.3 (known are model.diffusion_model., "
        "text_embedding_projection., vae., audio_vae., vocoder.): lipsync.weight, vae2.bias. Use Lightricks' "
        "file as published, or the split files that plugin.toml names"
    )


def test_a_part_that_is_not_there(published: PublishedFiles, monolith: Path, tmp_path: Path) -> None:
    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        for key in [key for key in state if key.startswith("vae.")]:
            del state[key]

    path = damaged(tmp_path, published, change)
    with pytest.raises(CheckpointError) as caught:
        open_part(path, "video_vae")
    assert f"{path}: holds no video VAE, only transformer, text projection, audio VAE and vocoder." in str(
        caught.value
    )
    with pytest.raises(CheckpointError, match=r"holds no text encoder, only transformer, .* are separate always"):
        open_part(monolith, "text_encoder")


def test_extra_and_missing_keys_of_a_part_are_named(published: PublishedFiles, tmp_path: Path) -> None:
    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        del state["vae.decoder.conv_out.conv.bias"]
        state["vae.surprise"] = torch.ones(1)
        del state["vocoder.vocoder.conv_pre.bias"]

    path = damaged(tmp_path, published, change)
    expected = "missing keys: decoder.conv_out.conv.bias; unexpected keys: surprise"
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_video_vae(open_part(path, "video_vae"), **F32)
    assert caught.value.path == path
    with pytest.raises(CheckpointError, match=r"missing keys: vocoder\.vocoder\.conv_pre\.bias"):
        load_vocoder(open_part(path, "audio_vae"), device=CPU)
    assert load_audio_vae(open_part(path, "audio_vae"), **F32)


def test_missing_settings_are_named(published: PublishedFiles, tmp_path: Path) -> None:
    path = damaged(tmp_path, published, lambda _, config: config.pop("vae"))
    with pytest.raises(CheckpointError, match=r"its settings have no `config\.vae`"):
        load_video_vae(open_part(path, "video_vae"), **F32)


def test_settings_that_are_not_json(published: PublishedFiles, monolith: Path) -> None:
    file = CheckpointFile(monolith)
    file.metadata = {"config": "{"}
    with pytest.raises(CheckpointError, match="metadata entry `config` that is not JSON"):
        MonolithicCheckpoint(file).part("transformer")


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ltx-2.3-22b-dev.safetensors", "dev"),
        ("ltx-2.3-22b-distilled-1.1.safetensors", "distilled"),
        ("LTX-2.3_22B_Dev_fp8.safetensors", "dev"),
        ("developer-notes.safetensors", None),
        ("dev-or-distilled.safetensors", None),
        ("model.safetensors", None),
    ],
)
def test_base_is_told_from_the_name(name: str, base: str | None, monolith: Path) -> None:
    file = CheckpointFile(monolith)
    file.path = Path("/models") / name
    assert base_of(file) == base
    file.metadata = {"config": json.dumps({}), "quantized_from": "ltx-2.3-22b-dev.safetensors"}
    assert base_of(file) == "dev"
