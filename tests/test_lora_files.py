"""LoRA files: read in every convention, told apart, refused with the reason, and fitted to a mode."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scope_ltx.errors import CheckpointError, UnsupportedError
from scope_ltx.lora.compatibility import Mode, problems, require_compatible
from scope_ltx.lora.errors import LoraError
from scope_ltx.lora.file import LoraFile, linear_shapes
from scope_ltx.lora.kinds import LoraFacts, LoraHint, LoraKind
from scope_ltx.models.feed_forward import make_feed_forward_chunked
from scope_ltx.models.split_linear import RowSplitLinear
from tests.fakes.loras import CONVENTIONS, draw_factors, layers_of, lora_state, write_lora
from tests.tiny import VIDEO_WIDTH, tiny_connectors, tiny_transformer

with torch.device("meta"):
    TRANSFORMER, CONNECTORS = tiny_transformer(), tiny_connectors()
SHAPES = linear_shapes(TRANSFORMER, CONNECTORS)
STANDARD = layers_of("standard", SHAPES)
QUERY = "transformer_blocks.0.attn1.to_q"
COMFY = "diffusion_model.transformer_blocks.0.attn1.to_q"
KINDS: tuple[LoraKind, ...] = ("standard", "audio_video", "in_context", "identity", "distillation")


def opened(tmp_path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> LoraFile:
    save_file(state, tmp_path / "some.safetensors", metadata)
    return LoraFile(tmp_path / "some.safetensors", SHAPES)


def pair(
    layer: str = COMFY, rank: int = 4, rows: int = VIDEO_WIDTH, columns: int = VIDEO_WIDTH
) -> dict[str, Tensor]:
    return {f"{layer}.lora_A.weight": torch.ones(rank, columns), f"{layer}.lora_B.weight": torch.ones(rows, rank)}


def refused(tmp_path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    with pytest.raises(LoraError) as caught:
        opened(tmp_path, state, metadata)
    assert isinstance(caught.value, CheckpointError)
    assert caught.value.advice
    assert str(caught.value).startswith(f"{tmp_path / 'some.safetensors'}: ")
    return str(caught.value)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_convention(tmp_path: Path, convention: str, kind: LoraKind) -> None:
    factors = draw_factors(SHAPES, layers_of(kind, SHAPES))
    metadata = {"reference_downscale_factor": "2"} if kind == "in_context" else None
    lora = LoraFile(write_lora(tmp_path / f"{kind}.safetensors", factors, convention, metadata=metadata), SHAPES)
    assert set(lora.layers) == set(factors)
    assert lora.facts == LoraFacts(f"{kind}.safetensors", kind, downscale=2 if kind == "in_context" else 1)
    assert (lora.left_out, lora.notes) == ({}, ())
    for module, (down, up) in factors.items():
        read_down, read_up = lora.factors(module)
        assert torch.equal(read_down, down)
        assert torch.equal(read_up, up)
        assert lora.layers[module].rank == len(down)
        assert lora.layers[module].scale == 1.0


def test_the_counts_are_those_of_the_published_files() -> None:
    """Facts of the published model: 10 layers a block in a standard file, 18 in an ID-LoRA, 34 + 28 in all."""
    blocks = len(TRANSFORMER.transformer_blocks)
    assert len(layers_of("standard", SHAPES)) == 10 * blocks
    assert len(layers_of("identity", SHAPES)) == 18 * blocks
    assert len(layers_of("distillation", SHAPES)) == 34 * blocks + 28


@pytest.mark.parametrize("convention", ["comfy", "full", "diffusers"])
def test_layers_of_the_text_connectors_are_found(tmp_path: Path, convention: str) -> None:
    layers = ["video_text_proj_in", "audio_connector.transformer_blocks.1.attn1.to_k", QUERY]
    lora = LoraFile(write_lora(tmp_path / "text.safetensors", draw_factors(SHAPES, layers), convention), SHAPES)
    assert set(lora.layers) == set(layers)
    assert lora.facts.kind == "standard"


def test_wrapped_layers_keep_their_names() -> None:
    with torch.device("meta"):
        transformer, connectors = tiny_transformer(), tiny_connectors()
    make_feed_forward_chunked(transformer)
    connectors.add_module("video_text_proj_in", RowSplitLinear(connectors.video_text_proj_in, part_nbytes=4096))
    assert len(connectors.video_text_proj_in.parts) > 1
    assert linear_shapes(transformer, connectors) == SHAPES


@pytest.mark.parametrize("alpha", [8.0, 4.0, 1.0])
def test_alpha_counts(tmp_path: Path, alpha: float) -> None:
    path = write_lora(tmp_path / "a.safetensors", draw_factors(SHAPES, STANDARD), "kohya", alpha=alpha)
    lora = LoraFile(path, SHAPES)
    assert lora.layers[QUERY].scale == alpha / 4
    settings = {"transformer.r": 4, "transformer.lora_alpha": alpha, "transformer.use_dora": False}
    metadata = {"lora_adapter_metadata": json.dumps(settings)}
    path = write_lora(tmp_path / "b.safetensors", draw_factors(SHAPES, STANDARD), "diffusers", metadata=metadata)
    assert LoraFile(path, SHAPES).layers[QUERY].scale == alpha / 4


@pytest.mark.parametrize(
    ("metadata", "downscale", "temporal"),
    [
        ({"reference_downscale_factor": "1"}, 1, 1),
        ({"reference_downscale_factor": "2.0"}, 2, 1),
        ({"reference_spatial_scale_factor": "4"}, 4, 1),
        ({"reference_spatial_scale_factor": "2", "reference_downscale_factor": "2"}, 2, 1),
        ({"reference_temporal_scale_factor": "3"}, 1, 3),
    ],
)
def test_reference_factors_are_read(
    tmp_path: Path, metadata: dict[str, str], downscale: int, temporal: int
) -> None:
    facts = opened(tmp_path, pair(), metadata).facts
    assert (facts.kind, facts.downscale, facts.temporal_scale) == ("in_context", downscale, temporal)


@pytest.mark.parametrize("value", ["0", "-2", "1.5", "two", "nan", "inf", "1e9", ""])
def test_reference_factors_must_be_whole_numbers(tmp_path: Path, value: str) -> None:
    for name in ("reference_downscale_factor", "reference_temporal_scale_factor"):
        message = refused(tmp_path, pair(), {name: value})
        assert f"{name} {value!r}, expected a whole number from 1 to 64" in message


def test_reference_factors_must_agree(tmp_path: Path) -> None:
    metadata = {"reference_downscale_factor": "2", "reference_spatial_scale_factor": "4"}
    assert "disagrees: reference_downscale_factor 2 and reference_spatial_scale_factor 4" in refused(
        tmp_path, pair(), metadata
    )


def test_a_hint_tells_what_the_file_cannot(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "edit.safetensors", draw_factors(SHAPES, STANDARD))
    assert LoraFile(path, SHAPES).facts.kind == "standard"
    facts = LoraFile(path, SHAPES, hint=LoraHint("in_context", "distilled")).facts
    assert (facts.kind, facts.trained_for) == ("in_context", "distilled")
    assert LoraFile(path, SHAPES, hint=LoraHint("in_context", downscale=2)).facts.downscale == 2
    write_lora(path, draw_factors(SHAPES, STANDARD), metadata={"reference_downscale_factor": "4"})
    assert LoraFile(path, SHAPES, hint=LoraHint("in_context", downscale=2)).facts.downscale == 4
    with pytest.raises(LoraError, match="is listed as identity, but changes no layer that hears"):
        LoraFile(path, SHAPES, hint=LoraHint("identity"))


def test_a_trained_lora_on_all_layers_is_not_the_distillation(tmp_path: Path) -> None:
    layers = layers_of("distillation", SHAPES)
    path = write_lora(tmp_path / "all.safetensors", draw_factors(SHAPES, layers, rank=2))
    assert LoraFile(path, SHAPES).facts.kind == "audio_video"


def test_some_layers_that_hear_do_not_make_an_identity(tmp_path: Path) -> None:
    layers = [layer for layer in layers_of("identity", SHAPES) if "audio_attn" in layer]
    path = write_lora(tmp_path / "voice.safetensors", draw_factors(SHAPES, layers))
    assert LoraFile(path, SHAPES).facts.kind == "audio_video"


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    state = pair() | pair("diffusion_model.transformer_blocks.40.attn1.to_q") | pair("lora_te_text_model_q")
    state |= {"diffusion_model.proj_out.diff_b": torch.ones(3), "diffusion_model.what.is.this": torch.ones(3)}
    lora = opened(tmp_path, state)
    assert set(lora.layers) == {QUERY}
    assert {reason: len(keys) for reason, keys in lora.left_out.items()} == {
        "layers that this model does not have": 4,
        "changes of biases, norms or whole weights": 1,
        "keys that no LoRA has": 1,
    }
    assert any("some.safetensors: 4 keys are left out" in note for note in lora.notes)
    assert any("diffusion_model.proj_out.diff_b" in note for note in lora.notes)


def without(state: dict[str, Tensor], ending: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.endswith(ending)}


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        ("transformer.single_transformer_blocks.{}.attn.to_q", "one for Flux"),
        ("lora_unet_double_blocks_{}_img_attn_qkv", "one for Flux"),
        ("transformer.transformer_blocks.{}.img_mod.1", "one for Qwen-Image"),
        ("lora_unet_down_blocks_{}_attentions_0_transformer_blocks_0_attn1_to_q", "one for Stable Diffusion"),
        ("diffusion_model.blocks.{}.self_attn.q", "one for Wan"),
        ("text_encoder.text_model.encoder.layers.{}.self_attn.q_proj", "is a LoRA for a text encoder"),
        ("model.layers.{}.self_attn.q_proj", "is a LoRA for a text encoder"),
        ("somewhere.{}.else", "has no layer of LTX-2.3 in its 20 LoRA keys. "),
    ],
)
def test_other_models_are_named(tmp_path: Path, keys: str, family: str) -> None:
    state: dict[str, Tensor] = {}
    for index in range(10):
        state |= pair(keys.format(index))
    message = refused(tmp_path, state)
    if family.endswith(". "):
        assert "has no layer of LTX-2.3 in its 20 LoRA keys: " in message
        assert "looks like" not in message
    else:
        assert family in message
    assert f"{keys.format(0)}.lora_A.weight" in message
    assert "and 15 more" in message


ADALN = "diffusion_model.adaln_single.linear"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (pair(rows=24, columns=24), "weight [24, 24], expected [48, 48]; probably made for LTX-Video 2B"),
        (
            pair(ADALN, rows=6 * VIDEO_WIDTH),
            "weight [288, 48], expected [432, 48]; probably made for LTX-2.0 (19B)",
        ),
        (pair(columns=50), "layer transformer_blocks.0.attn1.to_q changes a weight [48, 50], expected [48, 48]: "),
        (
            pair() | {f"{COMFY}.lora_B.weight": torch.ones(VIDEO_WIDTH, 3)},
            "has lora_A [4, 48] and lora_B [48, 3], expected [r, in] and [out, r]",
        ),
        (pair() | {f"{COMFY}.lora_A.weight": torch.ones(4, VIDEO_WIDTH, 1, 1)}, "has lora_A [4, 48, 1, 1]"),
        (without(pair(), "lora_B.weight"), "has factors without their lora_B: "),
        (without(pair(), "lora_A.weight"), "has factors without their lora_A: "),
        (pair() | {"x.alpha": torch.ones(())}, "has factors without their lora_B: x.alpha"),
        (pair() | {f"{COMFY}.alpha": torch.ones(2)}, "has an alpha that is not one number"),
        (pair() | {f"{COMFY}.alpha": torch.tensor(float("nan"))}, "has alpha nan, expected a number above 0"),
        (pair() | {f"{COMFY}.alpha": torch.zeros(1)}, "has alpha 0.0, expected a number above 0"),
        (pair(rank=0), "has tensors without values: "),
        (
            {key: tensor.to(torch.int32) for key, tensor in pair().items()},
            "has types other than BF16, F16, F32, F64: ",
        ),
        ({key: tensor * float("nan") for key, tensor in pair().items()}, f"layer {QUERY} has NaN or infinity"),
        ({key: tensor * 1e20 for key, tensor in pair().items()}, f"layer {QUERY} has values too large"),
        (pair() | pair(f"model.{COMFY}"), f"changes layer {QUERY} under two names"),
        (
            pair() | {f"{COMFY}.lora_down.weight": torch.ones(4, VIDEO_WIDTH)},
            f"holds a factor twice: {COMFY}.lora_A.weight, {COMFY}.lora_down.weight",
        ),
        (pair() | {f"{COMFY}.dora_scale": torch.ones(48)}, "uses DoRA, not plain low-rank pairs: "),
        ({f"{COMFY}.lokr_w1": torch.ones(4, 4), f"{COMFY}.lokr_w2": torch.ones(12, 12)}, "uses LoKr, not plain"),
        ({f"{COMFY}.hada_w1_a": torch.ones(4, 4)}, "uses LoHa, not plain"),
        ({f"{COMFY}.diff": torch.ones(4, 4)}, "holds whole changes of weights, not low-rank pairs"),
        ({f"model.{COMFY}.weight": torch.ones(4, 4)}, "is not a LoRA but perhaps a whole checkpoint"),
        ({}, "holds no tensors"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    assert message in refused(tmp_path, state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transformer.use_dora": True}, "sets use_dora, which is not supported"),
        ({"transformer.use_rslora": True}, "sets use_rslora, which is not supported"),
        ({"transformer.alpha_pattern": {"to_q": 3}}, "sets alpha_pattern, which is not supported"),
        ({"transformer.lora_alpha": "four"}, "has lora_alpha ['four'], expected one number above 0"),
        ({"transformer.lora_alpha": 1, "connectors.lora_alpha": [2]}, "has lora_alpha [1, [2]], expected one"),
        ([1], "is not a JSON object"),
    ],
)
def test_settings_that_change_the_meaning_are_refused(tmp_path: Path, settings: Any, message: str) -> None:
    assert message in refused(tmp_path, pair(), {"lora_adapter_metadata": json.dumps(settings)})


def test_a_checkpoint_in_the_place_of_a_lora(tmp_path: Path, small_model_dir: Path) -> None:
    checkpoint = next((small_model_dir / "diffusion_models").glob("*.safetensors"))
    with pytest.raises(LoraError, match="is not a LoRA but perhaps a whole checkpoint"):
        LoraFile(checkpoint, SHAPES)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def page(path: Path) -> None:
    path.write_text("<!doctype html><title>Sign in</title>")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "the file does not exist. Check the path"),
        (cut, "is truncated: "),
        (page, "is a web page (HTML), not a safetensors file"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = write_lora(tmp_path / "some.safetensors", draw_factors(SHAPES, STANDARD))
    damage(path)
    with pytest.raises(LoraError) as caught:
        LoraFile(path, SHAPES)
    assert message in str(caught.value)


def test_an_opened_file_outlives_its_name_and_notices_writing(tmp_path: Path) -> None:
    factors = draw_factors(SHAPES, STANDARD)
    path = write_lora(tmp_path / "some.safetensors", factors)
    lora = LoraFile(path, SHAPES)
    path.rename(tmp_path / "other.safetensors")
    write_lora(path, draw_factors(SHAPES, STANDARD, seed=1))
    assert torch.equal(lora.factors(QUERY)[0], factors[QUERY][0])
    with (tmp_path / "other.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    os.utime(tmp_path / "other.safetensors", ns=(1, 1))
    with pytest.raises(LoraError, match="was written to after it was opened"):
        lora.factors(QUERY)
    with (tmp_path / "other.safetensors").open("r+b") as file:
        file.truncate(200)
    with pytest.raises(LoraError, match="was written to after it was opened"):
        lora.factors(QUERY)


def test_the_same_file_is_the_same(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "some.safetensors", draw_factors(SHAPES, STANDARD))
    first, again = LoraFile(path, SHAPES), LoraFile(path, SHAPES)
    assert (first, hash(first)) == (again, hash(again))
    os.utime(path, ns=(1, 1))
    assert LoraFile(path, SHAPES) != first


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds open files through /proc")
def test_a_file_that_is_dropped_is_closed(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "some.safetensors", draw_factors(SHAPES, STANDARD))

    def is_open() -> bool:
        gc.collect()
        return str(path) in {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}

    lora: LoraFile | None = LoraFile(path, SHAPES)
    assert lora is not None
    assert is_open()
    del lora
    assert not is_open()
    with pytest.raises(LoraError):
        LoraFile(path, {"another.model": (3, 3)})
    assert not is_open()


def test_kinds_and_compatibility_need_no_torch() -> None:
    program = "import sys, scope_ltx.lora.compatibility, scope_ltx.lora.keys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


STYLE = LoraFacts("style.safetensors", "standard")
SOUND = LoraFacts("sound.safetensors", "audio_video")
POSE = LoraFacts("pose.safetensors", "in_context", downscale=2)
EDIT = LoraFacts("edit.safetensors", "in_context")
UPSCALE = LoraFacts("upscale.safetensors", "in_context", downscale=4)
VOICE = LoraFacts("voice.safetensors", "identity")
DISTILLED = LoraFacts("distilled.safetensors", "distillation")
TEXT = Mode("distilled", width=320, height=384)
VIDEO = replace(TEXT, reference_video=True)
DEV = replace(TEXT, base="dev")


@pytest.mark.parametrize(
    ("loras", "mode"),
    [
        ([], TEXT),
        ([STYLE, SOUND], TEXT),
        ([SOUND], replace(TEXT, audio="driving")),
        ([POSE, STYLE], VIDEO),
        ([POSE, EDIT], VIDEO),
        ([EDIT], replace(VIDEO, width=352, height=352)),
        ([VOICE], replace(TEXT, audio="identity")),
        ([VOICE, POSE], replace(VIDEO, audio="identity")),
        ([DISTILLED], DEV),
        ([DISTILLED, replace(EDIT, trained_for="distilled")], replace(VIDEO, base="dev")),
        ([replace(EDIT, trained_for="dev")], replace(VIDEO, base="dev")),
        ([STYLE], replace(TEXT, audio="off")),
        ([POSE], replace(VIDEO, width=384, stages=2)),
    ],
)
def test_sets_that_fit(loras: list[LoraFacts], mode: Mode) -> None:
    assert problems(loras, mode) == ()
    require_compatible(loras, mode)


@pytest.mark.parametrize(
    ("loras", "mode", "told"),
    [
        ([EDIT], TEXT, ["edit.safetensors is an in-context LoRA", "switch to video mode, or take it out"]),
        ([], VIDEO, ["A reference video needs an in-context LoRA, and no LoRA is loaded: add one"]),
        ([STYLE], VIDEO, ["A reference video needs an in-context LoRA, and style.safetensors is loaded"]),
        ([VOICE], TEXT, ["voice.safetensors is an ID-LoRA and needs a reference voice", "audio_mode to id_lora"]),
        ([STYLE], replace(TEXT, audio="identity"), ["id_lora needs an ID-LoRA, and style.safetensors is loaded"]),
        ([SOUND], replace(TEXT, audio="off"), ["sound.safetensors was trained on picture and sound", "audio on"]),
        (
            [DISTILLED],
            TEXT,
            ["distilled.safetensors is the distillation LoRA", "is distilled already: take it out"],
        ),
        (
            [replace(STYLE, trained_for="distilled")],
            DEV,
            ["style.safetensors works on the distilled model only", "add the distillation LoRA"],
        ),
        ([replace(STYLE, trained_for="dev")], TEXT, ["style.safetensors works on the dev checkpoint only"]),
        (
            [POSE, UPSCALE],
            VIDEO,
            [
                "references of different sizes: pose.safetensors (1/2), upscale.safetensors (1/4)",
                "all but one out",
            ],
        ),
        (
            [replace(EDIT, temporal_scale=2), replace(POSE, temporal_scale=3)],
            VIDEO,
            ["references of different frame rates: edit.safetensors (1/2), pose.safetensors (1/3)"],
        ),
        (
            [POSE],
            replace(VIDEO, width=352, height=384),
            ["pose.safetensors", "multiples of 64, got 352x384: use 320x384 or 384x384."],
        ),
        (
            [POSE],
            replace(VIDEO, width=32, height=96),
            ["got 32x96: use 64x64 or 64x128."],
        ),
        (
            [POSE],
            replace(VIDEO, width=320, stages=2),
            [
                "1/2 of the size at half size in the first stage",
                "multiples of 128, got 320x384: use 256x384 or 384x384",
            ],
        ),
    ],
)
def test_sets_that_do_not_fit(loras: list[LoraFacts], mode: Mode, told: list[str]) -> None:
    found = problems(loras, mode)
    assert len(found) == 1
    for part in told:
        assert part in found[0]
    with pytest.raises(UnsupportedError) as caught:
        require_compatible(loras, mode)
    assert str(caught.value) == found[0]


def test_every_problem_is_told_at_once() -> None:
    found = problems([VOICE, EDIT, SOUND, DISTILLED], replace(TEXT, audio="off"))
    assert [sentence.split()[0] for sentence in found] == [
        "edit.safetensors",
        "voice.safetensors",
        "sound.safetensors",
        "distilled.safetensors",
    ]


def test_lora_state_is_what_the_trainer_writes() -> None:
    state = lora_state(draw_factors(SHAPES, [QUERY]))
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {
        f"{COMFY}.lora_A.weight": (4, 48),
        f"{COMFY}.lora_B.weight": (48, 4),
    }
