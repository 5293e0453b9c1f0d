"""`inspect`: the kind of a file from its header, and clear words for what is no safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.errors import CheckpointError
from scope_ltx.inspect_file import file_kind, inspect_file

BYTES_OF = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1}
Tensors = dict[str, tuple[str, tuple[int, ...]]]


def safetensors_bytes(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        nbytes = BYTES_OF[dtype]
        for length in shape:
            nbytes *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


def block_lora(module: str, rank: int = 4) -> Tensors:
    key = f"diffusion_model.transformer_blocks.0.{module}"
    return {f"{key}.lora_A.weight": ("BF16", (rank, 64)), f"{key}.lora_B.weight": ("BF16", (64, rank))}


LINEAR = "model.diffusion_model.transformer_blocks.0.attn1.to_q"
TRANSFORMER: Tensors = {
    f"{LINEAR}.weight": ("F8_E4M3", (8, 4)),
    f"{LINEAR}.weight_scale": ("F32", ()),
    f"{LINEAR}.bias": ("BF16", (8,)),
    f"{LINEAR}.comfy_quant": ("U8", (30,)),
}


def test_a_transformer(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    config = {"transformer": {"num_layers": 48}}
    path.write_bytes(safetensors_bytes(TRANSFORMER, {"config": json.dumps(config), "model_version": "2.3.0"}))
    report = inspect_file(path)
    assert report.kind == "transformer"
    assert report.tensors == 4
    assert report.parameters == 8 * 4 + 8
    assert report.dtypes == {"F8_E4M3": 1, "F32": 1, "BF16": 1, "U8": 1}
    assert report.metadata == {"config": config, "model_version": "2.3.0"}
    assert report.nbytes == path.stat().st_size
    assert "parameters  40" in report.as_text()
    assert json.loads(json.dumps(report.as_dict()))["metadata"]["config"] == config


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["text_embedding_projection.video_aggregate_embed.weight"], "text projection"),
        (["model.layers.0.mlp.up_proj.weight", "spiece_model"], "text encoder (Gemma) + tokenizer"),
        (["encoder.conv_in.conv.weight", "per_channel_statistics.mean-of-means"], "video VAE"),
        (["audio_vae.decoder.conv_in.weight", "vocoder.vocoder.conv_pre.weight"], "audio VAE + vocoder"),
        (["initial_conv.weight", "upsampler.0.weight"], "latent upsampler"),
        (["transformer_blocks.0.attn1.to_q.weight"], "transformer (keys without the published prefix)"),
        (
            [f"{LINEAR}.weight", "vae.encoder.x", "audio_vae.x", "vocoder.x"],
            "complete checkpoint: transformer, video VAE, audio VAE, vocoder",
        ),
        (["decoder.weight"], "unknown VAE"),
        (["fc1.weight"], "unknown: no known key prefix"),
        ([], "unknown: no known key prefix"),
    ],
)
def test_kinds_of_models(keys: list[str], kind: str) -> None:
    assert file_kind(keys, {}) == kind


@pytest.mark.parametrize(
    ("tensors", "metadata", "kind"),
    [
        (block_lora("attn1.to_q"), {}, "LoRA (video; an IC-LoRA if its author says so)"),
        (block_lora("attn1.to_q"), {"reference_downscale_factor": 2}, "IC-LoRA (reference downscale 2)"),
        (
            block_lora("audio_attn1.to_q") | block_lora("audio_to_video_attn.to_v"),
            {},
            "ID-LoRA (audio modules only)",
        ),
        (block_lora("attn1.to_q") | block_lora("audio_ff.net.0.proj"), {}, "LoRA (video and audio)"),
        (
            block_lora("attn1.to_q") | {"diffusion_model.transformer_blocks.0.ff.dora_scale": ("F32", (64,))},
            {},
            "LoRA of an unsupported type (DoRA, LoKr or LoHa)",
        ),
        ({"lora_unet_down_blocks_0.lora_down.weight": ("BF16", (4, 4))}, {},
         "LoRA for another model (no transformer_blocks keys)"),
    ],
)  # fmt: skip
def test_kinds_of_loras(tensors: Tensors, metadata: dict[str, object], kind: str) -> None:
    assert file_kind(tensors, metadata) == kind


def test_a_loras_rank(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    path.write_bytes(safetensors_bytes(block_lora("attn1.to_q", 32)))
    assert inspect_file(path).details == {"rank": "32"}
    path.write_bytes(safetensors_bytes(block_lora("attn1.to_q", 32) | block_lora("ff.net.2", 8)))
    assert inspect_file(path).details == {"rank": "8 to 32"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n <!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (bytes(100), "is not a safetensors file"),
        (safetensors_bytes(TRANSFORMER)[:-10], "is truncated"),
        ((2).to_bytes(8, "little") + b"[]", "is not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_refused_by_name(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=told) as caught:
        inspect_file(path)
    assert caught.value.path == path


def test_an_empty_header_is_a_file_with_nothing_in_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({}))
    report = inspect_file(path)
    assert (report.tensors, report.parameters, report.kind) == (0, 0, "unknown: no known key prefix")


@settings(deadline=None)
@given(kept=st.integers(1, len(safetensors_bytes(TRANSFORMER)) - 1))
def test_no_part_of_a_file_passes_for_the_whole(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(safetensors_bytes(TRANSFORMER)[:kept])
    with pytest.raises(CheckpointError):
        inspect_file(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        inspect_file(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is a directory"):
        inspect_file(tmp_path)
