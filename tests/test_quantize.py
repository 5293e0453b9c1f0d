"""A bfloat16 checkpoint as FP8: the same through a view and as written split files, and what is refused."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from scope_ltx.checkpoints.monolithic import base_of, open_part
from scope_ltx.checkpoints.quantize.command import Parts, quantized_parts
from scope_ltx.checkpoints.quantize.layers import fp8_layers
from scope_ltx.checkpoints.quantize.view import PIECE_ELEMENTS, Fp8View, as_fp8, quantized_view
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.components import load_components
from scope_ltx.models.connectors import open_connectors
from scope_ltx.models.transformer import open_transformer
from scope_quant.capability import Fp8Path
from scope_quant.fp8 import FP8_DTYPE, quantize_per_tensor
from scope_quant.linear import Fp8Linear
from tests.fakes.monolith import CPU, KEEP, Change, files_in, quantize, read_state, same_bytes, write_monolith
from tests.fakes.published import PublishedFiles, quantize_layers, write_published

FP8: dict[str, Any] = {"dtype": torch.float32, "fp8_path": Fp8Path.DEQUANTIZE}
BLOCK = "model.diffusion_model.transformer_blocks"
LAYERS = 2 * 28
"""Linear layers of two blocks without their gates: six attentions of four, and two feed-forwards of two."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedFiles:
    return write_published(tmp_path_factory.mktemp("published"), fp8=False)


@pytest.fixture(scope="module")
def monolith(published: PublishedFiles) -> Path:
    return write_monolith(published.directory / "ltx-2.3-22b-dev.safetensors", published)


def require_loadable(parts: Parts) -> None:
    open_transformer(parts["transformer"], **FP8)
    open_connectors(parts["transformer"], parts["text_projection"], **FP8)


def loaded(file: CheckpointFile) -> Any:
    stored = open_transformer(file, **FP8)
    stored.load(CPU)
    return stored.module


def transformer_inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    shapes = {
        "hidden_states": (1, 8, 128),
        "audio_hidden_states": (1, 5, 128),
        "encoder_hidden_states": (1, 6, 48),
        "audio_encoder_hidden_states": (1, 6, 32),
    }
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    sizes = {"num_frames": 2, "height": 2, "width": 2, "fps": 24.0, "audio_num_frames": 5}
    return {**drawn, **sizes, "timestep": torch.tensor([700.0]), "sigma": torch.tensor([700.0])}


def predictions(transformer: nn.Module) -> list[Tensor]:
    return list(transformer(**transformer_inputs(), return_dict=False))


def test_round_trip(published: PublishedFiles, monolith: Path, tmp_path: Path) -> None:
    """One bfloat16 file -> four files -> a model that predicts what the bfloat16 one does, but for FP8's error."""
    report = quantize(monolith, tmp_path, check=require_loadable)
    layout = ModelFiles.below(tmp_path)
    assert dict(report.files) == {
        "transformer": layout.transformer,
        "text_projection": layout.text_projection,
        "video_vae": layout.video_vae,
        "audio_vae": layout.audio_vae,
    }
    assert report.layers == LAYERS
    assert report.missing == (layout.text_encoder,)
    assert report.nbytes == sum(path.stat().st_size for path in report.files.values())
    assert f"missing  {layout.text_encoder}: not part of that checkpoint, put it there" in report.as_text()

    layout.text_encoder.write_bytes(published.files.text_encoder.read_bytes())
    components = load_components(ModelFiles.in_directory(tmp_path), CPU)
    components.place(components.plan(headroom_nbytes=0))
    layers = {name for name, layer in components.transformer.named_modules() if isinstance(layer, Fp8Linear)}
    assert len(layers) == LAYERS
    assert not any("to_gate_logits" in name or name.startswith("transformer_blocks.0.") for name in layers)
    for got, want in zip(
        predictions(components.transformer), predictions(published.modules.transformer), strict=True
    ):
        # Weights are off by 2.6 % each (root mean square), independently.
        assert 0 < (got - want).norm() / want.norm() < 0.05


def test_files_hold_what_the_published_layout_does(
    published: PublishedFiles, monolith: Path, tmp_path: Path
) -> None:
    report = quantize(monolith, tmp_path)
    source = read_state(published.files.transformer)
    layers = fp8_layers(CheckpointFile(published.files.transformer), KEEP)
    quantize_layers(source, layers)
    written = read_state(report.files["transformer"])
    assert written.keys() == source.keys()
    for key, tensor in source.items():
        assert same_bytes(written[key], tensor), key
    assert written[f"{layers[0]}.weight_scale"].shape == ()
    for role in ("text_projection", "video_vae", "audio_vae"):
        expected, got = read_state(getattr(published.files, role)), read_state(report.files[role])
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_metadata_names_the_model_and_the_origin(monolith: Path, tmp_path: Path) -> None:
    file = CheckpointFile(quantize(monolith, tmp_path).files["transformer"])
    assert set(file.config()) == {"transformer"}
    assert file.metadata["model_version"] == "2.3.0"
    assert file.metadata["quantized_from"] == "ltx-2.3-22b-dev.safetensors"
    assert base_of(file) == "dev"  # the layout's file name says distilled, whatever is in it


def test_a_view_reads_like_the_written_file(monolith: Path, tmp_path: Path) -> None:
    """Quantized at load or before: the same tensors, also when asked for in pieces and out of order."""
    view = as_fp8(open_part(monolith, "transformer"), keep_blocks=KEEP)
    written = CheckpointFile(quantize(monolith, tmp_path).files["transformer"])
    assert view.shapes == written.shapes
    assert view.dtypes == written.dtypes
    assert view.quantization == written.quantization
    for key in sorted(view.keys, reverse=True):
        expected = written.tensor(key)
        assert same_bytes(view.tensor(key), expected), key
        if expected.ndim:
            part = torch.empty_like(expected[1:])
            view.read_into(key, part, first_row=1)
            assert same_bytes(part, expected[1:]), key
    for got, want in zip(predictions(loaded(view)), predictions(loaded(written)), strict=True):
        assert torch.equal(got, want)
    with pytest.raises(KeyError):
        view.tensor("surprise")


def test_an_fp8_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = CheckpointFile(write_published(tmp_path).files.transformer)
    assert as_fp8(file) is file


def test_threads_may_read_one_view(published: PublishedFiles, tmp_path: Path) -> None:
    """As a placement does: weights and scales of one layer in any order, at once."""
    file = CheckpointFile(published.files.transformer)
    view = quantized_view(file, keep_blocks=KEEP)
    keys = sorted(key for key in view.keys if key.endswith((".weight", ".weight_scale")))
    with ThreadPoolExecutor(8) as pool:
        got = dict(zip(keys, pool.map(view.tensor, keys), strict=True))
    for layer in fp8_layers(file, KEEP):
        expected = quantize_per_tensor(file.tensor(f"{layer}.weight"))
        assert same_bytes(got[f"{layer}.weight"], expected.data)
        assert torch.equal(got[f"{layer}.weight_scale"], expected.scale)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 5),
    width=st.sampled_from([1, 3, PIECE_ELEMENTS // 2, PIECE_ELEMENTS + 1]),
    magnitude=st.sampled_from([0.0, 1e-30, 1e-4, 1.0, 1e30]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    seed=st.integers(0, 9),
)
def test_any_weight_is_quantized_as_scope_quant_does(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    width: int,
    magnitude: float,
    dtype: torch.dtype,
    seed: int,
) -> None:
    values = torch.rand(rows, min(width, 997), generator=torch.Generator().manual_seed(seed)) - 0.5
    weight = (values.repeat(1, -(-width // values.shape[1]))[:, :width] * magnitude).to(dtype).contiguous()
    path = tmp_path_factory.mktemp("weight") / "one.safetensors"
    layer = f"{BLOCK}.0.attn1.to_q"
    save_file({f"{layer}.weight": weight}, path)
    view = Fp8View(CheckpointFile(path), [layer])
    expected = quantize_per_tensor(weight)
    assert same_bytes(view.tensor(f"{layer}.weight"), expected.data)
    assert torch.equal(view.tensor(f"{layer}.weight_scale"), expected.scale)
    path.unlink()


def test_weights_are_merged_before_they_are_quantized(published: PublishedFiles, tmp_path: Path) -> None:
    names: list[str] = []

    def merge(name: str, weight: Tensor) -> Tensor:
        names.append(name)
        return weight.float() * 0.5 + 0.25

    source = CheckpointFile(published.files.transformer)
    report = quantize(published.files.transformer, tmp_path, merge=merge)
    written = read_state(report.files["transformer"])
    merged = dict(published.modules.transformer.named_parameters())
    matrices = {name for name, tensor in merged.items() if tensor.ndim == 2 and name.endswith(".weight")}
    assert sorted(names) == sorted(matrices)  # each once, under the module's own name
    layer, gate = f"{BLOCK}.1.attn1.to_q", f"{BLOCK}.1.attn1.to_gate_logits.weight"
    expected = quantize_per_tensor(merge("", source.tensor(f"{layer}.weight")))
    assert same_bytes(written[f"{layer}.weight"], expected.data)
    assert torch.equal(written[f"{layer}.weight_scale"], expected.scale)
    assert torch.equal(written[gate], merge("", source.tensor(gate)).bfloat16())
    connector = next(key for key in written if "video_embeddings_connector" in key and key.endswith("to_q.weight"))
    assert torch.equal(written[connector], source.tensor(connector))


def test_a_merge_must_keep_the_shape(published: PublishedFiles, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"merging into .*\.weight must keep its shape \(\d+, \d+\), got"):
        quantize(published.files.transformer, tmp_path, merge=lambda _, weight: weight[:1])
    assert files_in(tmp_path) == {}


def test_a_transformer_file_alone(published: PublishedFiles, tmp_path: Path) -> None:
    """Split already, with or without the published prefix: one file comes out, under the published names."""
    bare = tmp_path / "bare.safetensors"
    state = read_state(published.files.transformer)
    save_file(
        {key.removeprefix("model.diffusion_model."): tensor for key, tensor in state.items()},
        bare,
        {"config": CheckpointFile(published.files.transformer).metadata["config"]},
    )
    with_prefix = quantize(published.files.transformer, tmp_path / "with")
    without = quantize(bare, tmp_path / "without")
    assert list(with_prefix.files) == list(without.files) == ["transformer"]
    assert len(without.missing) == 4
    first, second = (read_state(report.files["transformer"]) for report in (with_prefix, without))
    assert first.keys() == second.keys()
    assert all(same_bytes(first[key], second[key]) for key in first)


def changed_monolith(directory: Path, published: PublishedFiles, change: Change) -> Path:
    return write_monolith(directory / "whole.safetensors", published, change)


def set_tensor(key: str, make: Callable[[Tensor], Tensor]) -> Change:
    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        state[key] = make(state[key])

    return change


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite(bad: float, published: PublishedFiles, tmp_path: Path) -> None:
    key = f"{BLOCK}.2.ff.net.2.weight"

    def spoil(weight: Tensor) -> Tensor:
        weight[3, 5] = bad
        return weight

    path = changed_monolith(tmp_path, published, set_tensor(key, spoil))
    with pytest.raises(CheckpointError, match=rf"has a weight with NaN or infinity: {key}\. The file is damaged"):
        quantize(path, tmp_path / "out")
    assert files_in(tmp_path / "out") == {}


def test_fp8_is_not_quantized_again(tmp_path: Path) -> None:
    path = write_published(tmp_path / "fp8").files.transformer
    with pytest.raises(CheckpointError, match=r"is in FP8 already: .* FP8 files load without quantizing"):
        quantize(path, tmp_path / "out")


def test_types_that_cannot_be_quantized(published: PublishedFiles, tmp_path: Path) -> None:
    key = f"{BLOCK}.1.attn1.to_q.weight"
    path = changed_monolith(tmp_path, published, set_tensor(key, lambda weight: weight.to(torch.int8)))
    expected = rf"has weights of a type that cannot be quantized, expected BF16, F16, F32: {key} I8"
    with pytest.raises(CheckpointError, match=expected):
        quantize(path, tmp_path / "out")


def test_scales_beside_bfloat16_weights(published: PublishedFiles, tmp_path: Path) -> None:
    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        state[f"{BLOCK}.1.attn1.to_q.weight_scale"] = torch.ones(())

    path = changed_monolith(tmp_path, published, change)
    with pytest.raises(CheckpointError, match=r"holds scales or notes beside weights that are not FP8: .*to_q"):
        quantize(path, tmp_path / "out")


def test_what_holds_no_transformer(published: PublishedFiles, tmp_path: Path) -> None:
    for path in (published.files.video_vae, published.files.text_encoder):
        with pytest.raises(CheckpointError, match="holds no transformer blocks: there is nothing to quantize"):
            quantize(path, tmp_path / "out")

    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        for key in [key for key in state if key.startswith("model.")]:
            del state[key]

    with pytest.raises(CheckpointError, match="holds no transformer, only text projection, video VAE"):
        quantize(changed_monolith(tmp_path, published, change), tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"is a directory, expected a \.safetensors file"):
        quantize(tmp_path, tmp_path / "out")


def test_what_a_loader_would_refuse_is_not_written(published: PublishedFiles, tmp_path: Path) -> None:
    def change(state: dict[str, Tensor], _: dict[str, Any]) -> None:
        del state[f"{BLOCK}.1.attn1.to_q.bias"]

    path = changed_monolith(tmp_path, published, change)
    with pytest.raises(CheckpointError, match=r"missing keys: .*transformer_blocks\.1\.attn1\.to_q\.bias"):
        quantize(path, tmp_path / "out", check=require_loadable)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ((0, 3), r"blocks to keep must be within 0\.\.2, got 3"),
        ((-1,), r"blocks to keep must be within 0\.\.2, got -1"),
        ((0, 1, 2), "keeping 3 of 3 blocks leaves none to quantize"),
        (None, "keeping 3 of 3 blocks leaves none to quantize"),
    ],
)
def test_blocks_to_keep(keep: tuple[int, ...] | None, message: str, monolith: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(monolith, tmp_path / "out", keep_blocks=keep)


def test_the_first_and_last_two_blocks_are_kept_by_default(tmp_path: Path) -> None:
    path = tmp_path / "blocks.safetensors"
    save_file({f"{BLOCK}.{block}.ff.net.2.weight": torch.ones(2, 2) for block in range(48)}, path)
    layers = fp8_layers(CheckpointFile(path))
    assert [layer.split(".")[3] for layer in sorted(layers, key=lambda layer: int(layer.split(".")[3]))] == [
        str(block) for block in range(2, 46)
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_quantized_on_the_device_as_on_the_host(published: PublishedFiles) -> None:
    file = CheckpointFile(published.files.transformer)
    host = quantized_view(file, keep_blocks=KEEP)
    device = quantized_view(file, keep_blocks=KEEP, device=torch.device("cuda"))
    for key in device.keys:
        got, wanted = device.tensor(key), host.tensor(key)
        assert got.is_cpu
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype != FP8_DTYPE:
            # A CUDA device divides by a number by multiplying with its inverse: one more rounding in a scale.
            torch.testing.assert_close(got, wanted, rtol=2**-23, atol=0)
            continue
        # Such a scale may move a value that lies half way between two FP8 numbers to the other, equally far one.
        scale_key = f"{key.removesuffix('weight')}weight_scale"
        original = file.tensor(key).double()
        ours, theirs = (
            (view.tensor(key).double() * view.tensor(scale_key).double() - original).abs()
            for view in (device, host)
        )
        assert ((ours - theirs).abs() <= 1e-5 * original.abs().max()).all(), key


def test_damaged_headers_are_told_as_such(monolith: Path, tmp_path: Path) -> None:
    """Flipped bits, cut ends and other letters in the header: an error of a checkpoint, or no harm done."""
    content = monolith.read_bytes()
    header_nbytes = 8 + int.from_bytes(content[:8], "little")
    generator = random.Random(4)
    outcomes = Counter[str]()
    for _ in range(60):
        broken = bytearray(content)
        for _ in range(generator.choice([1, 1, 20])):
            broken[generator.randrange(header_nbytes)] ^= 1 << generator.randrange(7)
        path = tmp_path / "broken.safetensors"
        path.write_bytes(broken[: generator.choice([len(broken), len(broken), generator.randrange(len(broken))])])
        try:
            parts = quantized_parts(path, keep_blocks=KEEP, device=CPU)
            open_transformer(parts["transformer"], **FP8)
            outcomes["opened"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 40
