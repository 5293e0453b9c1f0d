"""Guided sampling: which passes are made, their rule, the dev schedule, and what a change of steps costs."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scope_ltx.conditioning.sequence import TokenSequence, append, pin
from scope_ltx.models.text import TextContext
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.guidance import DEV_GUIDANCE, NO_GUIDANCE, Guidance, ModalityGuidance, Noisy, only_pass
from scope_ltx.sampling.loop import denoise
from scope_ltx.sampling.schedules import dev_sigmas, linear_sigmas
from scope_ltx.sampling.workspace import Pass, PassKind, Velocity
from scope_streaming.weights.graphs import Launch
from tests.tiny import AUDIO_WIDTH, VIDEO_WIDTH, tiny_transformer


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CONTEXT = TextContext(draw(1, 4, VIDEO_WIDTH, seed=41), draw(1, 4, AUDIO_WIDTH, seed=42))
NEGATIVE = TextContext(draw(1, 4, VIDEO_WIDTH, seed=43), draw(1, 4, AUDIO_WIDTH, seed=44))


def video(tokens: int = 6) -> TokenSequence:
    return TokenSequence(draw(1, tokens, 128), draw(1, 3, tokens, 2, seed=31))


def audio(tokens: int = 5, reference: int = 0) -> TokenSequence:
    target = TokenSequence(draw(1, tokens, 128, seed=1), draw(1, 1, tokens, 2, seed=32))
    if not reference:
        return target
    return append(target, draw(1, reference, 128, seed=2), draw(1, 1, reference, 2, seed=33) - 4, 1.0)


def kinds(guidance: Guidance, sound: TokenSequence | None = None) -> list[PassKind]:
    return [one.kind for one in guidance.plan(CONTEXT, video(), sound or audio(), NEGATIVE).passes]


def test_without_guidance_there_is_one_pass_and_its_prediction_is_taken_as_it_is() -> None:
    plan = NO_GUIDANCE.plan(CONTEXT, video(), audio())
    assert plan.passes == [Pass(CONTEXT)]
    assert plan.combine is only_pass
    prediction = Velocity(draw(1, 6, 128), draw(1, 5, 128))
    assert plan.combine([prediction], Noisy(draw(1, 6, 128), draw(1, 5, 128), 0.5)) is prediction


def test_each_kind_of_guidance_adds_one_pass() -> None:
    plain = PassKind(frozenset(), False, None, "both")
    some = ModalityGuidance(cfg=3.0, stg=1.0, modality=3.0)
    everything = Guidance(some, stg_blocks=(1, 2), stg_mode="video", identity=3.0)
    assert kinds(everything, audio(5, reference=2)) == [
        plain,
        plain,
        PassKind(frozenset({1, 2}), False, None, "video"),
        PassKind(frozenset(), True, None, "both"),
        PassKind(frozenset(), False, 5, "both"),
    ]
    contexts = [one.context for one in everything.plan(CONTEXT, video(), audio(5, 2), NEGATIVE).passes]
    assert [one is NEGATIVE for one in contexts] == [False, True, False, False, False]
    # The reference's defaults for the dev checkpoint make all but the identity pass.
    assert len(kinds(DEV_GUIDANCE)) == 4
    assert DEV_GUIDANCE.needs_negative
    # Guidance of one modality costs a pass for both.
    assert len(kinds(Guidance(audio=ModalityGuidance(modality=2.0)))) == 2


def test_guidance_that_lacks_something_is_refused() -> None:
    with pytest.raises(ValueError, match="negative prompt"):
        DEV_GUIDANCE.plan(CONTEXT, video(), audio())
    with pytest.raises(ValueError, match="at least one block in stg_blocks, got none"):
        Guidance(ModalityGuidance(stg=1.0))
    with pytest.raises(ValueError, match=r"rescale must be within 0..1, got 1\.5"):
        Guidance(ModalityGuidance(rescale=1.5))
    with pytest.raises(ValueError, match="without reference sound: there is none"):
        Guidance(identity=3.0).plan(CONTEXT, video(), audio())


def test_blocks_that_the_model_does_not_have_are_not_perturbed_in_silence() -> None:
    denoiser = Denoiser(tiny_transformer(2))
    plan = Guidance(ModalityGuidance(stg=1.0), stg_blocks=(1, 28)).plan(CONTEXT, video(), audio())
    with pytest.raises(ValueError, match=r"blocks are 0\.\.1, got \[28\] to perturb"):
        denoiser.prepare(video(), audio(), plan.passes, (1.0, 0.0))


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations for which the host waits for the device."""

    NAMES = ("_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@settings(deadline=None, max_examples=60)
@given(
    scales=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 3),
    rescale=st.sampled_from([0.0, 0.4, 1.0]),
    identity=st.sampled_from([0.0, 2.5]),
    strength=st.sampled_from([None, 0.0, 0.4, 1.0]),
    sigma=st.sampled_from([1.0, 0.3]),
)
def test_the_rule_is_the_one_of_clean_latents(
    scales: tuple[float, float, float], rescale: float, identity: float, strength: float | None, sigma: float
) -> None:
    """In float64 and in the space of clean latents, against velocities in float32."""
    cfg, stg, modality = scales
    each = ModalityGuidance(cfg, stg, modality, rescale)
    guidance = Guidance(each, each, stg_blocks=(1,), identity=identity)
    picture, sound = video(), audio(5, reference=3)
    if strength is not None:
        picture = pin(picture, draw(1, 2, 128, seed=3), 0, strength)
    plan = guidance.plan(CONTEXT, picture, sound, NEGATIVE)
    of_audio = [one.audio_tokens or sound.tokens for one in plan.passes]
    predictions = [
        Velocity(draw(1, 6, 128, seed=4 + i), draw(1, tokens, 128, seed=14 + i))
        for i, tokens in enumerate(of_audio)
    ]
    clean = {}
    for name, sequence in (("video", picture), ("audio", sound)):
        x = sequence.latents.double()
        mask = torch.ones(1, 1, 1) if sequence.denoise_mask is None else sequence.denoise_mask
        level = mask.double().expand(1, sequence.tokens, 1) * sigma
        x0 = [
            x[:, : v.shape[1]] - level[:, : v.shape[1]] * v.double()
            for v in (getattr(one, name) for one in predictions)
        ]
        others = iter(x0[1:])
        guided = x0[0].clone()
        for weight in (cfg - 1, stg, modality - 1):
            if weight:
                guided += weight * (x0[0] - next(others))
        if rescale and len(plan.passes) > 1:
            guided *= rescale * x0[0].std() / guided.std() + 1 - rescale
        if identity and name == "audio":
            guided[:, :5] += identity * (x0[0][:, :5] - next(others))
        clean[name] = guided
    with HostReads() as reads:
        result = plan.combine(predictions, Noisy(picture.latents, sound.latents, sigma))
    assert reads.names == []
    for name, sequence, velocity in (("video", picture, result.video), ("audio", sound, result.audio)):
        mask = torch.ones(1, 1, 1) if sequence.denoise_mask is None else sequence.denoise_mask
        assert bool(velocity.isfinite().all())
        ours = (sequence.latents - mask * sigma * velocity) * mask
        torch.testing.assert_close(ours.double(), clean[name] * mask, rtol=1e-4, atol=1e-4)


class KeyedRunner:
    """Launches everything; remembers what a graph runner would have captured."""

    name = "keyed"

    def __init__(self) -> None:
        self.keys: set[Hashable] = set()

    def run(self, key: Hashable, launch: Launch, *, warm: bool = False) -> None:
        self.keys.add(key)
        launch()

    def replays(self, key: Hashable) -> bool:
        return key in self.keys

    def forget(self, group: Hashable = None) -> None:
        self.keys = {key for key in self.keys if group is not None and not self._is_of(key, group)}

    @staticmethod
    def _is_of(key: Hashable, group: Hashable) -> bool:
        return isinstance(key, tuple) and key[0] == group


@torch.inference_mode()
def test_another_number_of_steps_or_strength_captures_nothing_anew() -> None:
    torch.manual_seed(0)
    transformer = tiny_transformer(2).eval()
    runner = KeyedRunner()
    denoiser = Denoiser(transformer, None, runner)

    def captured(steps: int, *strengths: float) -> int:
        picture = video()
        for place, strength in enumerate(strengths):
            picture = pin(picture, draw(1, 1, 128, seed=3), place, strength)
        before = len(runner.keys)
        ours = denoise(denoiser, picture, audio(), [Pass(CONTEXT)], linear_sigmas(steps))
        alone = denoise(Denoiser(transformer), picture, audio(), [Pass(CONTEXT)], linear_sigmas(steps))
        assert torch.equal(ours[0], alone[0]), "what is left in the tables from before must not be read"
        return len(runner.keys) - before

    one_shape = 3  # its start, its blocks in one run, its heads
    assert captured(8) == one_shape
    assert [captured(steps) for steps in (1, 3, 7)] == [0, 0, 0]
    assert captured(4, 1.0) == one_shape, "pinned tokens have levels of their own"
    assert [captured(steps, 0.6, 0.3) for steps in (8, 2)] == [0, 0]
    runner.keys.clear()
    assert captured(9, 0.5) == one_shape
    assert [captured(steps, 0.5) for steps in (16, 12)] == [0, 0]


def test_sound_without_its_reference_is_as_if_there_were_none() -> None:
    """The pass of identity guidance. Which kernels multiply depends on the shape and on the processor: over 60
    seeds the two ways differed by up to 9.5e-7, and with and without the reference by at least 0.09."""
    torch.manual_seed(0)
    denoiser = Denoiser(tiny_transformer(2).eval())
    with_reference, sigmas = audio(5, reference=3), linear_sigmas(2)
    with torch.inference_mode():
        one = Pass(CONTEXT, audio_tokens=5)
        prepared = denoiser.prepare(video(), with_reference, [Pass(CONTEXT), one], sigmas)
        latents = video().latents, with_reference.latents
        heard, unheard = (
            Velocity(v.video.clone(), v.audio.clone())
            for v in denoiser.velocities(prepared, *latents, 1, _never())
        )
        # A mask of ones gives the target the same per-token form of its levels.
        target = audio(5)
        ones = TokenSequence(target.latents, target.coords, torch.ones(1, 5, 1), torch.zeros_like(target.latents))
        coords = TokenSequence(ones.latents, with_reference.coords[:, :, :5], ones.denoise_mask, ones.clean)
        prepared = denoiser.prepare(video(), coords, [Pass(CONTEXT)], sigmas)
        (alone,) = denoiser.velocities(prepared, video().latents, coords.latents, 1, _never())
    assert unheard.audio.shape == (1, 5, 128)
    torch.testing.assert_close(unheard.audio, alone.audio, rtol=0, atol=1e-5)
    torch.testing.assert_close(unheard.video, alone.video, rtol=0, atol=1e-5)
    assert float((heard.audio[:, :5] - unheard.audio).abs().max()) > 1e-2, "the reference must be heard"


def _never() -> Any:
    class Never:
        def is_set(self) -> bool:
            return False

    return Never()


DEV = {
    4: (1, 0.867083, 0.631569, 0.1, 0),
    8: (1, 0.965712, 0.921875, 0.863856, 0.783445, 0.664579, 0.471003, 0.1, 0),
    15: "1 .98725 .972823 .956368 .937421 .915374 .889394 .858329 .820523 .773514 .713477 .634123 .524345 .362494 "
    ".1 0",
    30: "1 .994957 .989603 .983908 .97784 .971358 .964421 .956978 .948972 .940336 .930994 .920854 .90981 .897735 "
    ".884479 .869858 .853651 .835584 .815319 .792427 .766363 .736418 .701656 .660813 .612141 .553148 .480164 "
    ".387541 .26612 .1 0",
}


@pytest.mark.parametrize("steps", DEV)
def test_dev_schedule_has_the_reference_values(steps: int) -> None:
    expected = DEV[steps]
    values = [float(one) for one in expected.split()] if isinstance(expected, str) else expected
    assert dev_sigmas(steps) == pytest.approx(values, abs=6e-7)


@given(steps=st.integers(1, 100))
def test_dev_schedule_descends_from_1_to_exactly_0(steps: int) -> None:
    sigmas = dev_sigmas(steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert all(high > low for high, low in pairwise(sigmas))
    assert all(type(sigma) is float for sigma in sigmas)
    assert steps == 1 or sigmas[-2] == pytest.approx(0.1)


def test_dev_schedule_needs_a_step() -> None:
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        dev_sigmas(0)
