"""The small model that ships: the published layout, the same bytes on every machine, and what a prompt does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from scope_ltx.catalog import LORA_DIRECTORY, load_catalog
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.lora.file import LoraFile, linear_shapes
from scope_ltx.lora.kinds import LoraHint
from scope_ltx.manifest import ModelFiles, load_manifest
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.small import WEIGHTS, ensure_small_model, ensure_untrained_model
from scope_ltx.models.small.lora_weights import SMALL_LORAS
from scope_ltx.models.small.vocabulary import COLOURS, read_pieces
from training.text import world_tokenizer

PREFIXES = {
    "transformer": {"model.diffusion_model."},
    "text_projection": {"text_embedding_projection."},
    "text_encoder": {"model.", "vision_model.", "multi_modal_projector.", "spiece_model"},
    "video_vae": {"encoder.", "decoder.", "per_channel_statistics."},
    "audio_vae": {"audio_vae.", "vocoder."},
}
SECTIONS: dict[str, set[str]] = {
    "transformer": {"transformer"},
    "video_vae": {"vae"},
    "audio_vae": {"audio_vae", "vocoder"},
}


@pytest.fixture(scope="module")
def components(small_model_dir: Path) -> Components:
    components = load_components(ModelFiles.in_directory(small_model_dir), torch.device("cpu"))
    components.place(components.plan(headroom_nbytes=0))
    return components


def model_bytes(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_directory_is_named_for_version_and_seed_and_has_the_published_files(small_model_dir: Path) -> None:
    assert small_model_dir.name.startswith("small-v")
    assert "-seed" in small_model_dir.name
    manifest = load_manifest()
    published = {file.path for file in (*manifest.files, manifest.upsampler)}
    loras = {f"{LORA_DIRECTORY}/{load_catalog().find(name).file}" for name in SMALL_LORAS}
    files = model_bytes(small_model_dir)
    assert published | loras | {"small-model.json"} == set(files)
    shipped = model_bytes(WEIGHTS)
    assert sum(map(len, shipped.values())) <= 24 * 2**20
    assert {path for path in shipped if path.endswith(".safetensors")} <= set(files)


def test_two_writes_give_the_same_bytes_whatever_the_global_random_state(
    small_model_dir: Path, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    again = ensure_small_model(tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert again != small_model_dir
    assert model_bytes(again) == model_bytes(small_model_dir)
    assert [path.name for path in tmp_path.iterdir()] == [again.name]


@pytest.mark.parametrize("role", PREFIXES)
def test_files_have_the_published_prefixes_and_settings(small_model_dir: Path, role: str) -> None:
    path = getattr(ModelFiles.below(small_model_dir), role)
    file = CheckpointFile(path)
    used = {prefix for prefix in PREFIXES[role] if any(key.startswith(prefix) for key in file.keys)}
    assert used == PREFIXES[role]
    assert [key for key in file.keys if not key.startswith(tuple(PREFIXES[role]))] == []
    if role in SECTIONS:
        assert set(file.config()) == SECTIONS[role]
        assert file.metadata["model_version"] == "2.3.0"
    with safe_open(path, framework="pt") as opened:  # the library's reader agrees
        assert set(opened.keys()) == set(file.keys)


def test_transformer_file_mixes_types_as_the_published_one(small_model_dir: Path) -> None:
    file = CheckpointFile(ModelFiles.below(small_model_dir).transformer)
    assert set(file.dtypes.values()) == {"F8_E4M3", "BF16", "F32", "U8"}
    quantized = {key for key, dtype in file.dtypes.items() if dtype == "F8_E4M3"}
    blocks = {int(key.split("transformer_blocks.")[1].split(".")[0]) for key in quantized}
    assert blocks == {1, 2, 3, 4, 5}
    # 34 linear layers a block, six of which are gates, which stay in bfloat16.
    assert len(quantized) == len(blocks) * 28
    for key in quantized:
        layer = key.removesuffix(".weight")
        assert file.dtypes[f"{layer}.weight_scale"] == "F32"
        assert file.shapes[f"{layer}.weight_scale"] == ()
        assert file.quantization[layer] == {"format": "float8_e4m3fn"}
        assert file.dtypes[f"{layer}.bias"] == "BF16"
    tables = {dtype for key, dtype in file.dtypes.items() if "scale_shift_table" in key}
    assert tables == {"F32"}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted", "unsealed", "added", "not a directory"])
def test_a_damaged_cache_is_made_again(small_model_dir: Path, tmp_path: Path, damage: str) -> None:
    target = tmp_path / small_model_dir.name
    shutil.copytree(small_model_dir, target)
    victim = ModelFiles.below(target).video_vae
    if damage == "flipped":
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif damage == "deleted":
        victim.unlink()
    elif damage == "unsealed":
        (target / "small-model.json").write_text("{")
    elif damage == "added":
        (target / "vae" / "other.safetensors").touch()
    else:
        shutil.rmtree(target)
        target.touch()
    assert ensure_small_model(tmp_path) == target
    assert model_bytes(target) == model_bytes(small_model_dir)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_whole_cache_is_left_alone(small_model_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_model_dir.rglob("*")}
    assert ensure_small_model(small_model_dir.parent) == small_model_dir
    assert {path: path.stat().st_mtime_ns for path in small_model_dir.rglob("*")} == before


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scope_ltx.models.small.lora_weights.write_safetensors", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ensure_small_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_named_and_nothing_else_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scope_ltx.models.small.WEIGHTS", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ensure_small_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_untrained_model_lies_beside_and_has_the_same_files(small_model_dir: Path) -> None:
    untrained = ensure_untrained_model(small_model_dir.parent)
    assert untrained != small_model_dir
    assert set(model_bytes(untrained)) == set(model_bytes(small_model_dir))


@pytest.mark.parametrize("name", SMALL_LORAS)
def test_loras_are_what_the_catalog_says(components: Components, small_model_dir: Path, name: str) -> None:
    lora = load_catalog().find(name)
    shapes = linear_shapes(components.transformer, components.connectors)
    hint = LoraHint(lora.kind, lora.trained_for, lora.reference_downscale_factor)
    file = LoraFile(small_model_dir / LORA_DIRECTORY / lora.file, shapes, hint=hint)
    assert file.notes == ()
    assert file.facts.kind == lora.kind
    assert file.facts.downscale == (lora.reference_downscale_factor or 1)
    assert {layer.rank for layer in file.layers.values()} == {4}
    assert {layer.scale for layer in file.layers.values()} == {1.0}
    # As published: 18 layers of a block that hear, or 10 that see.
    assert len(file.layers) == 6 * (18 if lora.kind == "identity" else 10)
    keys = CheckpointFile(file.path).keys
    assert all(key.startswith("diffusion_model.transformer_blocks.") for key in keys)
    assert {key.split(".", 4)[-1].split("lora_")[1] for key in keys} == {"A.weight", "B.weight"}


def test_tokenizer_has_gemmas_ids_and_encodes_any_text(components: Components) -> None:
    tokenizer = components.tokenizer
    assert tokenizer.encode("") == [2]
    assert 3 not in tokenizer.encode("żółw 日本 \N{TURTLE} zebra-crossing\n42")
    pieces = read_pieces(world_tokenizer())
    assert pieces[:4] == ["<pad>", "</s>", "<s>", "<unk>"]
    for colour in COLOURS:
        for text in (colour, f"a {colour}", colour.capitalize(), f"a {colour.capitalize()} ball"):
            named = [pieces[token].lower() for token in tokenizer.encode(text)]
            assert colour in named, text


def test_parts_load_strictly(components: Components) -> None:
    config = components.transformer.config
    assert (config.num_layers, config.num_attention_heads, config.attention_head_dim) == (6, 4, 32)
    assert components.video_vae.config.decoder_block_out_channels == (16, 32, 32, 64)
    assert components.text_encoder.config.layer_types[-2:] == ["sliding_attention", "full_attention"]
    embedding = components.text_encoder.get_input_embeddings().weight
    assert len(embedding) == components.tokenizer.vocab_size + 64


def test_vae_round_trip_keeps_the_colours_of_a_clip(components: Components) -> None:
    """The encoder works too: what pins a first frame later gets its colours back."""
    colours = torch.tensor([[0.5, -0.4, -0.3], [-0.4, 0.3, 0.5]])
    clip = torch.ones(1, 3, 17, 128, 128)
    clip[..., :64] = colours[0].view(3, 1, 1, 1)
    clip[..., 64:] = colours[1].view(3, 1, 1, 1)
    vae = components.video_vae
    with torch.inference_mode():
        decoded = vae.decode(vae.encode(clip).latent_dist.mode(), None, return_dict=False)[0]
    assert decoded.shape == clip.shape
    columns = decoded[0, :, :, 32:96]
    halves = torch.stack([columns[..., 20:44], columns[..., 84:108]]).mean(dim=(2, 3, 4))
    assert (halves - colours).abs().max() < 0.2
