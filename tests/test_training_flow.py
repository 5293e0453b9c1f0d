"""What the transformer is trained on, and what its steps promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from scope_ltx.config import LTX2Config
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.schedules import DISTILLED_SIGMAS
from scope_quant.fp8 import dequantize, quantize_per_tensor
from training.bank import Bank, Job, Kind, jobs, save
from training.clips import Clips
from training.conditions import GENERATED, GIVEN, Conditioner, Shares, noised, token_shares, weighted_error
from training.distill import Distiller, level_weights, run
from training.lora import draws_of
from training.masters import Masters, orthogonal, round_to_fp8
from training.stage import Budget, Stage
from training.text import SLOTS
from training.transformer import Course
from training.walk import Walk

CONFIG = LTX2Config(height=64, width=64, num_frames=49)
GEOMETRY = ChunkGeometry.of(CONFIG)
BATCH = 16
NOTHING = Shares(first_frame=0.0, beginning=0.0, driving=0.0, partly=0.0, guide_partly=0.0, no_caption=0.0)


def clips_of(count: int, **behind: Tensor) -> Clips:
    generator = torch.Generator().manual_seed(1)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).bfloat16()

    return Clips(
        GEOMETRY,
        values(count, GEOMETRY.video_tokens, 3),
        values(count, GEOMETRY.audio_tokens, 4),
        values(count, 3, SLOTS, 8),
        torch.full((count, 3), 7),
        **behind,
    )


def conditioner(shares: Shares, **behind: Tensor) -> Conditioner:
    empty = torch.zeros(1, SLOTS, 8).bfloat16(), torch.tensor([1])
    return Conditioner(clips_of(5, **behind), BATCH, empty, torch.Generator().manual_seed(2), shares)


def test_without_conditions_everything_is_generated() -> None:
    drawn = conditioner(NOTHING).draw()
    assert bool((drawn["video_share_of"] == GENERATED).all())
    assert bool((drawn["audio_share_of"] == GENERATED).all())
    assert bool((drawn["lengths"] == 7).all())
    assert not bool(drawn["driven"].any())


def test_a_first_frame_is_the_first_latent_frame_alone() -> None:
    drawn = conditioner(Shares(first_frame=1.0, beginning=0.0, driving=0.0, partly=0.0)).draw()
    still = GEOMETRY.latent_height * GEOMETRY.latent_width
    assert bool((drawn["video_share_of"][:, :still] == GIVEN).all())
    assert bool((drawn["video_share_of"][:, still:] == GENERATED).all())
    assert bool((drawn["audio_share_of"] == GENERATED).all())


def test_driving_sound_is_given_whole_and_has_no_noise_level() -> None:
    drawn = conditioner(Shares(first_frame=0.0, beginning=0.0, driving=1.0)).draw()
    inputs = noised(drawn, torch.full((BATCH,), 0.5))
    assert bool((inputs["audio_sigma"] == 0).all())
    assert bool((inputs["sigma"] == 0.5).all())
    assert torch.equal(inputs["audio"][..., :4], drawn["clean_audio"])
    assert bool((inputs["audio_weight"] == 0).all())


def test_a_beginning_gives_picture_and_sound_of_the_same_time() -> None:
    drawn = conditioner(Shares(first_frame=0.0, beginning=1.0, driving=0.0)).draw()
    still = GEOMETRY.latent_height * GEOMETRY.latent_width
    frames = (drawn["video_share_of"] == GIVEN).sum(1) / still
    sound = (drawn["audio_share_of"] == GIVEN).sum(1)
    assert set(frames.tolist()) == {1.0, 2.0}
    # Nine frames at 24 fps last 375 ms: 37 mel frames, of which ten tokens are final.
    assert set(sound[frames == 1].tolist()) == {0}
    assert set(sound[frames == 2].tolist()) == {10}


def test_what_a_lora_looks_at_comes_last_and_is_given() -> None:
    guide = torch.randn(5, 6, 3).bfloat16()
    drawn = conditioner(NOTHING, guide=guide).draw()
    assert bool((drawn["video_share_of"][:, -6:] == GIVEN).all())
    assert bool((drawn["video_share_of"][:, :-6] == GENERATED).all())
    assert all(any(torch.equal(row, one.float()) for one in guide) for row in drawn["clean_video"][:, -6:])
    assert drawn["noise_video"].shape == drawn["clean_video"].shape


@settings(max_examples=20, deadline=None)
@given(sigma=st.floats(0.01, 1.0))
def test_the_true_velocity_has_no_error_and_undoes_the_noise(sigma: float) -> None:
    drawn = conditioner(Shares()).draw()
    inputs = noised(drawn, torch.full((BATCH,), sigma))
    target, share = inputs["video_target"], token_shares(drawn, "video")
    assert float(weighted_error(target, target, share).max()) == 0.0
    restored = inputs["video"][..., :3] - (share * sigma)[..., None] * target
    assert torch.allclose(restored, drawn["clean_video"], atol=1e-5)


def test_a_walk_visits_every_level_in_order_and_begins_anew_at_noise() -> None:
    walk = Walk(conditioner(NOTHING), torch.device("cpu"))
    seen = []
    for _ in range(len(DISTILLED_SIGMAS)):
        now = walk.now()
        seen.append(now["sigma"][0].item())
        assert bool((now["next_sigma"] < now["sigma"]).all())
        walk.advance(now["video"] * 0, now["audio"] * 0)
    assert seen[:-1] == pytest.approx(DISTILLED_SIGMAS[:-1])
    assert seen[-1] == 1.0
    last = walk.now()
    assert 0.9 < float(last["video"][last["sigma"] == 1.0].std()) < 1.1
    assert not bool(last["video"][last["sigma"] < 1.0].any())


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_a_level_counts_by_its_span_and_all_of_them_one_in_the_mean(power: float) -> None:
    levels = torch.tensor(DISTILLED_SIGMAS)
    weights = level_weights(levels[:-1], levels[1:], power)
    assert float(weights.mean()) == pytest.approx(1.0)
    last, third_last = weights[-1], weights[-3]
    spans = (levels[:-1] - levels[1:])[[-1, -3]]
    assert float(last / third_last) == pytest.approx(float(spans[0] / spans[1]) ** power)


@given(share=st.floats(0.0, 1.0), kind=st.sampled_from(["identity", "control", "striped"]))
def test_a_lora_is_trained_on_the_sizes_asked_for_and_identity_also_on_clips_without_a_voice(
    share: float, kind: Kind
) -> None:
    draws = draws_of(kind, share)
    assert sum(draw.share for draw in draws) == pytest.approx(1.0)
    assert sum(draw.share for draw in draws if draw.size == "full") == pytest.approx(share)
    unheard = sum(draw.share for draw in draws if not draw.voices)
    assert 0.1 < unheard < 0.4 if kind == "identity" else unheard == pytest.approx(1.0)


def test_a_voice_is_left_out_where_none_is_to_be_heard() -> None:
    clips, empty = (
        clips_of(5, voice=torch.randn(5, 6, 4)),
        (torch.zeros(1, SLOTS, 8).bfloat16(), torch.tensor([1])),
    )
    heard, unheard = (
        Conditioner(clips, BATCH, empty, torch.Generator().manual_seed(2), NOTHING, voices=voices).draw()
        for voices in (True, False)
    )
    assert heard["clean_audio"].shape[1] == GEOMETRY.audio_tokens + 6
    assert unheard["clean_audio"].shape[1] == GEOMETRY.audio_tokens


def test_courses_that_share_a_bank_take_up_its_clips_alike(tmp_path: Path) -> None:
    save(tmp_path, Job("base", "small", 0), clips_of(3))
    bank = Bank(tmp_path, "base", "small", torch.device("cpu"))
    courses = [Course(conditioner(NOTHING), cast(Any, None), bank) for _ in range(2)]
    for course in courses:
        course.pick_up()
    assert [len(course.conditioner.clips) for course in courses] == [3, 3]


class FakeBank:
    """Lends one more clip each time."""

    clips: Clips | None = None

    def pick_up(self) -> bool:
        have = 5 if self.clips is None else len(self.clips) + 1
        self.clips = clips_of(have)
        return True


class FakeDistiller:
    """Learns nothing, and notes how many clips there are to draw from."""

    def __init__(self, course: Course) -> None:
        self.courses = [course]
        self.masters = masters_of(small_module())
        self.seen: list[int] = []

    def step(self, which: int, rate: float) -> tuple[Tensor, Tensor]:
        self.seen.append(len(self.courses[which].conditioner.clips))
        return torch.ones(2, 3), torch.tensor([1.0, 0.725, 0.421875])


def test_distillation_takes_up_clips_that_are_made_meanwhile(tmp_path: Path) -> None:
    stage = Stage("distill", tmp_path, torch.device("cpu"), Budget(steps=6))
    distiller = FakeDistiller(Course(conditioner(NOTHING), cast(Any, None), cast(Any, FakeBank())))
    weights = tmp_path / "distilled.safetensors"
    run(stage, cast(Distiller, distiller), weights, cast(Any, small_module()), 0.0, every=2)
    assert distiller.seen == [5, 5, 5, 5, 6, 6]
    assert set(load_file(weights)) == set(distiller.masters.mean())
    line = json.loads((tmp_path / "distill.jsonl").read_text().splitlines()[-1])
    assert line["video_to_0.421875"] == line["audio_to_1"] == 1.0
    assert line["video_to_0.909375"] == 0.0


def small_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def masters_of(module: nn.Module) -> Masters:
    named = dict(module.named_parameters())
    masters = Masters(named, muon=lambda _, weight: weight.shape == (8, 6), fp8=lambda *_: False)
    masters.rate.fill_(0.3)
    return masters


def train(module: nn.Module, masters: Masters, steps: int) -> list[float]:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(4))
    losses = []
    for _ in range(steps):
        masters.place()
        loss = (module(x)[:, 0] - x[:, 0] * x[:, 1]).square().mean()
        loss.backward()
        masters.update()
        losses.append(float(loss.detach()))
    return losses


def test_masters_learn() -> None:
    module = small_module()
    losses = train(module, masters_of(module), 300)
    assert losses[-1] < 0.6 * losses[0]


def test_masters_go_on_where_they_were() -> None:
    module, other = small_module(), small_module()
    masters = masters_of(module)
    train(module, masters, 5)
    resumed = masters_of(other)
    resumed.restore(masters.state())
    assert train(module, masters, 5) == train(other, resumed, 5)


def test_a_weight_without_a_gradient_is_an_error() -> None:
    module = small_module()
    with pytest.raises(RuntimeError, match="takes no part in the loss"):
        masters_of(module).update()


def test_training_rounds_to_fp8_as_the_file_does() -> None:
    weights = torch.randn(3, 16, 24)
    for weight, rounded in zip(weights, round_to_fp8(weights), strict=True):
        published = quantize_per_tensor(weight)
        assert torch.allclose(rounded, dequantize(published.data, published.scale, torch.float32), rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(2, 20), columns=st.integers(2, 20))
def test_orthogonalised_updates_have_even_singular_values(rows: int, columns: int) -> None:
    matrix = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(rows * 100 + columns))
    values = torch.linalg.svdvals(orthogonal(matrix)[0])
    large = torch.linalg.svdvals(matrix[0])
    # Five iterations bring everything that is not tiny to within about 0.7 to 1.2.
    assert bool((values[large > 0.1 * large.max()] > 0.5).all())
    assert float(values.max()) < 1.4


def test_every_worker_makes_shards_of_its_own_and_sizes_advance_together() -> None:
    all_jobs = jobs({"small": 1024, "full": 256}, {"small": 256, "full": 64}, ["control", "identity"])
    assert len(set(all_jobs)) == len(all_jobs) == 4 + 4 + 2 * 2
    assert all_jobs[0].index == all_jobs[1].index == 0
    assert {all_jobs[0].size, all_jobs[1].size} == {"small", "full"}
    assert [job.kind for job in all_jobs[:8]] == ["base"] * 8
    assert Job("control", "full", 3).name == "control-full-0003.pt"
