"""Settings of the published files: sizes are required, constants are compared, nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from scope_ltx.checkpoints import metadata
from scope_ltx.checkpoints.keys import CONNECTORS, TRANSFORMER, VIDEO_VAE, VOCODER
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from tests.test_checkpoint_keys import PARTS

SPEC: dict[str, Any] = {
    "transformer": {
        "num_layers": 48,
        "num_attention_heads": 32,
        "attention_head_dim": 128,
        "in_channels": 128,
        "out_channels": 128,
        "cross_attention_dim": 4096,
        "caption_channels": 3840,
        "audio_num_attention_heads": 32,
        "audio_attention_head_dim": 64,
        "audio_out_channels": 128,
        "audio_cross_attention_dim": 2048,
        "av_ca_timestep_scale_multiplier": 1000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "rope_type": "split",
        "connector_num_layers": 8,
        "connector_num_attention_heads": 32,
        "connector_attention_head_dim": 128,
        "audio_connector_num_attention_heads": 32,
        "audio_connector_attention_head_dim": 64,
        "connector_num_learnable_registers": 128,
        "connector_positional_embedding_max_pos": [4096],
    },
    "vae": {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 128,
        "encoder_blocks": [
            ["res_x", {"num_layers": 4}],
            ["compress_space_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}],
            ["compress_time_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 4}],
            ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}],
            ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 2}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 4}],
            ["compress_space", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}],
            ["compress_time", {"multiplier": 2}],
            ["res_x", 4],
            ["compress_all", {"multiplier": 1}],
            ["res_x", {"num_layers": 2}],
            ["compress_all", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}],
        ],
        "timestep_conditioning": False,
        "spatial_padding_mode": "zeros",
    },
    "audio_vae": {
        "model": {
            "params": {
                "sampling_rate": 16000,
                "ddconfig": {"ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "z_channels": 8},
            }
        },
        "preprocessing": {"stft": {"hop_length": 160, "causal": True}},
    },
    "vocoder": {
        "vocoder": {
            "resblock": "AMP1",
            "stereo": True,
            "upsample_initial_channel": 1536,
            "upsample_rates": [5, 2, 2, 2, 2, 2],
            "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        },
        "bwe": {
            "upsample_initial_channel": 512,
            "upsample_rates": [6, 5, 2, 2, 2],
            "upsample_kernel_sizes": [12, 11, 4, 4, 4],
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilation_sizes": [[1, 3, 5]] * 3,
            "n_fft": 512,
            "hop_length": 80,
            "num_mels": 64,
            "input_sampling_rate": 16000,
            "output_sampling_rate": 48000,
        },
    },
}

# The tensors that widths are read from, at the published shapes (fewer values in the axes nobody reads).
SHAPES: dict[str, tuple[int, ...]] = {
    TRANSFORMER.to_published("audio_proj_in.weight"): (1, 128),
    CONNECTORS.to_published("video_text_proj_in.weight"): (1, 188160),
    VIDEO_VAE.to_published("decoder.conv_in.conv.weight"): (1024, 128),
    **{
        VIDEO_VAE.to_published(f"encoder.{block}.resnets.0.conv1.conv.weight"): (width, 1)
        for block, width in (
            ("down_blocks.1", 256),
            ("down_blocks.2", 512),
            ("down_blocks.3", 1024),
            ("mid_block", 1024),
        )
    },
    **{
        VIDEO_VAE.to_published(f"decoder.up_blocks.{stage}.upsamplers.0.conv.conv.weight"): (1, width)
        for stage, width in enumerate((1024, 512, 512, 256))
    },
    VOCODER.to_published("vocoder.conv_in.weight"): (1, 128),
    VOCODER.to_published("vocoder.conv_out.weight"): (2, 1),
    VOCODER.to_published("bwe_generator.conv_in.weight"): (1, 128),
    VOCODER.to_published("bwe_generator.conv_out.weight"): (2, 1),
}

READERS: dict[str, Callable[[CheckpointFile], dict[str, Any]]] = {
    "transformer": metadata.transformer_kwargs,
    "connectors": lambda file: metadata.connectors_kwargs(file, file),
    "vae": metadata.video_vae_kwargs,
    "audio_vae": metadata.audio_vae_kwargs,
    "vocoder": metadata.vocoder_kwargs,
}


def file_with(directory: Path, change: Callable[[dict[str, Any]], object] | None = None) -> CheckpointFile:
    config = json.loads(json.dumps(SPEC))
    if change is not None:
        change(config)
    path = directory / "spec.safetensors"
    state = {key: torch.zeros(shape, dtype=torch.uint8) for key, shape in SHAPES.items()}
    save_file(state, path, {"config": json.dumps(config)})
    return CheckpointFile(path)


def test_published_settings_give_the_published_modules(tmp_path: Path) -> None:
    file = file_with(tmp_path)
    transformer = READERS["transformer"](file)
    assert transformer["num_layers"] == 48
    assert (transformer["rope_type"], transformer["perturbed_attn"]) == ("split", True)
    connectors = READERS["connectors"](file)
    assert connectors["text_proj_in_factor"] == 49
    assert connectors["audio_connector_num_layers"] == 8
    vae = READERS["vae"](file)
    assert vae["block_out_channels"] == (256, 512, 1024, 1024)
    assert vae["decoder_block_out_channels"] == (256, 512, 512, 1024)
    assert vae["layers_per_block"] == vae["decoder_layers_per_block"] == (4, 6, 4, 2, 2)
    assert vae["downsample_type"] == ("spatial", "temporal", "spatiotemporal", "spatiotemporal")
    assert vae["upsample_type"] == ("spatiotemporal", "spatiotemporal", "temporal", "spatial")
    assert vae["upsample_factor"] == (2, 2, 1, 2)
    assert vae["upsample_residual"] == (False,) * 4
    audio = READERS["audio_vae"](file)
    assert (audio["base_channels"], audio["ch_mult"], audio["latent_channels"]) == (128, (1, 2, 4), 8)
    vocoder = READERS["vocoder"](file)
    assert (vocoder["hidden_channels"], vocoder["bwe_hidden_channels"]) == (1536, 512)
    assert (vocoder["final_act_fn"], vocoder["bwe_final_act_fn"]) == ("clamp", None)
    assert vocoder["bwe_upsample_factors"] == [6, 5, 2, 2, 2]
    assert (vocoder["filter_length"], vocoder["output_sampling_rate"]) == (512, 48000)


def setting(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a dotted place; the value `...` removes it."""

    def change(config: dict[str, Any]) -> None:
        *path, key = place.split(".")
        for part in path:
            config = config[part]
        if value is ...:
            del config[key]
        else:
            config[key] = value

    return change


@pytest.mark.parametrize(
    ("reader", "place", "value", "message"),
    [
        ("transformer", "transformer", ..., "its settings have no `config.transformer`"),
        ("transformer", "transformer", 3, "`config.transformer` is 3, expected an object"),
        ("transformer", "transformer.num_layers", ..., "its settings have no `config.transformer.num_layers`"),
        (
            "transformer",
            "transformer.num_layers",
            "48",
            "`config.transformer.num_layers` is '48', expected a positive whole number",
        ),
        ("transformer", "transformer.num_layers", True, "is True, expected a positive whole number"),
        (
            "transformer",
            "transformer.av_ca_timestep_scale_multiplier",
            1,
            "`config.transformer.av_ca_timestep_scale_multiplier` is 1, expected 1000",
        ),
        ("transformer", "transformer.use_middle_indices_grid", False, "is False, expected True"),
        ("transformer", "transformer.norm_eps", 1e-5, "is 1e-05, expected 1e-06"),
        ("transformer", "transformer.rope_type", "interleaved", "is 'interleaved', expected 'split'"),
        (
            "connectors",
            "transformer.connector_positional_embedding_max_pos",
            [1],
            "`config.transformer.connector_positional_embedding_max_pos` is [1], expected (4096,)",
        ),
        ("connectors", "transformer.caption_channels", 3839, "projects 188160 values, expected a multiple"),
        ("vae", "vae.timestep_conditioning", True, "`config.vae.timestep_conditioning` is True, expected False"),
        ("vae", "vae.spatial_padding_mode", "reflect", "is 'reflect', expected 'zeros'"),
        ("vae", "vae.latent_channels", 16, "`config.vae.latent_channels` is 16, expected 128"),
        ("vae", "vae.decoder_blocks", [["res_x", {"num_layers": 2}]], "expected 5 blocks res_x"),
        ("vae", "vae.decoder_blocks", [["res_x"]], "expected blocks of the form [name, settings]"),
        ("vae", "vae.encoder_blocks", "res", "is 'res', expected a list of blocks"),
        (
            "audio_vae",
            "audio_vae.model.params.ddconfig.ch",
            ...,
            "its settings have no `config.audio_vae.model.params.ddconfig.ch`",
        ),
        ("audio_vae", "audio_vae.model.params.ddconfig.attn_resolutions", [8], "is [8], expected ()"),
        ("audio_vae", "audio_vae.model.params.ddconfig.ch_mult", [1, "2"], "expected a list of positive"),
        ("audio_vae", "audio_vae.preprocessing.stft.hop_length", 256, "is 256, expected 160"),
        ("vocoder", "vocoder.bwe", ..., "its settings have no `config.vocoder.bwe`"),
        ("vocoder", "vocoder.vocoder.resblock", "1", "`config.vocoder.vocoder.resblock` is '1', expected 'AMP1'"),
        ("vocoder", "vocoder.bwe.resblock_dilation_sizes", [[]], "expected a list of lists"),
    ],
)
def test_wrong_settings(tmp_path: Path, reader: str, place: str, value: Any, message: str) -> None:
    file = file_with(tmp_path, setting(place, value))
    with pytest.raises(CheckpointError) as caught:
        READERS[reader](file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file.path))


def test_a_part_that_the_file_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"config": json.dumps(SPEC)})
    with pytest.raises(CheckpointError, match=r"does not hold the video VAE as expected: decoder\.conv_in"):
        metadata.video_vae_kwargs(CheckpointFile(path))


class PublishedShapes:
    """A file of the real model, as far as its settings are concerned: no tensor has values."""

    path = Path("published.safetensors")

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def config(self) -> dict[str, Any]:
        return SPEC


@pytest.mark.parametrize(
    ("part", "parameters"),
    list(zip(PARTS, (18_988_838_144, 3_172_227_584, 726_106_225, 53_248_402, 129_085_032), strict=True)),
    ids=lambda value: value[0].name if isinstance(value, tuple) else "",
)
def test_the_real_settings_build_every_tensor_of_the_real_size(part: Any, parameters: int) -> None:
    keymap, build, count = part
    readers = dict(zip((keymap.name for keymap, _, _ in PARTS), READERS.values(), strict=True))
    with torch.device("meta"):
        real = build()
        shapes = {name: tuple(tensor.shape) for name, tensor in real.state_dict().items()}
        file: Any = PublishedShapes({keymap.to_published(name): shape for name, shape in shapes.items()})
        built = type(real)(**readers[keymap.name](file))
    assert {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()} == shapes
    assert len(shapes) == count
    assert sum(tensor.numel() for tensor in built.state_dict().values()) == parameters
