"""The small model that ships: the published layout, the same bytes on every machine, and what a prompt does."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open

from scope_ltx.catalog import LORA_DIRECTORY, load_catalog
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.config import LTX2Config
from scope_ltx.inputs import Samples
from scope_ltx.lora.file import LoraFile, linear_shapes
from scope_ltx.lora.kinds import LoraHint
from scope_ltx.manifest import ModelFiles, load_manifest
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.mel import LogMel
from scope_ltx.models.small import WEIGHTS, ensure_small_model
from scope_ltx.models.small.lora_weights import SMALL_LORAS
from scope_ltx.models.small.published import add_stand_ins
from scope_ltx.models.small.vocabulary import COLOURS, read_pieces
from scope_ltx.pipeline import Pipeline
from scope_ltx.request import Chunk, ChunkRequest
from tests.fakes.clock import FakeClock
from training.package import OWN
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

SHORT = LTX2Config(height=192, width=160, num_frames=41, randomize_seed=False)
MOVING = "a large green square moves around on a white background"
Generate = Callable[[str, int], Chunk]


@pytest.fixture(scope="module")
def components(small_model_dir: Path) -> Components:
    components = load_components(ModelFiles.in_directory(small_model_dir), torch.device("cpu"))
    components.place(components.plan(headroom_nbytes=0))
    return components


@pytest.fixture(scope="module")
def pipeline(components: Components) -> Pipeline:
    return Pipeline(components, FakeClock())


@pytest.fixture(scope="module")
def generate(pipeline: Pipeline) -> Generate:
    return functools.cache(lambda prompt, seed: pipeline.generate(ChunkRequest(SHORT, prompt, seed)))


def still(colour: str) -> str:
    return f"a large {colour} circle stays still on a black background"


def levels(chunk: Chunk) -> npt.NDArray[np.float32]:
    return chunk.frames.astype(np.float32)


def relative(got: Samples, want: Samples) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


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
    catalogued = {load_catalog().find(name).file for name in (*SMALL_LORAS, "colorizer", "cameraman")}
    loras = {f"{LORA_DIRECTORY}/{file}" for file in (*catalogued, *OWN.values())}
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


def test_another_seed_draws_other_stand_ins_of_the_same_form(small_model_dir: Path, tmp_path: Path) -> None:
    add_stand_ins(tmp_path, seed=1)
    drawn = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.safetensors")}
    assert drawn >= {Path(LORA_DIRECTORY, load_catalog().find(name).file) for name in SMALL_LORAS}
    assert ModelFiles.below(tmp_path).upsampler.relative_to(tmp_path) in drawn
    for path in drawn:
        if not (WEIGHTS / path).exists():
            other, here = CheckpointFile(tmp_path / path), CheckpointFile(small_model_dir / path)
            assert other.shapes == here.shapes
            assert other.metadata == here.metadata
            assert other.path.read_bytes() != here.path.read_bytes()


def test_a_lora_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    trained = tmp_path / LORA_DIRECTORY / load_catalog().find("sync").file
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"trained")
    add_stand_ins(tmp_path, seed=1)
    assert trained.read_bytes() == b"trained"


FORMS = {"union-control": (5, 6), "colorizer": (3, 6), "cameraman": (4, 6), "id-lora": (3, 18)}
"""Rank, and layers of a block, of those that were trained. As published 18 hear; of the 10 that see, these are the
ones that do not read the prompt."""


@pytest.mark.parametrize("name", [*SMALL_LORAS, "colorizer", "cameraman"])
def test_loras_are_what_the_catalog_says(components: Components, small_model_dir: Path, name: str) -> None:
    lora = load_catalog().find(name)
    shapes = linear_shapes(components.transformer, components.connectors)
    hint = LoraHint(lora.kind, lora.trained_for, lora.reference_downscale_factor)
    file = LoraFile(small_model_dir / LORA_DIRECTORY / lora.file, shapes, hint=hint)
    assert file.notes == ()
    assert file.facts.kind == lora.kind
    assert file.facts.downscale == (lora.reference_downscale_factor or 1)
    rank, layers = FORMS.get(name, (4, 10))
    assert {layer.rank for layer in file.layers.values()} == {rank}
    assert {layer.scale for layer in file.layers.values()} == {1.0}
    assert len(file.layers) == 6 * layers
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


def test_audio_vae_round_trip_keeps_a_loudness(components: Components) -> None:
    """Of a tone, and of one 40 dB softer, in the band where it is."""
    vae = components.audio_vae
    tone = torch.sin(2 * torch.pi * 1000 / 16_000 * torch.arange(16_000)).expand(2, -1)
    for amplitude in (0.2, 0.002):
        mel = LogMel(torch.device("cpu"))(tone * amplitude)[None]
        with torch.inference_mode():
            decoded = vae.decode(vae.encode(mel).latent_dist.mode(), return_dict=False)[0]
        band = mel[0, 0, 50].argmax()
        # The ends hear the reflection at the edge, and the VAE what lies before the beginning.
        wanted, got = (spectrogram[0, :, 12:-12, band].mean().item() for spectrogram in (mel, decoded))
        assert got == pytest.approx(wanted, abs=0.5)


def test_prompt_and_seed_both_matter(generate: Generate) -> None:
    means = {
        colour: levels(generate(still(colour), 7)).mean(axis=(0, 1, 2)) for colour in ("red", "green", "blue")
    }
    assert means["red"].argmax() == 0
    assert means["green"].argmax() == 1
    assert means["blue"].argmax() == 2
    first, second = (levels(generate(still("red"), seed)) for seed in (7, 8))
    assert np.abs(first - second).mean() > 5


def test_what_moves_and_what_stays_is_the_prompts_and_there_is_no_grain(generate: Generate) -> None:
    steps = {}
    for prompt in (MOVING, still("red")):
        frames = levels(generate(prompt, 7))
        assert frames.std() > 25
        steps[prompt] = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        # A pixel is close to the mean of its neighbours.
        grain = frames[:, 1:-1, 1:-1] - (frames[:, :-2, 1:-1] + frames[:, 2:, 1:-1]) / 2
        assert np.abs(grain).mean() < 2
    assert steps[still("red")].max() < 1.5
    assert steps[MOVING].mean() > 2


def test_the_sound_of_what_stays_is_one_tone_without_clicks(generate: Generate) -> None:
    samples = generate(still("red"), 7).samples
    assert samples.shape[0] == 2
    # The world's tones have an amplitude of 0.2: -17 dB.
    rms_db = 20 * np.log10(np.sqrt(np.mean(samples**2, axis=1)))
    assert np.abs(rms_db + 17).max() < 6
    spectrum = np.abs(np.fft.rfft(samples[0] * np.hanning(samples.shape[1]))) ** 2
    flatness = np.exp(np.mean(np.log(spectrum + 1e-20))) / np.mean(spectrum)
    assert flatness < 1e-3  # noise has about 0.56
    # A full-scale sine of 2000 Hz, the world's highest tone, changes by 0.26 from sample to sample.
    assert np.abs(np.diff(samples)).max() < 0.3 * np.abs(samples).max()


def test_a_standard_lora_is_seen_and_mild(pipeline: Pipeline, generate: Generate) -> None:
    plain = generate(MOVING, 7)
    changed = pipeline.generate(ChunkRequest(SHORT.updated(loras=[{"path": "dual-character"}]), MOVING, 7))
    assert 2 < np.abs(levels(changed) - plain.frames).mean() < 25
    assert relative(changed.samples, plain.samples) < 0.05
