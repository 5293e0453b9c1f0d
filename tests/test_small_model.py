"""The small model: published layout, deterministic bytes, and a picture and a sound fit for a person."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from scope_ltx.catalog import LORA_DIRECTORY, load_catalog
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.config import LTX2Config
from scope_ltx.inputs import ChunkInputs, Samples
from scope_ltx.lora.file import LoraFile, linear_shapes
from scope_ltx.lora.kinds import LoraHint
from scope_ltx.manifest import ModelFiles, load_manifest
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.small import ensure_small_model
from scope_ltx.models.small.lora_weights import SMALL_LORAS
from scope_ltx.models.small.published import write_model
from scope_ltx.models.small.vocabulary import COLOURS, read_pieces, train_tokenizer
from scope_ltx.models.small.vocoder_weights import mel_filterbank, stft_bases
from scope_ltx.pipeline import Pipeline
from scope_ltx.request import Chunk, ChunkRequest
from tests.fakes.clock import FakeClock

SHORT = LTX2Config(height=192, width=160, num_frames=41, randomize_seed=False)
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


@pytest.fixture(scope="module")
def pipeline(components: Components) -> Pipeline:
    return Pipeline(components, FakeClock())


@pytest.fixture(scope="module")
def generate(pipeline: Pipeline) -> Callable[[str, int], Chunk]:
    return functools.cache(lambda prompt, seed: pipeline.generate(ChunkRequest(SHORT, prompt, seed)))


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
    assert sum(map(len, files.values())) < 25e6
    assert sum(len(files[path]) for path in loras) < 1e6


def test_two_writes_give_the_same_bytes_whatever_the_global_random_state(
    small_model_dir: Path, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    again = ensure_small_model(tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert again != small_model_dir
    assert model_bytes(again) == model_bytes(small_model_dir)
    assert [path.name for path in tmp_path.iterdir()] == [again.name]


def test_another_seed_gives_other_weights_under_the_same_names(small_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, seed=1)
    for role in PREFIXES:
        path = getattr(ModelFiles.below(small_model_dir), role)
        other = getattr(ModelFiles.below(tmp_path), role)
        assert CheckpointFile(other).shapes == CheckpointFile(path).shapes
        assert other.read_bytes() != path.read_bytes()


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

    monkeypatch.setattr("scope_ltx.models.small.published.write_safetensors", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ensure_small_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


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


def test_a_standard_lora_is_seen_and_mild(pipeline: Pipeline, generate: Callable[[str, int], Chunk]) -> None:
    plain = generate("a red ball", 7)
    changed = pipeline.generate(ChunkRequest(SHORT.updated(loras=[{"path": "dual-character"}]), "a red ball", 7))
    difference = np.abs(changed.frames.astype(np.float32) - plain.frames).mean()
    assert 2 < difference < 25
    assert relative(changed.samples, plain.samples) < 0.05


def test_the_id_lora_changes_the_sound(pipeline: Pipeline, generate: Callable[[str, int], Chunk]) -> None:
    plain = generate("a red ball", 7)
    config = SHORT.updated(audio_input="voice.wav", audio_mode="id_lora", identity_guidance_scale=0)
    inputs = ChunkInputs(voice=np.zeros((2, 16_000), np.float32))
    changed = pipeline.generate(ChunkRequest(config, "a red ball", 7, inputs))
    assert relative(changed.samples, plain.samples) > 0.1
    assert np.abs(changed.frames.astype(np.float32) - plain.frames).mean() < 25


@pytest.mark.parametrize("name", ["union-control", "ingredients", "sync"])
def test_with_an_in_context_lora_a_picture_follows_its_reference(pipeline: Pipeline, name: str) -> None:
    """Two references that differ on one side: so do the two pictures, on that side and in that colour."""
    config = SHORT.updated(width=192, loras=[{"path": name}])
    made = []
    for left in (230, 20):
        reference = np.full((config.num_frames, config.height, config.width, 3), 60, np.uint8)
        reference[:, :, : config.width // 2, 1] = left
        inputs = ChunkInputs(reference=reference)
        made.append(pipeline.generate(ChunkRequest(config, "a blue ball", 7, inputs)).frames.astype(np.float32))
    difference = (made[0] - made[1]).mean(axis=(0, 1))
    near, far = difference[:64], difference[-64:]
    assert near[:, 1].mean() > 30
    assert np.abs(far).mean() < near[:, 1].mean() / 3
    assert np.abs(near[:, [0, 2]]).mean() < near[:, 1].mean() / 2


def relative(got: Samples, want: Samples) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def test_tokenizer_has_gemmas_ids_and_encodes_any_text(components: Components) -> None:
    tokenizer = components.tokenizer
    assert tokenizer.encode("") == [2]
    assert 3 not in tokenizer.encode("żółw 日本 \N{TURTLE} zebra-crossing\n42")
    pieces = read_pieces(train_tokenizer())
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


def test_picture_is_bright_smooth_and_slowly_moving(generate: Callable[[str, int], Chunk]) -> None:
    frames = generate("a red ball on a blue background", 7).frames.astype(np.float32)
    assert 60 < frames.mean() < 200
    assert frames.std() > 25
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert 0.5 < steps.mean() < 6
    assert steps.max() < 12
    # No grain: a pixel is close to the mean of its neighbours.
    grain = frames[:, 1:-1, 1:-1] - (frames[:, :-2, 1:-1] + frames[:, 2:, 1:-1]) / 2
    assert np.abs(grain).mean() < 2


def test_prompt_and_seed_both_matter(generate: Callable[[str, int], Chunk]) -> None:
    means = {
        colour: generate(f"a {colour} ball", 7).frames.astype(np.float32).mean(axis=(0, 1, 2))
        for colour in ("red", "green", "blue")
    }
    assert means["red"].argmax() == 0
    assert means["green"].argmax() == 1
    assert means["blue"].argmax() == 2
    first, second = (generate("a red ball", seed).frames.astype(np.float32) for seed in (7, 8))
    assert np.abs(first - second).mean() > 5


def test_sound_is_a_quiet_tone_without_clicks(generate: Callable[[str, int], Chunk]) -> None:
    chunk = generate("a red ball", 7)
    assert chunk.samples.shape[0] == 2
    rms_db = 20 * np.log10(np.sqrt(np.mean(chunk.samples**2, axis=1)))
    assert (rms_db > -35).all()
    assert (rms_db < -18).all()
    assert not np.array_equal(chunk.samples[0], chunk.samples[1])
    spectrum = np.abs(np.fft.rfft(chunk.samples[0] * np.hanning(chunk.samples.shape[1]))) ** 2
    flatness = np.exp(np.mean(np.log(spectrum + 1e-20))) / np.mean(spectrum)
    assert flatness < 1e-3  # noise has about 0.56
    # A full-scale sine of 1200 Hz, the highest partial, changes by 0.16 from sample to sample.
    assert np.abs(np.diff(chunk.samples)).max() < 0.16 * np.abs(chunk.samples).max()


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


def test_audio_vae_round_trip_keeps_a_loudness(components: Components) -> None:
    vae = components.audio_vae
    with torch.inference_mode():
        levels = [
            vae.decode(vae.encode(torch.full((1, 2, 41, 64), level)).latent_dist.mode(), return_dict=False)[0]
            for level in (-7.0, -3.0)
        ]
    quiet, loud = (level[..., 8:32, 8:56].mean().item() for level in levels)
    assert quiet == pytest.approx(-7.0, abs=0.5)
    assert loud == pytest.approx(-3.0, abs=0.5)


def test_spectrogram_bases_are_real() -> None:
    forward, inverse = stft_bases(64)
    wave = torch.cos(2 * torch.pi * 5 / 64 * torch.arange(64))
    spectrum = (forward[:, 0] @ wave).reshape(2, -1).norm(dim=0)
    assert spectrum.argmax() == 5
    window = torch.hann_window(64)
    assert torch.allclose(inverse[:, 0].T @ (forward[:, 0] @ wave), wave * window**2, atol=1e-5)
    bank = mel_filterbank(64, 512, 16000)
    assert bank.shape == (64, 257)
    assert (bank >= 0).all()
    assert (bank.sum(dim=1) > 0).all()
    centres = bank.argmax(dim=1) * 16000 / 512
    assert (centres.diff() >= 0).all()
    # Slaney's scale: 1000 Hz is mel 15 of 45.245, so about a third of the bands lie below it.
    assert (centres < 1000).sum().item() in (20, 21, 22)
