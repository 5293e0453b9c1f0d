"""Merging: the arithmetic of one layer, and whole models through any sequence of sets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from scope_ltx.checkpoints.loading import StoredModule
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.file import LoraFile, linear_shapes
from scope_ltx.lora.kinds import LoraKind
from scope_ltx.lora.loras import NO_LORAS, LoraSet, changed_modules
from scope_ltx.lora.merging import LoraMerger, ReadTensor, tensor_names
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.feed_forward import make_feed_forward_chunked
from scope_ltx.models.transformer import open_transformer
from scope_quant.capability import Fp8Path
from scope_quant.fp8 import FP8_DTYPE, dequantize, quantize_per_tensor
from scope_quant.merge import LowRank, merge_fp8, merge_plain
from tests.fakes.loras import CONVENTIONS, Factors, difference, draw_factors, layers_of, write_lora
from tests.tiny import tiny_transformer

CPU = torch.device("cpu")
State = dict[str, Tensor]


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def state_of(module: nn.Module) -> State:
    tensors = chain(module.named_parameters(), module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors}


def same_bytes(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def changes(seed: int, rows: int, columns: int, gain: float, ranks: tuple[int, ...] = (4, 7)) -> list[LowRank]:
    generator = torch.Generator().manual_seed(seed)
    return [
        LowRank(
            (torch.randn(rank, columns, generator=generator) * gain).bfloat16(),
            torch.randn(rows, rank, generator=generator),
            scale,
        )
        for rank, scale in zip(ranks, (0.75, -1.3), strict=True)
    ]


def summed(weight: Tensor, made: Iterable[LowRank]) -> Tensor:
    """W' in float64."""
    return weight.double() + sum(change.scale * change.up.double() @ change.down.double() for change in made)


@settings(max_examples=80)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 1e-4, 0.02, 3.0]),
    st.sampled_from([1e-6, 0.03, 50.0]),
)
def test_an_fp8_merge_stays_within_one_requantization(
    seed: int, rows: int, columns: int, gain: float, size: float
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    pristine = quantize_per_tensor(weight)
    kept = pristine.data.clone(), pristine.scale.clone()
    made = changes(seed, rows, columns, gain * size)
    merged = merge_fp8(pristine.data, pristine.scale, made)

    wanted = summed(pristine.data.double() * pristine.scale.double(), made)
    found = merged.data.double() * merged.scale.double()
    bound = torch.maximum(wanted.abs() * 2**-4, merged.scale.double() * 2**-10)
    # What float32 does before the rounding to FP8, against float64: nothing beside it.
    slack = 1e-5 * wanted.abs().max()
    assert ((found - wanted).abs() <= bound + slack).all()
    assert (found - wanted).abs().max() <= wanted.abs().max() / 28 * (1 + 1e-5)
    assert float(merged.scale) == pytest.approx(float(wanted.abs().max()) / 448, rel=1e-5)
    assert merged.data.dtype == FP8_DTYPE
    assert (merged.scale.dtype, merged.scale.shape) == (torch.float32, ())
    assert same_bytes(pristine.data, kept[0])
    assert same_bytes(pristine.scale, kept[1])


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)]
)
def test_a_plain_merge_rounds_once(dtype: torch.dtype, bound: float) -> None:
    weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(1)).to(dtype)
    kept = weight.clone()
    made = changes(2, 30, 20, 0.1)
    merged = merge_plain(weight, made)
    wanted = summed(weight, made)
    assert merged.dtype == dtype
    assert ((merged.double() - wanted).abs() <= bound * wanted.abs() + 1e-6).all()
    assert torch.equal(weight, kept)
    assert torch.equal(merge_plain(weight, []), weight)
    assert merge_plain(weight, []).data_ptr() != weight.data_ptr()


def test_a_merge_takes_a_scale_of_one_element_and_refuses_what_does_not_fit() -> None:
    pristine = quantize_per_tensor(torch.randn(4, 6))
    change = LowRank(torch.ones(2, 6), torch.ones(4, 2), 1.0)
    one = merge_fp8(pristine.data, pristine.scale.reshape(1), [change])
    assert same_bytes(one.data, merge_fp8(pristine.data, pristine.scale, [change]).data)
    with pytest.raises(ValueError, match=r"with one scale, got torch\.float8_e4m3fn with 4 scales"):
        merge_fp8(pristine.data, torch.ones(4), [])
    with pytest.raises(ValueError, match=r"expected a weight in torch\.float8_e4m3fn"):
        merge_fp8(torch.ones(4, 6), pristine.scale, [])
    with pytest.raises(ValueError, match=r"2 bytes or more, got torch\.float8_e4m3fn"):
        merge_plain(pristine.data, [])
    for wrong in (
        LowRank(torch.ones(2, 5), torch.ones(4, 2), 1.0),
        LowRank(torch.ones(2, 6), torch.ones(3, 2), 1.0),
        LowRank(torch.ones(2, 6), torch.ones(4, 3), 1.0),
    ):
        with pytest.raises(ValueError, match=r"a weight \(4, 6\) takes changes"):
            merge_plain(torch.ones(4, 6), [wrong])
    for value in (float("nan"), float("inf")):
        broken = LowRank(torch.full((2, 6), value), torch.ones(4, 2), 1.0)
        with pytest.raises(ValueError, match="is not finite"):
            merge_fp8(pristine.data, pristine.scale, [broken])
    with pytest.raises(ValueError, match=r"does not fit torch\.float16"):
        merge_plain(torch.ones(4, 6, dtype=torch.float16), [LowRank(torch.ones(2, 6), torch.ones(4, 2), 1e5)])


def test_weights_that_are_cancelled_are_zero() -> None:
    pristine = quantize_per_tensor(torch.randn(3, 5))
    away = LowRank(dequantize(pristine.data, pristine.scale, torch.float32), -torch.eye(3), 1.0)
    merged = merge_fp8(pristine.data, pristine.scale, [away])
    assert not merged.data.float().any()
    assert float(merged.scale) == 1.0


@dataclass
class Stored:
    """A transformer whose weights come from a file, block by block as a placement reads them."""

    stored: StoredModule[Any]
    merger: LoraMerger

    def __post_init__(self) -> None:
        self.stored.load(CPU)
        make_feed_forward_chunked(self.stored.module)
        self.blocks = dict(enumerate(self.stored.module.transformer_blocks))
        self.readers: dict[int, ReadTensor] = {}
        for index, block in self.blocks.items():
            path = f"transformer_blocks.{index}"
            read = partial(self.stored.read_under, path)
            self.readers[index] = self.merger.reader(path, state_of(block), read)
        self.shapes = linear_shapes(self.stored.module)

    def use(self, loras: LoraSet) -> frozenset[str]:
        """Write again what changes, as a pipeline would; returns the layers."""
        changed = changed_modules(self.merger.loras, loras)
        self.merger.use(loras)
        for index, block in self.blocks.items():
            tensors = dict(chain(block.named_parameters(), block.named_buffers()))
            for name in tensor_names(changed, f"transformer_blocks.{index}", tensors):
                self.readers[index](name, tensors[name].detach())
        outside = [module for module in changed if not module.startswith("transformer_blocks.")]
        self.merger.write_again(self.stored.module, outside, self.stored.read_into)
        return changed

    def real_weight(self, module: str, state: State | None = None) -> Tensor:
        tensors = state_of(self.stored.module) if state is None else state
        scale = tensors.get(f"{module}.weight_scale")
        weight = tensors[f"{module}.weight"].double()
        return weight if scale is None else weight * scale.double()


@pytest.fixture(scope="module")
def small_file(small_model_dir: Path) -> CheckpointFile:
    return CheckpointFile(ModelFiles.below(small_model_dir).transformer)


def small(file: CheckpointFile) -> Stored:
    """Block 0 and the layers outside the blocks are plain, the other blocks FP8."""
    return Stored(open_transformer(file, dtype=torch.float32, fp8_path=Fp8Path.DEQUANTIZE), LoraMerger(CPU))


@pytest.fixture(scope="module")
def shapes(small_file: CheckpointFile) -> dict[str, tuple[int, int]]:
    stored = open_transformer(small_file, dtype=torch.float32, fp8_path=Fp8Path.DEQUANTIZE)
    return linear_shapes(stored.module)


def assert_merged(model: Stored, pristine: State, changes_of: dict[str, Tensor]) -> None:
    """Exactly the tensors of these layers differ, and each layer is its pristine value and its change."""
    now = state_of(model.stored.module)
    for name, tensor in now.items():
        module, _, leaf = name.rpartition(".")
        if module not in changes_of or leaf not in ("weight", "weight_scale"):
            assert same_bytes(tensor, pristine[name]), name
    for module, change in changes_of.items():
        wanted = model.real_weight(module, pristine) + change
        found = model.real_weight(module, now)
        if f"{module}.weight_scale" in now:
            scale = now[f"{module}.weight_scale"].double()
            bound = torch.maximum(wanted.abs() * 2**-4, scale * 2**-10)
            assert ((found - wanted).abs() <= bound + 1e-5 * wanted.abs().max()).all(), module
            assert float(scale) == pytest.approx(float(wanted.abs().max()) / 448, rel=1e-5)
        else:
            assert relative_error(found, wanted) < 1e-6, module
        assert not same_bytes(now[f"{module}.weight"], pristine[f"{module}.weight"]), module


@pytest.mark.parametrize(
    ("kind", "convention"),
    [
        *((kind, "comfy") for kind in ("standard", "audio_video", "in_context", "identity", "distillation")),
        *(("distillation", convention) for convention in CONVENTIONS if convention != "comfy"),
    ],
)
def test_each_kind_changes_exactly_its_layers_and_leaves_without_a_trace(
    tmp_path: Path,
    small_file: CheckpointFile,
    shapes: dict[str, tuple[int, int]],
    kind: LoraKind,
    convention: str,
) -> None:
    factors = draw_factors(shapes, layers_of(kind, shapes), rank=8)
    alpha = 4.0 if "kohya" in convention else None
    lora = LoraFile(write_lora(tmp_path / "x.safetensors", factors, convention, alpha=alpha), shapes)
    model = small(small_file)
    pristine = state_of(model.stored.module)
    assert model.use(LoraSet.of({lora: 0.8})) == set(factors)
    expected = {
        module: difference(factors, module, 0.8 * (4.0 / len(factors[module][0]) if alpha else 1.0))
        for module in factors
    }
    assert_merged(model, pristine, expected)
    assert model.use(NO_LORAS) == set(factors)
    assert_merged(model, pristine, {})


def test_a_strength_of_nothing_is_nothing(
    tmp_path: Path, small_file: CheckpointFile, shapes: dict[str, tuple[int, int]]
) -> None:
    factors = draw_factors(shapes, layers_of("distillation", shapes))
    lora = LoraFile(write_lora(tmp_path / "x.safetensors", factors), shapes)
    model = small(small_file)
    pristine = state_of(model.stored.module)
    assert model.use(LoraSet.of({lora: 0.0})) == frozenset()
    assert_merged(model, pristine, {})
    assert LoraSet.of({lora: 0.0}).facts == ()


@dataclass
class Shelf:
    """Three files that overlap, and a model."""

    model: Stored
    pristine: State
    files: list[LoraFile]
    factors: list[Factors]


@pytest.fixture(scope="module")
def shelf(
    tmp_path_factory: pytest.TempPathFactory, small_file: CheckpointFile, shapes: dict[str, tuple[int, int]]
) -> Shelf:
    directory = tmp_path_factory.mktemp("shelf")
    few = [
        module
        for module in shapes
        if module.split(".")[:2] in (["transformer_blocks", "0"], ["transformer_blocks", "3"])
    ]
    choices = [
        [module for module in few if ".attn1." in module],
        [module for module in few if ".audio_" in module or ".attn1." in module],
        ["proj_in", "time_embed.linear", *(module for module in few if ".ff." in module or "to_q" in module)],
    ]
    factors = [draw_factors(shapes, chosen, seed=seed) for seed, chosen in enumerate(choices)]
    files = [
        LoraFile(write_lora(directory / f"{at}.safetensors", made), shapes) for at, made in enumerate(factors)
    ]
    model = small(small_file)
    return Shelf(model, state_of(model.stored.module), files, factors)


@settings(max_examples=12)
@given(st.lists(st.tuples(*[st.sampled_from([None, 0.0, 0.4, 1.0, -1.5])] * 3), min_size=1, max_size=5))
def test_any_sequence_of_sets_is_as_if_there_had_been_only_the_last(
    shelf: Shelf, sequence: list[tuple[float | None, ...]]
) -> None:
    for strengths in sequence:
        entries = [(file, s) for file, s in zip(shelf.files, strengths, strict=True) if s is not None]
        before = shelf.model.merger.loras
        changed = shelf.model.use(LoraSet.of(reversed(entries)))
        wanted: dict[str, Tensor] = {}
        for factors, strength in zip(shelf.factors, strengths, strict=True):
            for module in factors if strength else ():
                wanted[module] = wanted.get(module, 0.0) + difference(factors, module, float(strength or 0))
        assert shelf.model.merger.loras.modules == set(wanted)
        assert changed <= before.modules | set(wanted)
        assert_merged(shelf.model, shelf.pristine, wanted)
    # The bytes do not depend on the way here.
    last = state_of(shelf.model.stored.module)
    shelf.model.use(NO_LORAS)
    assert_merged(shelf.model, shelf.pristine, {})
    shelf.model.use(LoraSet.of(entries))
    assert all(same_bytes(tensor, last[name]) for name, tensor in state_of(shelf.model.stored.module).items())
    shelf.model.use(NO_LORAS)


def test_only_what_differs_is_written_again(shelf: Shelf) -> None:
    first, second, third = shelf.files
    one = LoraSet.of({first: 1.0, third: 0.5})
    assert changed_modules(one, one) == frozenset()
    assert changed_modules(one, LoraSet.of([(third, 0.5), (first, 1.0)])) == frozenset()
    assert changed_modules(one, LoraSet.of({first: 1.0, third: 0.6})) == set(third.layers)
    assert changed_modules(one, LoraSet.of({second: 1.0, third: 0.5})) == set(first.layers) | set(second.layers)
    assert len({one, LoraSet.of([(third, 0.5), (first, 1.0)]), NO_LORAS}) == 2


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 10.5, -11])
def test_strengths_are_checked(shelf: Shelf, strength: float) -> None:
    with pytest.raises(ValueError, match=r"0\.safetensors: expected a strength from -10 to 10, got"):
        LoraSet.of({shelf.files[0]: strength})


def test_a_file_is_listed_once(shelf: Shelf) -> None:
    with pytest.raises(ValueError, match=r"0\.safetensors is listed twice"):
        LoraSet.of([(shelf.files[0], 1.0), (LoraFile(shelf.files[0].path, shelf.model.shapes), 0.5)])


class Counting:
    """A pristine reader of one FP8 layer that counts."""

    def __init__(self) -> None:
        pristine = quantize_per_tensor(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)))
        self.tensors = {"weight": pristine.data, "weight_scale": pristine.scale, "bias": torch.ones(8)}
        self.reads: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, name: str, target: Tensor) -> None:
        with self._lock:
            self.reads.append(name)
        target.copy_(self.tensors[name])


@pytest.mark.parametrize("order", [["weight", "weight_scale", "bias"], ["weight_scale", "bias", "weight"]])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_layer_is_merged_once_in_whatever_order_it_is_asked_for(
    tmp_path: Path, order: list[str], threads: int
) -> None:
    factors = draw_factors({"a.b": (8, 6)}, ["a.b"], rank=2)
    path = tmp_path / "one.safetensors"
    down, up = factors["a.b"]
    save_file({"a.b.lora_A.weight": down, "a.b.lora_B.weight": up}, path)
    pristine = Counting()
    merger = LoraMerger(CPU, LoraSet.of({LoraFile(path, {"a.b": (8, 6)}): 1.0}))
    reader = merger.reader("a.b", pristine.tensors, pristine)
    wanted = merge_fp8(pristine.tensors["weight"], pristine.tensors["weight_scale"], [LowRank(down, up, 1.0)])
    for times in range(1, 4):
        got = {name: torch.empty_like(tensor) for name, tensor in pristine.tensors.items()}
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(reader, order, [got[name] for name in order]))
        assert same_bytes(got["weight"], wanted.data)
        assert same_bytes(got["weight_scale"], wanted.scale)
        assert torch.equal(got["bias"], pristine.tensors["bias"])
        assert sorted(pristine.reads) == sorted(order * times)
    # A value that was never asked for does not survive a change of the set.
    half = merge_fp8(pristine.tensors["weight"], pristine.tensors["weight_scale"], [LowRank(down, up, 0.5)])
    scale = torch.empty(())
    for loras, expected in (
        (LoraSet.of({LoraFile(path, {"a.b": (8, 6)}): 0.5}), half.scale),
        (NO_LORAS, pristine.tensors["weight_scale"]),
    ):
        reader("weight", torch.empty(8, 6, dtype=FP8_DTYPE))
        merger.use(loras)
        reader("weight_scale", scale)
        assert same_bytes(scale, expected)
    assert not same_bytes(half.scale, wanted.scale)


def test_parts_of_a_layer_that_is_split_by_rows(tmp_path: Path) -> None:
    factors = draw_factors({"proj": (10, 6)}, ["proj"], rank=3)
    down, up = factors["proj"]
    save_file({"proj.lora_A.weight": down, "proj.lora_B.weight": up}, tmp_path / "one.safetensors")
    loras = LoraSet.of({LoraFile(tmp_path / "one.safetensors", {"proj": (10, 6)}): 2.0})
    weight = torch.randn(10, 6)
    merger = LoraMerger(CPU, loras)
    got = []
    for first, last in ((0, 4), (4, 8), (8, 10)):
        tensors = {"weight": weight[first:last], "bias": torch.zeros(last - first)}
        assert tensor_names(loras.modules, "proj", tensors) == ("weight",)
        reader = merger.reader("proj", tensors, Rows(tensors), first_row=first)
        got.append(torch.empty(last - first, 6))
        reader("weight", got[-1])
    assert relative_error(torch.cat(got), weight + difference(factors, "proj", 2.0)) < 1e-6


@dataclass
class Rows:
    tensors: State

    def __call__(self, name: str, target: Tensor) -> None:
        target.copy_(self.tensors[name])


def test_what_cannot_be_merged_is_named_with_its_strength(tmp_path: Path) -> None:
    layer = {"a": (8, 8)}
    huge = {"a.lora_A.weight": torch.full((1, 8), 3e14), "a.lora_B.weight": torch.full((8, 1), 3e14)}
    save_file(huge, tmp_path / "huge.safetensors")
    merger = LoraMerger(CPU, LoraSet.of({LoraFile(tmp_path / "huge.safetensors", layer): 10.0}))
    tensors: State = {"weight": torch.ones(8, 8, dtype=torch.float16)}
    reader = merger.reader("a", tensors, Rows(tensors))
    with pytest.raises(
        LoraError, match=r"into layer a \(huge.safetensors at 10\): the merged .* Lower the strength"
    ):
        reader("weight", torch.empty(8, 8, dtype=torch.float16))


def low_rank_beside(factors: Factors, module: str, scale: float) -> Callable[[Any, Any, Tensor], Tensor]:
    down, up = (factor.float() for factor in factors[module])

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + scale * (inputs[0] @ down.t()) @ up.t()

    return hook


def forward(transformer: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    config = transformer.config

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    with torch.no_grad():
        video, audio = transformer(
            hidden_states=noise(1, 12, config.in_channels),
            audio_hidden_states=noise(1, 9, config.audio_in_channels),
            encoder_hidden_states=noise(1, 5, config.cross_attention_dim),
            audio_encoder_hidden_states=noise(1, 5, config.audio_cross_attention_dim),
            timestep=torch.full((1, 12), 700.0),
            audio_timestep=torch.full((1, 9), 700.0),
            sigma=torch.tensor([700.0]),
            audio_sigma=torch.tensor([700.0]),
            num_frames=3,
            height=2,
            width=2,
            audio_num_frames=9,
            return_dict=False,
        )
    return torch.cat([video.flatten(), audio.flatten()])


def test_the_merged_model_computes_what_low_rank_layers_beside_it_compute(tmp_path: Path) -> None:
    """Two LoRAs at once, on every linear layer of a tiny transformer, in float32."""
    torch.manual_seed(0)
    transformer = tiny_transformer(layers=2).eval().requires_grad_(False)
    shapes = linear_shapes(transformer)
    factors = [draw_factors(shapes, layers_of(kind, shapes), rank=3, seed=seed) for kind, seed in KINDS_BOTH]
    paths = [write_lora(tmp_path / f"{at}.safetensors", made) for at, made in enumerate(factors)]
    loras = LoraSet.of([(LoraFile(path, shapes), s) for path, s in zip(paths, (0.7, -0.4), strict=True)])
    base = forward(transformer)

    hooks = [
        transformer.get_submodule(module).register_forward_hook(low_rank_beside(made, module, strength))
        for made, strength in zip(factors, (0.7, -0.4), strict=True)
        for module in made
    ]
    beside = forward(transformer)
    for hook in hooks:
        hook.remove()

    pristine = state_of(transformer)
    merger = LoraMerger(CPU, loras)
    merger.write_again(transformer, loras.modules, Rows(pristine))
    merged = forward(transformer)
    assert relative_error(merged, beside) <= 1e-5
    assert relative_error(base, beside) > 0.05

    merger.use(NO_LORAS)
    merger.write_again(transformer, loras.modules, Rows(pristine))
    assert same_bytes(forward(transformer), base)


KINDS_BOTH: tuple[tuple[LoraKind, int], ...] = (("distillation", 1), ("standard", 2))
