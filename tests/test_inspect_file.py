"""`inspect`: the kind of a file from its header, and clear words for what is no safetensors file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.errors import CheckpointError
from scope_ltx.inspect_file import FileReport, file_kind, inspect_file
from scope_ltx.inspect_file.architecture import PUBLISHED, SMALL, linear_layers
from scope_ltx.lora.file import linear_shapes
from scope_ltx.models.small import sizes
from tests.fakes.loras import CONVENTIONS

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


LAYERS = linear_layers(PUBLISHED)


def block_lora(module: str, rank: int = 4, shape: tuple[int, int] | None = None) -> Tensors:
    """A change of a layer of block 0, by diffusers' name; at the published size unless `shape` is given."""
    rows, columns = shape or LAYERS[f"transformer_blocks.0.{module}"]
    key = f"diffusion_model.transformer_blocks.0.{module}"
    return {f"{key}.lora_A.weight": ("BF16", (rank, columns)), f"{key}.lora_B.weight": ("BF16", (rows, rank))}


def report_on(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> FileReport:
    path.write_bytes(safetensors_bytes(tensors, metadata))
    return inspect_file(path)


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
    assert file_kind(keys) == kind


AUDIO = (
    block_lora("audio_attn1.to_q") | block_lora("audio_attn2.to_q") | block_lora("audio_ff.net.2")
    | block_lora("audio_to_video_attn.to_v") | block_lora("video_to_audio_attn.to_q")
)  # fmt: skip
BOTH = block_lora("attn1.to_q") | block_lora("audio_ff.net.0.proj")
ABSENT = {"diffusion_model.transformer_blocks.99.attn1.to_q.lora_A.weight": ("BF16", (4, 8))}


@pytest.mark.parametrize(
    ("tensors", "metadata", "kind"),
    [
        (block_lora("attn1.to_q"), {}, "LoRA (video; an IC-LoRA if its author says so)"),
        (block_lora("attn1.to_q"), {"reference_downscale_factor": "2"}, "IC-LoRA (reference downscale 2)"),
        (block_lora("attn1.to_q"), {"reference_spatial_scale_factor": "4"}, "IC-LoRA (reference downscale 4)"),
        (AUDIO, {}, "ID-LoRA (audio modules only)"),
        (BOTH, {}, "LoRA (video and audio)"),
        (
            block_lora("attn1.to_q") | {"diffusion_model.transformer_blocks.0.ff.dora_scale": ("F32", (64,))},
            {},
            "LoRA of an unsupported type (DoRA)",
        ),
        (
            {"a.lokr_w1": ("F32", (4,)), "a.hada_w1_a": ("F32", (4,))},
            {},
            "LoRA of an unsupported type (LoHa, LoKr)",
        ),
        ({"lora_unet_down_blocks_0.lora_down.weight": ("BF16", (4, 4))}, {},
         "LoRA for another model, it looks like Stable Diffusion or SDXL"),
        ({"x.lora_A.weight": ("BF16", (4, 4)), "x.lora_B.weight": ("BF16", (4, 4))}, {}, "LoRA for another model"),
    ],
)  # fmt: skip
def test_kinds_of_loras(tmp_path: Path, tensors: Tensors, metadata: dict[str, str], kind: str) -> None:
    assert report_on(tmp_path / "l.safetensors", tensors, metadata).kind == kind


def test_a_distillation_lora_changes_everything_and_its_gates_less(tmp_path: Path) -> None:
    """One block of the small model with every layer around it, as cut out of a difference of two checkpoints."""
    layers = {
        name: shape for name, shape in linear_layers(replace(SMALL, blocks=1)).items() if "connector" not in name
    }
    tensors: Tensors = {}
    for name, (rows, columns) in layers.items():
        if "text_proj" not in name:
            rank = min(8, rows, columns)
            tensors[f"transformer.{name}.lora_A.weight"] = ("BF16", (rank, columns))
            tensors[f"transformer.{name}.lora_B.weight"] = ("BF16", (rows, rank))
    report = report_on(tmp_path / "l.safetensors", tensors)
    assert report.kind == "distillation LoRA (every layer, cut out of a difference)"
    assert report.details["rank"] == "4 to 8"
    assert report.details["model"] == "the small model"
    assert report.details["changes"] == (
        f"{len(tensors) // 2} layers, in 1 blocks: picture, sound, the ways between picture and sound, "
        "embeddings and projections"
    )


def test_the_layers_known_by_name_are_those_of_the_model() -> None:
    with torch.device("meta"):
        modules = sizes.build_transformer(), sizes.build_connectors()
    assert linear_layers(SMALL) == linear_shapes(*modules)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_of_names_is_read(tmp_path: Path, convention: str) -> None:
    names = CONVENTIONS[convention]
    tensors: Tensors = {}
    for module in (
        "transformer_blocks.7.attn1.to_out.0",
        "transformer_blocks.7.audio_ff.net.2",
        "time_embed.linear",
    ):
        rows, columns = LAYERS[module]
        tensors[f"{names.layer(module)}.{names.down}"] = ("BF16", (16, columns))
        tensors[f"{names.layer(module)}.{names.up}"] = ("BF16", (rows, 16))
    details = report_on(tmp_path / "l.safetensors", tensors).details
    assert details == {
        "rank": "16",
        "model": "LTX-2.3 (22B)",
        "changes": "3 layers, in 1 blocks: picture, sound, embeddings and projections",
    }


def test_a_loras_rank_and_what_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    assert report_on(path, block_lora("attn1.to_q", 32)).details == {
        "rank": "32",
        "model": "LTX-2.3 (22B)",
        "changes": "1 layers, in 1 blocks: picture",
    }
    both = block_lora("attn1.to_q", 32) | block_lora("audio_to_video_attn.to_k", 8) | ABSENT
    report = report_on(path, both)
    assert report.details["rank"] == "8 to 32"
    assert report.details["changes"] == "2 layers, in 1 blocks: picture, the ways between picture and sound"
    assert report.details["left out"] == "1 keys that are no layer of LTX-2.3"
    assert "changes     2 layers" in report.as_text()


@pytest.mark.parametrize(
    ("module", "shape", "model"),
    [
        ("attn1.to_q", (2048, 2048), "LTX-Video 2B, which is half as wide: transformer_blocks.0.attn1.to_q is"),
        ("attn1.to_q", (3000, 3000), "another one: transformer_blocks.0.attn1.to_q is [3000, 3000], in LTX-2.3"),
        ("attn1.to_q", (128, 128), "the small model"),
    ],
)
def test_the_model_a_lora_was_made_for(tmp_path: Path, module: str, shape: tuple[int, int], model: str) -> None:
    report = report_on(tmp_path / "l.safetensors", block_lora(module, shape=shape))
    assert report.details["model"].startswith(model)


def test_the_catalog_tells_what_a_file_does_not(tmp_path: Path) -> None:
    layer = block_lora("attn1.to_q")
    sync = report_on(tmp_path / "ltx-2.3-sync-lora-3d1t-r256.safetensors", layer)
    assert sync.kind == "IC-LoRA (reference downscale 1, the catalog says)"
    assert sync.details["catalog"] == "sync (Sync-LoRA), made for dev+distilled-lora"
    union = tmp_path / "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors"
    marked = report_on(union, layer, {"reference_downscale_factor": "4"})
    assert marked.kind == "IC-LoRA (reference downscale 4)"
    dual = report_on(tmp_path / "LTX2.3-IC-LORA-Dual-Character.safetensors", layer)
    assert dual.kind == "LoRA (video)"
    broken = report_on(union, layer, {"reference_downscale_factor": "half"})
    assert broken.kind == "IC-LoRA (reference downscale 2, the catalog says)"
    assert "has metadata reference_downscale_factor 'half', expected a whole number" in broken.details["problem"]


@pytest.mark.parametrize(
    ("name", "metadata", "base"),
    [
        ("ltx-2.3-22b-dev.safetensors", {}, "dev, as its name says"),
        ("ltx-2.3-22b-distilled-1.1_fp8.safetensors", {}, "distilled, as its name says"),
        ("mine.safetensors", {}, "unknown: its name says neither distilled nor dev"),
        ("distilled.safetensors", {"quantized_from": "ltx-2.3-22b-dev.safetensors"}, "dev, as its name says"),
    ],
)
def test_which_of_the_two_models_a_checkpoint_is(
    tmp_path: Path, name: str, metadata: dict[str, str], base: str
) -> None:
    fp8 = report_on(tmp_path / name, TRANSFORMER, metadata)
    assert fp8.details == {"base": base, "weights": "FP8"}
    plain: Tensors = {f"{LINEAR}.weight": ("BF16", (8, 4)), "vae.x": ("BF16", ()), "audio_vae.x": ("BF16", ())}
    whole = report_on(tmp_path / name, plain, metadata)
    assert whole.kind == "complete checkpoint: transformer, video VAE, audio VAE"
    told = "not in FP8: `scope-ltx quantize` writes the split FP8 files"
    assert whole.details == {"base": base, "weights": told}


@pytest.mark.parametrize(
    ("config", "scale", "use"),
    [
        ({"spatial_upsample": True, "spatial_scale": 2.0}, "height and width x2", "two-stage sampling"),
        ({"spatial_upsample": True, "spatial_scale": 1.5}, "height and width x1.5", "nothing here"),
        ({"spatial_upsample": False, "temporal_upsample": True}, "frames x2", "nothing here"),
    ],
)
def test_upsamplers(tmp_path: Path, config: dict[str, object], scale: str, use: str) -> None:
    tensors: Tensors = {"initial_conv.weight": ("BF16", (4, 4))}
    report = report_on(tmp_path / "u.safetensors", tensors, {"config": json.dumps(config)})
    assert report.kind == "latent upsampler"
    assert report.details["scale"] == scale
    assert report.details["used for"].startswith(use)
    assert report_on(tmp_path / "u.safetensors", tensors).details == {"scale": "unknown: it has no settings"}


def test_the_small_models_loras_and_upsampler(small_model_dir: Path) -> None:
    kinds = {path.name: inspect_file(path) for path in (small_model_dir / "loras").iterdir()}
    assert {name: report.kind for name, report in kinds.items()} == {
        "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors": "IC-LoRA (reference downscale 2)",
        "ltx-2.3-22b-ic-lora-ingredients-0.9.safetensors": "IC-LoRA (reference downscale 1, the catalog says)",
        "ltx-2.3-sync-lora-3d1t-r256.safetensors": "IC-LoRA (reference downscale 1, the catalog says)",
        "LTX2.3-IC-LORA-Dual-Character.safetensors": "LoRA (video)",
        "ltx-2.3-id-lora-talkvid-3k.safetensors": "ID-LoRA (audio modules only)",
        "LTX-2.3-22b-IC-LoRA-Colorizer-0.9.safetensors": "IC-LoRA (reference downscale 1, the catalog says)",
        "LTX2.3-22B_IC-LoRA-Cameraman_v1_10500.safetensors": "IC-LoRA (reference downscale 1, the catalog says)",
        "small-style-striped.safetensors": "LoRA (video; an IC-LoRA if its author says so)",
        "small-audio-video-chime.safetensors": "LoRA (video and audio)",
    }
    assert {report.details["model"] for report in kinds.values()} == {"the small model"}
    (upsampler,) = (small_model_dir / "latent_upscale_models").iterdir()
    assert inspect_file(upsampler).details["used for"] == "two-stage sampling"


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
