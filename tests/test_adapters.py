"""LoRAs of a loaded model: found, checked, merged into weights wherever those live, taken out without a trace."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.config import LTX2Config
from scope_ltx.engine import GIB, EngineOptions
from scope_ltx.errors import CheckpointError, UnsupportedError
from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.file import linear_shapes
from scope_ltx.lora.kinds import Base, is_text_layer
from scope_ltx.lora.loras import NO_LORAS, LoraSet
from scope_ltx.lora.merging import ReadTensor
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.adapters import Applied, LoraAdapter
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.placement import Block, Placement, plan_both
from scope_ltx.models.text import PromptEncoder, TextContext
from scope_ltx.pipeline import Pipeline, load_pipeline
from scope_ltx.request import ChunkRequest
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.headroom import Demand, estimated_nbytes
from scope_ltx.sampling.workspace import Pass
from scope_streaming.clock import SystemClock
from scope_streaming.weights.layout import block_tensors
from tests.fakes.loras import draw_factors, layers_of, write_lora

CPU = torch.device("cpu")
MIB = 2**20
MOST_STREAMED_MIB, STREAMED_MIB = 4.9, 6.3
"""Of the 9.7 MiB that the blocks take: 4 and 2 blocks of the transformer are streamed."""
NEVER = threading.Event()
State = dict[str, Tensor]


def same_bytes(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


@dataclass
class Model:
    """A loaded model, its blocks in their places, and the LoRAs in it."""

    parts: Components
    placement: Placement
    adapter: LoraAdapter

    @classmethod
    def of(cls, parts: Components, budget_mib: float | None = None) -> Model:
        return cls(parts, parts.place(plans(parts, budget_mib)), LoraAdapter(parts))

    def move(self, budget_mib: float | None) -> None:
        self.placement.close()
        self.placement = self.parts.place(plans(self.parts, budget_mib))

    def select(self, reference: bool = False, **parameters: Any) -> LoraSet:
        return self.adapter.select(LTX2Config(**parameters), reference=reference).loras

    def use(self, loras: LoraSet) -> Applied:
        with torch.inference_mode():
            return self.adapter.apply(loras, self.placement)

    def weights(self) -> State:
        """Everything that a LoRA of the transformer could change, read where compute reads it."""
        transformer = self.parts.transformer
        found = {}
        for run in self.placement.walk:
            for index, block in run:
                for name, tensor in block_tensors(block).items():
                    found[f"transformer_blocks.{index}.{name}"] = tensor.detach().clone()
        for name, tensor in chain(transformer.named_parameters(), transformer.named_buffers()):
            if not name.startswith("transformer_blocks."):
                found[name] = tensor.detach().clone()
        return found

    @torch.inference_mode()
    def context(self) -> TextContext:
        return PromptEncoder(self.parts.tokenizer, self.parts.text_encoder, self.parts.connectors).encode(
            "a red ball"
        )

    @torch.inference_mode()
    def velocity(self) -> Tensor:
        denoiser = Denoiser(self.parts.transformer, self.placement.walk)
        generator = torch.Generator().manual_seed(3)
        video, audio = (torch.randn(1, tokens, 128, generator=generator) for tokens in (12, 9))
        sequences = (
            TokenSequence(video, denoiser.video_coords(2, 2, 3, 24.0)),
            TokenSequence(audio, denoiser.audio_coords(9)),
        )
        prepared = denoiser.prepare(*sequences, [Pass(self.context())], (1.0, 0.5, 0.0))
        made = denoiser.velocities(prepared, video, audio, 0, NEVER)[-1]
        return torch.cat([made.video.flatten(), made.audio.flatten()])


def plans(parts: Components, budget_mib: float | None) -> Any:
    transformer, text = ([block.nbytes for block in blocks] for blocks in parts.blocks)
    return plan_both(transformer, text, 2**40 if budget_mib is None else int(budget_mib * MIB))


def parts_of(directory: Path) -> Components:
    return load_components(ModelFiles.in_directory(directory), CPU)


def assert_same(one: State, other: State) -> None:
    assert [name for name in other if not same_bytes(one[name], other[name])] == []


@pytest.fixture(scope="module")
def resident(small_model_dir: Path) -> Model:
    return Model.of(parts_of(small_model_dir))


@pytest.fixture(scope="module")
def streamed(small_model_dir: Path) -> Model:
    model = Model.of(parts_of(small_model_dir), STREAMED_MIB)
    assert model.placement.plan.streamed
    assert model.placement.plan.resident
    assert model.placement.text_plan.streamed
    return model


@pytest.fixture(autouse=True)
def no_loras_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("resident", "streamed"):
        if name in request.fixturenames:
            request.getfixturevalue(name).use(NO_LORAS)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, resident: Model) -> list[Path]:
    """Three LoRAs that overlap: one inside the blocks, one everywhere, one in the text path too."""
    directory = tmp_path_factory.mktemp("loras")
    shapes = linear_shapes(resident.parts.transformer, resident.parts.connectors)
    choices = [
        layers_of("standard", shapes),
        layers_of("distillation", shapes),
        [module for module in shapes if is_text_layer(module) or ".attn1." in module],
    ]
    return [
        write_lora(directory / f"{at}.safetensors", draw_factors(shapes, chosen, rank=8, seed=at, gain=0.05))
        for at, chosen in enumerate(choices)
    ]


def chosen(*entries: tuple[Path | str, float | None]) -> list[dict[str, Any]]:
    return [{"path": str(path), "strength": strength} for path, strength in entries]


def unchecked(model: Model, files: list[Path], strengths: tuple[float, ...]) -> LoraSet:
    """The set as it is, whatever it would be refused for: a distillation LoRA on the distilled model, say."""
    opened = [model.adapter._library.find(str(path)).file for path in files]
    return LoraSet.of(zip(opened, strengths, strict=True))


def test_every_layer_is_in_a_block_or_in_the_transformer(resident: Model) -> None:
    parts = resident.parts
    blocks = [block for blocks in parts.blocks for block in blocks]
    outside = [
        layer
        for layer in linear_shapes(parts.transformer, parts.connectors)
        if not any(block.holds(layer) for block in blocks)
    ]
    assert "proj_in" in outside
    assert set(outside) <= set(linear_shapes(parts.transformer))


def test_streamed_and_resident_weights_are_merged_to_the_same_bytes(
    resident: Model, streamed: Model, files: list[Path]
) -> None:
    pristine, before, text_before = resident.weights(), resident.velocity(), resident.context()
    for strengths in ((0.8, 0.0, 0.0), (0.8, 0.5, -0.3), (0.0, 0.0, 1.0)):
        applied = [model.use(unchecked(model, files, strengths)) for model in (resident, streamed)]
        assert applied[0].layers == applied[1].layers > 0
        assert_same(streamed.weights(), resident.weights())
        assert torch.equal(streamed.velocity(), resident.velocity())
        assert not torch.equal(resident.velocity(), before)
        assert torch.equal(streamed.context().video, resident.context().video)
        changed_text = not torch.equal(resident.context().audio, text_before.audio)
        assert changed_text == bool(strengths[2])
        assert applied[0].text_changed == (strengths[2] != 0)
    for model in (resident, streamed):
        assert model.use(NO_LORAS).text_changed
        assert_same(model.weights(), pristine)
        assert torch.equal(model.velocity(), before)
        assert torch.equal(model.context().audio, text_before.audio)


def test_only_what_changed_is_merged_and_addresses_stay(streamed: Model, files: list[Path]) -> None:
    def addresses() -> list[int]:
        modules = (streamed.parts.transformer, streamed.parts.connectors)
        return [tensor.data_ptr() for module in modules for tensor in block_tensors(module).values()]

    before = addresses()
    one = unchecked(streamed, files[:1], (1.0,))
    first = streamed.use(one)
    assert first.layers == len(one.modules)
    assert first.seconds > 0
    assert streamed.use(one) == Applied(0.0, 0, text_changed=False)
    assert streamed.use(unchecked(streamed, files[:2], (1.0, 0.0))).layers == 0
    assert addresses() == before


@pytest.fixture(scope="module")
def expected(small_model_dir: Path, files: list[Path]) -> Callable[[tuple[float, ...]], State]:
    """Weights of a model that never had another set."""

    @cache
    def weights(strengths: tuple[float, ...]) -> State:
        model = Model.of(parts_of(small_model_dir))
        model.use(unchecked(model, files, strengths))
        return model.weights()

    return weights


STRENGTHS = st.tuples(*[st.sampled_from([0.0, 0.7])] * 3)
PLACES = st.sampled_from([None, MOST_STREAMED_MIB, STREAMED_MIB])


@settings(max_examples=10)
@given(st.lists(st.one_of(STRENGTHS, PLACES), min_size=1, max_size=5))
def test_any_sequence_of_sets_and_places_ends_with_the_weights_of_the_last_set(
    streamed: Model,
    files: list[Path],
    expected: Callable[[tuple[float, ...]], State],
    sequence: list[tuple[float, ...] | float | None],
) -> None:
    streamed.use(NO_LORAS)
    last: tuple[float, ...] = (0.0, 0.0, 0.0)
    for wish in sequence:
        if isinstance(wish, tuple):
            streamed.use(unchecked(streamed, files, wish))
            last = wish
        else:
            streamed.move(wish)
        assert_same(streamed.weights(), expected(last))


def test_host_memory_does_not_grow(small_model_dir: Path, files: list[Path]) -> None:
    model = Model.of(parts_of(small_model_dir), STREAMED_MIB)
    sets = [unchecked(model, files, strengths) for strengths in ((1.0, 0.5, 0.2), (0.0, -1.0, 0.0))]

    def rounds(count: int) -> int:
        for _ in range(count):
            for loras in (*sets, NO_LORAS):
                model.use(loras)
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    before = rounds(3)
    # All layers of one round are 15 MB.
    assert rounds(12) - before < 30 * MIB


@dataclass
class Failing:
    """Reads, but not while it has failures left and is asked for this tensor."""

    read: ReadTensor
    name: str
    failures: int = 0

    def __call__(self, name: str, target: Tensor) -> None:
        self.read(name, target)
        if name == self.name and self.failures:
            self.failures -= 1
            target.fill_(1.0)
            raise OSError("the disk went away")


@dataclass
class Fragile:
    """A model whose disk can fail: while it reads a block, or a layer outside of the blocks."""

    model: Model
    block: Failing
    outside: Failing


def fragile(directory: Path, budget_mib: float | None) -> Fragile:
    parts = parts_of(directory)
    blocks = list(parts.blocks[0])
    failing = Failing(blocks[4].read, "attn1.to_q.weight")
    blocks[4] = Block(blocks[4].module, failing, blocks[4].path)
    outside = Failing(parts.read_transformer, "proj_in.weight")
    parts = replace(parts, blocks=(blocks, parts.blocks[1]), read_transformer=outside)
    return Fragile(Model.of(parts, budget_mib), failing, outside)


@pytest.mark.parametrize("budget_mib", [None, MOST_STREAMED_MIB, STREAMED_MIB])
@pytest.mark.parametrize("where", ["block", "outside"])
def test_an_error_in_the_middle_goes_back_to_the_set_before(
    small_model_dir: Path, files: list[Path], budget_mib: float | None, where: str
) -> None:
    broken = fragile(small_model_dir, budget_mib)
    model, disk = broken.model, getattr(broken, where)
    old, new = (unchecked(model, files, strengths) for strengths in ((0.5, 0.0, 1.0), (0.8, 0.5, 0.0)))
    model.use(old)
    before = model.weights(), model.context().video
    disk.failures = 1
    with pytest.raises(OSError, match="the disk went away"):
        model.use(new)
    assert_same(model.weights(), before[0])
    assert torch.equal(model.context().video, before[1])
    assert model.use(old).layers == 0

    # Not even the way back: whatever is asked for next is made whole first.
    disk.failures = 2
    with pytest.raises(OSError, match="the disk went away"):
        model.use(new)
    assert model.use(old).layers > 0
    assert_same(model.weights(), before[0])
    assert model.use(new).layers > 0
    assert model.use(NO_LORAS).layers > 0


def test_a_file_that_is_written_to_while_it_is_in_use(resident: Model, files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(files[0].read_bytes())
    loras = resident.select(loras=chosen((path, 0.5)))
    pristine = resident.weights()
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    os.utime(path, ns=(1, 1))  # file systems with coarse times would have the same one
    with pytest.raises(LoraError, match="was written to after it was opened"):
        resident.use(loras)
    assert_same(resident.weights(), pristine)


def test_blocks_that_move_after_a_file_was_damaged_are_placed_without_it(
    small_model_dir: Path, files: list[Path], tmp_path: Path
) -> None:
    """Everything would otherwise wait for ever for a file that is gone."""
    model = Model.of(parts_of(small_model_dir), STREAMED_MIB)
    pristine = model.weights()
    path = tmp_path / "mine.safetensors"
    path.write_bytes(files[1].read_bytes())
    model.use(unchecked(model, [path], (0.5,)))
    merged = model.weights()
    assert not same_bytes(merged["proj_in.weight"], pristine["proj_in.weight"])
    path.write_bytes(files[1].read_bytes() + b"!")
    model.move(None)
    assert_same(model.weights(), pristine)
    with pytest.raises(LoraError, match="is longer than its header says"):
        model.select(loras=chosen((path, 0.5)))
    path.write_bytes(files[1].read_bytes())
    model.use(unchecked(model, [path], (0.5,)))
    assert_same(model.weights(), merged)


def test_a_prompt_is_encoded_anew_where_a_move_has_taken_its_lora_out(
    small_model_dir: Path, files: list[Path], tmp_path: Path
) -> None:
    class Tight(Components):
        """All blocks have a place beside the first request, and not beside a larger one."""

        def plan(self, headroom_nbytes: int) -> Any:
            first = estimated_nbytes(Demand.of(ChunkGeometry.of(small)))
            return plans(self, None if headroom_nbytes <= first else STREAMED_MIB)

    small = LTX2Config(height=64, width=64, num_frames=9, num_steps=2)
    large = small.updated(height=128)
    parts = parts_of(small_model_dir)
    pipeline = Pipeline(
        Tight(**{one.name: getattr(parts, one.name) for one in fields(parts)}), SystemClock(), small
    )
    path = tmp_path / "mine.safetensors"
    path.write_bytes(files[2].read_bytes())
    with_lora = small.updated(loras=[{"path": str(path), "strength": 0.5}])
    pipeline.generate(ChunkRequest(with_lora, "a red ball", seed=7))
    path.write_bytes(path.read_bytes() + b"!")
    made = pipeline.generate(ChunkRequest(large, "a red ball", seed=7))
    assert pipeline.placement.plan.streamed
    plain = load_pipeline(small_model_dir, "cpu").generate(ChunkRequest(large, "a red ball", seed=7))
    assert np.array_equal(made.frames, plain.frames)
    assert np.array_equal(made.samples, plain.samples)


def test_a_file_is_opened_once_and_again_when_it_was_replaced(
    resident: Model, files: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(files[0].read_bytes())
    first, again = (resident.select(loras=chosen((path, 0.5))) for _ in range(2))
    assert first.entries[0][0] is again.entries[0][0]
    resident.use(first)
    before = resident.weights()
    other = path.with_suffix(".new")
    other.write_bytes(files[2].read_bytes())
    other.replace(path)
    replaced = resident.select(loras=chosen((path, 0.5)))
    assert replaced != first
    assert set(replaced.entries[0][0].layers) != set(first.entries[0][0].layers)
    assert resident.use(replaced).layers > 0
    assert not all(same_bytes(tensor, before[name]) for name, tensor in resident.weights().items())


def test_where_a_name_may_lead(resident: Model, small_model_dir: Path, files: list[Path]) -> None:
    name = "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors"
    path = small_model_dir / "loras" / name
    sets = [
        resident.select(reference=True, loras=chosen((spelling, 1.0)), width=384)
        for spelling in (path, f"loras/{name}", name, "union-control")
    ]
    assert sets == [sets[0]] * 4
    assert sets[0].entries[0][0].path == path
    assert (
        resident.select(loras=chosen((os.path.relpath(files[0]), 1.0))).entries[0][0].facts.name == "0.safetensors"
    )


def test_strengths_of_the_catalog(resident: Model, files: list[Path], small_model_dir: Path) -> None:
    def strengths(*entries: tuple[Path | str, float | None]) -> list[float]:
        loras = resident.select(reference=True, width=384, loras=chosen(*entries))
        named = {file.path: strength for file, strength in loras.entries}
        return [strength for _, strength in sorted(named.items(), key=lambda entry: str(entry[0]))]

    assert strengths(("union-control", None)) == [1.0]
    assert strengths(("union-control", 0.4)) == [0.4]
    assert sorted(strengths(("union-control", None), (files[0], None))) == [1.0, 1.0]
    selection = resident.adapter.select(
        LTX2Config(width=384, loras=chosen(("union-control", 3.0))), reference=True
    )
    assert (selection.downscale, selection.temporal_scale) == (2, 1)
    assert [lora.id for lora in selection.listed] == ["union-control"]
    assert selection.notes == ("Union Control is used at strengths of 0.8 to 1.2, best 1; it has 3 here.",)
    plain = resident.adapter.select(LTX2Config(loras=chosen((files[0], None))), reference=False)
    assert (plain.downscale, plain.temporal_scale, plain.notes, plain.listed) == (1, 1, (), ())


def test_a_stacked_strength_counts_beside_others(small_model_dir: Path, files: list[Path], tmp_path: Path) -> None:
    """Dual Character is used lower beside another LoRA; the distillation LoRA is no other."""
    base = replace(parts_of(small_model_dir), base="dev")
    adapter = LoraAdapter(base)
    dual = next(lora for lora in adapter._library._catalog.loras if lora.id == "dual-character")
    assert dual.strength.stacked is not None

    def strength(*others: tuple[Path | str, float | None]) -> float:
        config = LTX2Config(width=384, loras=chosen(("dual-character", None), *others))
        reference = dual.kind == "in_context"
        entries = adapter.select(config, reference=reference).loras.entries
        return next(strength for file, strength in entries if file.path.name == dual.file)

    assert strength() == strength((files[1], 1.0)) == dual.strength.recommended
    assert strength((files[0], 1.0)) == strength((files[0], 1.0), (files[1], 1.0)) == dual.strength.stacked
    assert strength((files[0], 0.0)) == dual.strength.recommended


def test_prompts_are_looked_at_for_the_loras_of_the_catalog(resident: Model) -> None:
    selection = resident.adapter.select(LTX2Config(loras=chosen(("sync", None))), reference=True)
    assert any("3d1t" in note for note in selection.prompt_notes("a red ball"))
    assert not any("3d1t" in note for note in selection.prompt_notes("3d1t"))


def test_the_second_stage_has_strengths_of_its_own(
    resident: Model, files: list[Path], small_model_dir: Path
) -> None:
    """As in the first, but for LoRAs that need what only the first has, and unless told otherwise."""

    def both(base: Base = "distilled", **parameters: Any) -> tuple[dict[str, float], dict[str, float], str]:
        adapter = LoraAdapter(replace(resident.parts, base=base))
        config = LTX2Config(width=384, two_stage=True, **parameters)
        selection = adapter.select(config, reference=True)
        first, second = (
            {file.path.name: strength for file, strength in loras.active}
            for loras in (selection.loras, selection.refining)
        )
        return first, second, " ".join(selection.notes)

    union = {"path": "union-control", "strength": 1.0}
    style = {"path": str(files[0]), "strength": 0.5}
    name = resident.select(reference=True, width=384, loras=[union]).entries[0][0].path.name
    assert both(loras=[union, style])[:2] == ({name: 1.0, "0.safetensors": 0.5}, {"0.safetensors": 0.5})
    told = [union | {"stage_two_strength": 0.3}, style | {"stage_two_strength": 0.0}]
    assert both(loras=told)[1] == {name: 0.3}
    # The dev checkpoint: guided in the first stage, distilled by a LoRA in the second alone.
    union["path"] = "ingredients"
    _, _, notes = both("dev", loras=[union], num_frames=121)
    assert "The second stage's three steps are made for a distilled model" in notes
    distilled = {"path": str(files[1]), "strength": 0.0, "stage_two_strength": 1.0}
    first, second, notes = both("dev", loras=[union, distilled], num_frames=121)
    assert "1.safetensors" not in first
    assert second == {"1.safetensors": 1.0}
    assert "second stage" not in notes
    with pytest.raises(UnsupportedError, match=r"1\.safetensors is the distillation LoRA and this checkpoint is"):
        both(loras=[union, distilled], num_frames=121)


VOICE = {"audio_input": "voice.wav", "audio_mode": "id_lora"}


def test_the_id_lora_comes_and_goes_with_its_mode(resident: Model, small_model_dir: Path) -> None:
    pristine = resident.weights()
    loras = resident.select(**VOICE)
    assert [file.facts.kind for file, _ in loras.entries] == ["identity"]
    assert resident.use(loras).layers == len(loras.modules)
    assert resident.select(**VOICE, loras=chosen(("id-lora", None))) == loras
    assert resident.select(**VOICE, loras=chosen(("id-lora", 0.5))).entries[0][1] == 0.5
    for parameters in ({}, {"audio_mode": "id_lora"}, {"audio_input": "track.wav"}):
        assert resident.select(**parameters) == NO_LORAS
    resident.use(resident.select())
    assert_same(resident.weights(), pristine)


REFUSED: list[tuple[dict[str, Any], bool, type[Exception], str]] = [
    (
        {"loras": chosen(("ingredients", None)), "num_frames": 113},
        True,
        UnsupportedError,
        r"^loras: Ingredients \(reference sheet\) was trained on clips of at least 121 frames, got 113: set "
        r"num_frames to 121 or more",
    ),
    (
        {"loras": chosen(("unoin-control", None))},
        True,
        LoraError,
        r"^unoin-control: is no file, and no LoRA of the catalog; looked for unoin-control, .*loras/unoin-control"
        r"\. Did you mean union-control or .*\? `scope-ltx loras` lists",
    ),
    (
        {"loras": chosen(("my/head.safetensors", None))},
        False,
        LoraError,
        r"^my/head\.safetensors: is no file.*looked for my/head\.safetensors, /.*/my/head\.safetensors\. "
        r".*any other LoRA is named by its path",
    ),
    (
        {"loras": chosen(("/nowhere/union-control", None))},
        True,
        LoraError,
        r"looked for /nowhere/union-control\. Name union-control, or download it: `scope-ltx download .*union",
    ),
    (
        {"loras": chosen(("motion-track", None))},
        True,
        LoraError,
        r"ltx-2\.3-22b-ic-lora-motion-track-control-ref0\.5\.safetensors: is not there \(motion-track of the "
        r"catalog\); looked everywhere below .*\. Download it: `scope-ltx download --only-loras --lora motion",
    ),
    ({"loras": chosen(("x" * 4000, None))}, False, LoraError, "is no file, and no LoRA of the catalog"),
    ({"loras": chosen(("loras", None))}, False, LoraError, "^loras: is no file"),
    (
        {"loras": chosen(("vae/LTX23_audio_vae_bf16.safetensors", None))},
        False,
        LoraError,
        "is not a LoRA but perhaps a whole checkpoint",
    ),
    (
        {"loras": chosen(("sync", None), ("sync", 0.5))},
        True,
        UnsupportedError,
        "^loras: .*is listed twice: list it once, with the sum of its strengths",
    ),
    (
        {"loras": chosen(("sync", None))},
        False,
        UnsupportedError,
        "is an in-context LoRA and needs a reference video",
    ),
    ({}, True, UnsupportedError, "needs an in-context LoRA, and no LoRA is loaded"),
    (
        {"loras": chosen(("union-control", None)), "width": 352},
        True,
        UnsupportedError,
        "must be multiples of 64, got 352x384: use 320x384 or 384x384",
    ),
    ({"loras": chosen(("id-lora", None))}, False, UnsupportedError, "is an ID-LoRA and needs a reference voice"),
    (
        {**VOICE, "loras": chosen(("id-lora", 0.0))},
        False,
        UnsupportedError,
        "Audio mode id_lora needs an ID-LoRA, and no LoRA is loaded",
    ),
]


@pytest.mark.parametrize(("parameters", "reference", "error", "message"), REFUSED)
def test_what_is_refused(
    resident: Model, parameters: dict[str, Any], reference: bool, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        resident.select(reference=reference, **parameters)
    assert resident.parts.merger.loras == NO_LORAS


def test_a_missing_id_lora_comes_with_its_download_command(resident: Model, tmp_path: Path) -> None:
    adapter = LoraAdapter(replace(resident.parts, directory=tmp_path))
    with pytest.raises(
        LoraError,
        match=r"ltx-2\.3-id-lora-talkvid-3k\.safetensors: is not there, and audio_mode id_lora needs it; looked "
        r"everywhere below .*\. Download it: `scope-ltx download --only-loras --lora id-lora",
    ):
        adapter.select(LTX2Config(**VOICE), reference=False)


def test_what_the_base_decides(resident: Model, files: list[Path]) -> None:
    distillation = LTX2Config(loras=chosen((files[1], 1.0)))
    with pytest.raises(UnsupportedError, match="is the distillation LoRA and this checkpoint is distilled"):
        resident.adapter.select(distillation, reference=False)
    dev = LoraAdapter(replace(resident.parts, base="dev"))
    assert dev.select(distillation, reference=False).notes == ()
    sync = LTX2Config(loras=chosen(("sync", None)))
    listed = next(lora for lora in dev._library._catalog.loras if lora.id == "sync")
    if listed.trained_for == "distilled":
        with pytest.raises(UnsupportedError, match="works on the distilled model only, and this is the dev"):
            dev.select(sync, reference=True)
    unknown = LoraAdapter(replace(resident.parts, base=None))
    with pytest.raises(UnsupportedError, match="distilled already"):
        unknown.select(distillation, reference=False)


def test_layers_that_are_left_out_are_told(resident: Model, tmp_path: Path) -> None:
    shapes = {**linear_shapes(resident.parts.transformer), "transformer_blocks.99.attn1.to_q": (8, 8)}
    factors = draw_factors(shapes, ["transformer_blocks.0.attn1.to_q", "transformer_blocks.99.attn1.to_q"])
    path = write_lora(tmp_path / "long.safetensors", factors)
    selection = resident.adapter.select(LTX2Config(loras=chosen((path, 1.0))), reference=False)
    (note,) = selection.notes
    assert note.startswith("long.safetensors: 2 keys are left out, layers that this model does not have: ")


def flipped(content: bytes, chance: random.Random) -> bytes:
    at = chance.choice([chance.randrange(min(len(content), 20_000)), chance.randrange(len(content))])
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def renamed(content: bytes, chance: random.Random) -> bytes:
    parts = [b"lora_A", b"lora_B", b"attn1", b"attn2", b"BF16", b"weight", b"diffusion_model"]
    return content.replace(chance.choice(parts), chance.choice(parts), chance.choice([1, 10, -1]))


@pytest.mark.parametrize("damage", [flipped, cut, renamed])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_chosen_at_run_time_leaves_the_weights_alone(
    resident: Model,
    files: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
    damage: Callable[[bytes, random.Random], bytes],
    seed: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"run-time-{damage.__name__}.safetensors"
    path.unlink(missing_ok=True)
    path.write_bytes(damage(files[0].read_bytes(), random.Random(seed)))
    in_use = unchecked(resident, files[2:], (0.5,))
    resident.use(in_use)
    before = resident.weights()
    try:
        loras = resident.select(loras=chosen((path, 1.0)))
        resident.use(loras)
    except (LoraError, UnsupportedError) as error:
        # A flipped bit can also make another kind of LoRA of it, which text mode has no use for.
        assert isinstance(error, LoraError) or "needs a" in str(error)
        assert_same(resident.weights(), before)
    else:
        assert all(torch.isfinite(tensor.float()).all() for tensor in resident.weights().values())
        resident.use(in_use)
        assert_same(resident.weights(), before)
    resident.use(NO_LORAS)


@pytest.mark.parametrize("value", ["1e999", "[" * 100_000])
def test_a_model_file_with_a_header_without_end(tmp_path: Path, small_model_dir: Path, value: str) -> None:
    files = ModelFiles.in_directory(small_model_dir)
    entry = f'{{"x":{{"dtype":"F32","shape":[{value}],"data_offsets":[0,{value}]}}}}'.encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(entry).to_bytes(8, "little") + entry + bytes(64))
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: has a damaged header"):
        load_components(replace(files, video_vae=path), CPU)


def test_a_budget_is_a_budget_for_lora_blocks_too(small_model_dir: Path, files: list[Path]) -> None:
    files_of = ModelFiles.in_directory(small_model_dir)
    parts = load_components(files_of, CPU, EngineOptions(STREAMED_MIB * MIB / GIB))
    model = Model(parts, parts.place(parts.plan(0)), LoraAdapter(parts))
    model.use(unchecked(model, files, (1.0, 0.0, 1.0)))
    assert model.placement.plan.device_nbytes <= STREAMED_MIB * MIB
