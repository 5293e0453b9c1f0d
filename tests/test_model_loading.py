"""Published files -> modules: equal to the modules they were written from, and strict about everything else."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma3TextModel

from scope_ltx.checkpoints.keys import TEXT_ENCODER
from scope_ltx.checkpoints.loading import StoredModule, require_materialized
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.models.components import Components, compute_dtype, load_components
from scope_ltx.models.connectors import open_connectors
from scope_ltx.models.text_encoder import open_text_encoder, text_encoder_config
from scope_ltx.models.tokenizer import load_tokenizer
from scope_ltx.models.transformer import open_transformer
from scope_ltx.models.video_vae import load_video_vae
from scope_quant.capability import Fp8Path
from scope_quant.fp8 import dequantize
from scope_quant.linear import Fp8Linear
from tests.fakes.published import PublishedFiles, quantize_layers, write_published

CPU = torch.device("cpu")
F32: dict[str, Any] = {"device": CPU, "dtype": torch.float32}
FP8: dict[str, Any] = {"dtype": torch.float32, "fp8_path": Fp8Path.DEQUANTIZE}
BLOCK_0 = "model.diffusion_model.transformer_blocks.0"


def on_cpu(open_part: Callable[..., StoredModule[Any]], *files: CheckpointFile, **how: Any) -> Any:
    """A part with all of its values."""
    stored = open_part(*files, **how)
    stored.load(CPU)
    require_materialized(stored.module)
    return stored.module


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> PublishedFiles:
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def loaded(shared: PublishedFiles) -> Components:
    components = load_components(shared.files, CPU)
    components.place(components.plan(headroom_nbytes=0))
    return components


@pytest.fixture
def published(shared: PublishedFiles, tmp_path: Path) -> PublishedFiles:
    """Files of its own for a test that damages one."""
    shutil.copytree(shared.directory, tmp_path, dirs_exist_ok=True)
    return PublishedFiles(tmp_path, ModelFiles.below(tmp_path), shared.modules)


def with_quantized_weights(original: nn.Module, loaded: nn.Module) -> nn.Module:
    """The module that was written, with the values that FP8 left of its weights."""
    expected = copy.deepcopy(original).requires_grad_(False)
    for name, layer in loaded.named_modules():
        if isinstance(layer, Fp8Linear):
            linear: Any = expected.get_submodule(name)
            linear.weight.copy_(dequantize(layer.weight, layer.weight_scale, torch.float32))
    return expected


def assert_same_state(original: nn.Module, loaded: nn.Module) -> None:
    expected = original.state_dict()
    got = loaded.state_dict()
    assert got.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(got[name], expected[name])]
    assert different == []


def test_whole_model_loads(loaded: Components) -> None:
    assert loaded.dtype == torch.float32
    assert loaded.fp8.path is Fp8Path.DEQUANTIZE
    for part in ("transformer", "connectors", "text_encoder", "video_vae", "audio_vae", "vocoder"):
        module: nn.Module = getattr(loaded, part)
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())
        floating = {tensor.dtype for tensor in (*module.parameters(), *module.buffers())}
        assert floating <= {torch.float32, torch.float8_e4m3fn}
        require_materialized(module)


def test_unquantized_parts_are_equal(shared: PublishedFiles, loaded: Components) -> None:
    modules = shared.modules
    files = [CheckpointFile(path) for path in (shared.files.transformer, shared.files.text_projection)]
    assert_same_state(modules.connectors, on_cpu(open_connectors, *files, **FP8))
    assert_same_state(modules.video_vae, loaded.video_vae)
    assert_same_state(modules.audio_vae, loaded.audio_vae)
    assert_same_state(modules.vocoder, loaded.vocoder)


def test_video_vae_decodes_the_same(shared: PublishedFiles, loaded: Components) -> None:
    latents = torch.randn(1, 128, 2, 2, 2)
    expected = shared.modules.video_vae.decode(latents, return_dict=False)[0]
    assert torch.equal(loaded.video_vae.decode(latents, return_dict=False)[0], expected)
    pixels = torch.randn(1, 3, 9, 64, 64)
    encoded = loaded.video_vae.encode(pixels).latent_dist.mode()
    assert torch.equal(encoded, shared.modules.video_vae.encode(pixels).latent_dist.mode())


def test_audio_decodes_the_same(shared: PublishedFiles, loaded: Components) -> None:
    latents = torch.randn(1, 8, 4, 16)
    mel = shared.modules.audio_vae.decode(latents, return_dict=False)[0]
    assert torch.equal(loaded.audio_vae.decode(latents, return_dict=False)[0], mel)
    # The resampler's filter is in no file: the waveform is right only if it was computed right.
    waveform = shared.modules.vocoder(mel)
    assert waveform.abs().max() > 0
    assert torch.equal(loaded.vocoder(mel), waveform)


def transformer_inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "hidden_states": noise(1, 8, 128),
        "audio_hidden_states": noise(1, 5, 128),
        "encoder_hidden_states": noise(1, 6, 48),
        "audio_encoder_hidden_states": noise(1, 6, 32),
        "timestep": torch.tensor([700.0]),
        "sigma": torch.tensor([700.0]),
        "num_frames": 2,
        "height": 2,
        "width": 2,
        "fps": 24.0,
        "audio_num_frames": 5,
        "return_dict": False,
    }


def test_transformer_predicts_the_same(shared: PublishedFiles, loaded: Components) -> None:
    layers = [name for name, layer in loaded.transformer.named_modules() if isinstance(layer, Fp8Linear)]
    assert len(layers) == 3 * 34
    expected = with_quantized_weights(shared.modules.transformer, loaded.transformer)
    for got, want in zip(
        loaded.transformer(**transformer_inputs()), expected(**transformer_inputs()), strict=True
    ):
        assert torch.allclose(got, want, rtol=1e-5, atol=1e-5)


def test_transformer_multiplies_in_fp8_where_asked(shared: PublishedFiles, loaded: Components) -> None:
    file = CheckpointFile(shared.files.transformer)
    scaled = on_cpu(open_transformer, file, **{**FP8, "fp8_path": Fp8Path.SCALED_MM})
    paths = {layer.path for layer in scaled.modules() if isinstance(layer, Fp8Linear)}
    assert paths == {Fp8Path.SCALED_MM, Fp8Path.DEQUANTIZE}  # gate logits have 2 outputs: not a multiple of 16
    for got, want in zip(scaled(**transformer_inputs()), loaded.transformer(**transformer_inputs()), strict=True):
        assert 0 < (got - want).norm() / want.norm() < 0.1


def test_float32_tables_and_bfloat16_weights_take_the_compute_type(shared: PublishedFiles) -> None:
    module = on_cpu(open_transformer, CheckpointFile(shared.files.transformer), **{**FP8, "dtype": torch.bfloat16})
    types = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    assert types["scale_shift_table"] == torch.bfloat16
    assert types["proj_in.weight"] == torch.bfloat16
    assert types["transformer_blocks.0.attn1.to_q.weight"] == torch.float8_e4m3fn
    assert types["transformer_blocks.0.attn1.to_q.weight_scale"] == torch.float32
    assert types["transformer_blocks.0.attn1.to_q.bias"] == torch.bfloat16
    vocoder = load_vocoder(CheckpointFile(shared.files.audio_vae), device=CPU)
    assert {tensor.dtype for tensor in vocoder.state_dict().values()} == {torch.float32}


def test_text_encoder_gives_the_same_states(shared: PublishedFiles, loaded: Components) -> None:
    file = CheckpointFile(shared.files.text_encoder)
    fresh = Gemma3TextModel(text_encoder_config(file))  # not on meta: the library fills what it computes
    fresh.load_state_dict(shared.modules.text_encoder.state_dict())
    expected = with_quantized_weights(fresh.eval(), loaded.text_encoder)
    ids = torch.arange(2, 42)[None]
    with torch.no_grad():
        got = loaded.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states
        want = expected(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(got) == 8
    for ours, theirs in zip(got, want, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_text_encoder_config_comes_from_shapes(shared: PublishedFiles) -> None:
    config = text_encoder_config(CheckpointFile(shared.files.text_encoder))
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (32, 48, 7)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 16)
    assert config.query_pre_attn_scalar == 16
    assert [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"] == [5]


def test_rotary_frequencies_follow_their_formula(loaded: Components) -> None:
    found = dict(loaded.text_encoder.named_buffers())
    slow = [name for name in found if name in ("rotary_emb.inv_freq", "rotary_emb.full_attention_inv_freq")]
    fast = [
        name for name in found if name in ("rotary_emb_local.inv_freq", "rotary_emb.sliding_attention_inv_freq")
    ]
    assert (len(slow), len(fast)) == (1, 1)
    for i in range(8):
        assert found[slow[0]][i].item() == pytest.approx(1e6 ** (-2 * i / 16) / 8, rel=1e-6)
        assert found[fast[0]][i].item() == pytest.approx(1e4 ** (-2 * i / 16), rel=1e-6)
    assert found["embed_tokens.embed_scale"].item() == pytest.approx(32**0.5)


def test_tokenizer(shared: PublishedFiles, loaded: Components) -> None:
    ids = loaded.tokenizer.encode("  a red ball \n")
    assert ids[0] == 2
    assert 1 not in ids
    assert ids == loaded.tokenizer.encode("a red ball")
    assert loaded.tokenizer.encode("") == [2]
    assert len(loaded.tokenizer.encode("red ball " * 2000)) == 1024
    assert loaded.tokenizer.vocab_size == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state, _: state.pop("spiece_model"), "holds no tokenizer: spiece_model"),
        (lambda state, _: state.update(spiece_model=torch.zeros(3)), "of type F32, expected bytes"),
        (
            lambda state, _: state.update(spiece_model=torch.ones(3, dtype=torch.uint8)),
            "not a SentencePiece model",
        ),
    ],
)
def test_tokenizer_damage(published: PublishedFiles, change: Any, message: str) -> None:
    path = published.edit("text_encoder", change)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(CheckpointFile(path))


def load_role(published: PublishedFiles, role: str) -> nn.Module:
    file = CheckpointFile(getattr(published.files, role))
    if role == "transformer":
        return on_cpu(open_transformer, file, **FP8)
    if role == "text_projection":
        return on_cpu(open_connectors, CheckpointFile(published.files.transformer), file, **FP8)
    if role == "text_encoder":
        return on_cpu(open_text_encoder, file, **FP8)
    return load_video_vae(file, **F32) if role == "video_vae" else load_audio_vae(file, **F32)


def drop(key: str) -> Any:
    return lambda state, _: state.pop(key)


def put(key: str, value: Tensor) -> Any:
    return lambda state, _: state.update({key: value})


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("transformer", drop(f"{BLOCK_0}.attn1.to_q.bias"), f"missing keys: {BLOCK_0}.attn1.to_q.bias. Use"),
        ("transformer", put("surprise.weight", torch.ones(2)), "unexpected keys: surprise.weight. Use"),
        (
            "transformer",
            put("model.diffusion_model.proj_out.bias", torch.ones(7)),
            "keys of the wrong shape: model.diffusion_model.proj_out.bias [7], expected [128]",
        ),
        (
            "transformer",
            put("model.diffusion_model.proj_out.bias", torch.ones(128, dtype=torch.int32)),
            "keys of a type that cannot be used: model.diffusion_model.proj_out.bias I32",
        ),
        (
            "transformer",
            drop(f"{BLOCK_0}.ff.net.2.weight_scale"),
            f"float8 weights without a weight_scale: {BLOCK_0}.ff.net.2.weight. Use",
        ),
        (
            "transformer",
            put(f"{BLOCK_0}.attn1.q_norm.weight", torch.ones(48).to(torch.float8_e4m3fn)),
            f"float8 tensors where none can be used: {BLOCK_0}.attn1.q_norm.weight",
        ),
        (
            "transformer",
            put("proj_out.bias", torch.ones(128)),
            "that ltx-2.3-22b-distilled-1.1_transformer_only_fp8_scaled.safetensors holds too",
        ),
        (
            "text_projection",
            drop("text_embedding_projection.audio_aggregate_embed.bias"),
            "(read together with ltx-2.3_text_projection_bf16.safetensors) missing keys: text_embedding",
        ),
        (
            "text_encoder",
            drop("model.layers.3.mlp.up_proj.weight_scale"),
            "float8 weights without a weight_scale: model.layers.3.mlp.up_proj.weight",
        ),
        ("text_encoder", drop("model.norm.weight"), "missing keys: model.norm.weight"),
        ("text_encoder", drop("model.embed_tokens.weight"), "no such tensor"),
        ("video_vae", drop("decoder.conv_out.conv.bias"), "missing keys: decoder.conv_out.conv.bias"),
        ("video_vae", drop("per_channel_statistics.std-of-means"), "per_channel_statistics.std-of-means"),
        ("video_vae", put("decoder.extra", torch.ones(1)), "unexpected keys: decoder.extra"),
        (
            "audio_vae",
            put("audio_vae.per_channel_statistics.mean-of-means", torch.ones(8)),
            "audio_vae.per_channel_statistics.mean-of-means [8], expected [128]",
        ),
    ],
)
def test_damaged_tensors(published: PublishedFiles, role: str, change: Any, message: str) -> None:
    published.edit(role, change)
    with pytest.raises(CheckpointError) as caught:
        load_role(published, role)
    assert message in str(caught.value)


def test_all_problems_come_in_one_error(published: PublishedFiles) -> None:
    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        for key in [key for key in state if key.startswith(f"{BLOCK_0}.ff.")]:
            del state[key]
        state["surprise"] = torch.ones(1)

    path = published.edit("transformer", change)
    with pytest.raises(CheckpointError) as caught:
        load_role(published, "transformer")
    text = str(caught.value)
    assert text.startswith(f"{path}: missing keys: {BLOCK_0}.ff.net.0.proj.weight, ")
    assert "; unexpected keys: surprise. Use the file that plugin.toml names" in text


def test_float8_where_no_path_was_given(published: PublishedFiles) -> None:
    published.edit("video_vae", lambda state, _: quantize_layers(state, ["decoder.conv_out.conv"]))
    with pytest.raises(CheckpointError, match=r"float8 tensors where none can be used: decoder\.conv_out"):
        load_role(published, "video_vae")


def test_notes_beside_a_layer_are_followed(published: PublishedFiles) -> None:
    layer = f"{BLOCK_0}.attn1.to_q"

    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        note = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
        state[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
        state[f"{BLOCK_0}.attn1.to_k.input_scale"] = torch.tensor([0.25])
        state[f"{BLOCK_0}.attn1.to_k.weight_scale"] = state[f"{BLOCK_0}.attn1.to_k.weight_scale"].reshape(1)

    path = published.edit("transformer", change)
    module = on_cpu(open_transformer, CheckpointFile(path), **{**FP8, "fp8_path": Fp8Path.SCALED_MM})
    attention: Any = module.transformer_blocks[0].attn1
    assert attention.to_q.path is Fp8Path.DEQUANTIZE
    assert attention.to_k.path is Fp8Path.SCALED_MM
    assert attention.to_k.input_scale.item() == 0.25
    assert attention.to_k.input_scale.shape == attention.to_k.weight_scale.shape == ()
    assert attention.to_v.input_scale is None


def test_parts_that_do_not_belong_together(published: PublishedFiles) -> None:
    def fewer_layers(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        for key in [key for key in state if key.startswith("model.layers.6.")]:
            del state[key]

    published.edit("text_encoder", fewer_layers)
    with pytest.raises(CheckpointError, match="gives 7 hidden states of width 32, the projection takes 8 of 32"):
        load_components(published.files, CPU)


def test_compute_types() -> None:
    assert compute_dtype(CPU) == torch.float32
    assert compute_dtype(torch.device("cuda")) == torch.bfloat16


def test_text_encoder_leaves_the_picture_tower_out(shared: PublishedFiles) -> None:
    keys = CheckpointFile(shared.files.text_encoder).keys
    assert any(key.startswith("vision_model.") for key in keys)
    assert TEXT_ENCODER.to_module("vision_model.embeddings.patch_embedding.weight") is None
