"""Conditioned and guided generation through our driver and through diffusers' own LTX-2.3 pipelines.

Decisions of ours (or of Lightricks' reference) against diffusers are fed to diffusers and named:
D1   gates see the other modality's scalar sigma: a pre-hook on diffusers' two gate modules.
D8   a partly pinned token's clean value is x - mask sigma v: a pipeline that multiplies by the mask.
D10  attention strength w is a bias of log(w): a pre-hook on diffusers' video self-attentions.
D11  the dev schedule's shift is constant: the sigmas are given.
D21  a pin at frame 8 k is a keyframe token there. diffusers counts in latents, which makes it frame 8 k - 7:
     a pipeline that adds the difference. (Both supported versions of diffusers append.)
Where diffusers has no such mode, `plain_denoise` is the reference: each pass is a call of its transformer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx2 import (
    LTX2ConditionPipeline,
    LTX2ImageToVideoPipeline,
    LTX2InContextPipeline,
    LTX2Pipeline,
)
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from torch import Tensor

from scope_ltx.conditioning.pins import FramePin, apply_pins
from scope_ltx.conditioning.reference import VideoReference, append_reference
from scope_ltx.conditioning.sequence import TokenSequence, append, freeze
from scope_ltx.config import LTX2Config
from scope_ltx.models.text import PromptEncoder, TextContext
from scope_ltx.models.video_encoder import VideoEncoder
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import ChunkGeometry, latent_grid
from scope_ltx.sampling.guidance import NO_GUIDANCE, Guidance, ModalityGuidance
from scope_ltx.sampling.loop import denoise
from scope_ltx.sampling.schedules import dev_sigmas
from scope_ltx.sampling.workspace import Pass
from tests.test_fidelity import PaddingTokenizer, relative_error
from tests.tiny import TinyParts, tiny_parts

PROMPT, NEGATIVE = "a red ball slides right", "blurry"
CONFIG = LTX2Config(height=64, width=128, num_frames=17)
GEOMETRY = ChunkGeometry.of(CONFIG)
SIGMAS = (1.0, 0.725, 0.421875, 0.0)
BOUND = 1e-5

Pair = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def parts() -> TinyParts:
    made = tiny_parts()
    # As in the published file: counted from its stages, diffusers takes the class for one of 64 and 16.
    made.video_vae.spatial_compression_ratio, made.video_vae.temporal_compression_ratio = 32, 8
    return made


@pytest.fixture(scope="module")
def contexts(parts: TinyParts) -> tuple[TextContext, TextContext]:
    with torch.inference_mode():
        encoder = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors)
        return encoder.encode(PROMPT), encoder.encode(NEGATIVE)


@pytest.fixture
def denoiser(parts: TinyParts) -> Denoiser:
    return Denoiser(parts.transformer)


@pytest.fixture
def reference(parts: TinyParts) -> Iterator[None]:
    """D1 while a test runs."""
    with reference_gates(parts.transformer):
        yield


@contextmanager
def reference_gates(transformer: Any) -> Iterator[None]:
    sigmas: dict[str, Tensor] = {}

    def remember(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sigmas["video"] = kwargs["sigma"]
        audio = kwargs.get("audio_sigma")
        sigmas["audio"] = kwargs["sigma"] if audio is None else audio

    def forget(*_: Any) -> None:
        # Our driver calls the gate modules by itself, with the right sigmas.
        sigmas.clear()

    def feed(modality: str) -> Callable[[Any, tuple[Any, ...]], tuple[Any, ...] | None]:
        return lambda _, args: (sigmas[modality], *args[1:]) if sigmas else None

    handles = [
        transformer.register_forward_pre_hook(remember, with_kwargs=True),
        transformer.register_forward_hook(forget),
        transformer.av_cross_attn_video_a2v_gate.register_forward_pre_hook(feed("audio")),
        transformer.av_cross_attn_audio_v2a_gate.register_forward_pre_hook(feed("video")),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def frames(count: int, height: int, width: int, seed: int) -> Tensor:
    """Noise with a gradient: (F, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 128, (count, height, width, 3), generator=generator)
    return (noise + torch.linspace(0, 127, width)[:, None].int()).to(torch.uint8)


def images(clip: Tensor) -> list[PIL.Image.Image]:
    return [PIL.Image.fromarray(one.numpy()) for one in clip]


class Noise:
    """Drawn in order from one seed, as diffusers draws it: video tokens, what is appended to them, audio."""

    def __init__(self, seed: int = 5) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, tokens: int) -> Tensor:
        return torch.randn(1, tokens, 128, generator=self.generator)


def video_sequence(denoiser: Denoiser, noise: Noise) -> TokenSequence:
    coords = denoiser.video_coords(*GEOMETRY.grid, CONFIG.frame_rate)
    return TokenSequence(noise(GEOMETRY.video_tokens), coords)


def audio_sequence(denoiser: Denoiser, noise: Noise) -> TokenSequence:
    return TokenSequence(noise(GEOMETRY.audio_tokens), denoiser.audio_coords(GEOMETRY.audio_tokens))


def pinned(denoiser: Denoiser, video: TokenSequence, pins: list[FramePin], noise: Noise) -> TokenSequence:
    return apply_pins(video, pins, GEOMETRY.grid, CONFIG.frame_rate, denoiser.video_coords, noise)


def diffusers_result(
    parts: TinyParts, kind: Any, sigmas: Sequence[float] = SIGMAS, guidance: Guidance = NO_GUIDANCE, **inputs: Any
) -> Pair:
    """Normalised tokens after diffusers' own loop, its noise drawn from the seed of `Noise`."""
    pipeline = kind(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=False, shift_terminal=None),
        vae=parts.video_vae,
        audio_vae=parts.audio_vae,
        text_encoder=parts.text_encoder,
        tokenizer=None,
        connectors=parts.connectors,
        transformer=parts.transformer,
        vocoder=parts.vocoder,
    )
    pipeline.tokenizer = PaddingTokenizer(parts.tokenizer)
    pipeline.set_progress_bar_config(disable=True)
    video, audio = pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=CONFIG.height,
        width=CONFIG.width,
        num_frames=CONFIG.num_frames,
        frame_rate=CONFIG.frame_rate,
        sigmas=list(sigmas[:-1]),
        guidance_scale=guidance.video.cfg,
        stg_scale=guidance.video.stg,
        modality_scale=guidance.video.modality,
        guidance_rescale=guidance.video.rescale,
        audio_guidance_scale=guidance.audio.cfg,
        audio_stg_scale=guidance.audio.stg,
        audio_modality_scale=guidance.audio.modality,
        audio_guidance_rescale=guidance.audio.rescale,
        spatio_temporal_guidance_blocks=list(guidance.stg_blocks),
        noise_scale=1.0,
        generator=torch.Generator().manual_seed(5),
        # D5: only their number counts, all of them are noise at the first level.
        audio_latents=torch.zeros(1, 8, GEOMETRY.audio_tokens, 16),
        output_type="latent",
        return_dict=False,
        use_cross_timestep=False,
        **inputs,
    )
    tokens = video.flatten(2).transpose(1, 2), audio.transpose(1, 2).flatten(2)
    picture, sound = (
        (one - vae.latents_mean) / vae.latents_std
        for one, vae in zip(tokens, (parts.video_vae, parts.audio_vae), strict=True)
    )
    return picture, sound


def assert_same(ours: Pair, theirs: Pair) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert relative_error(one, other) < BOUND


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 9])
def test_encoded_frames_match_diffusers(parts: TinyParts, count: int) -> None:
    clip = frames(count, 64, 96, seed=1)
    ours = VideoEncoder(parts.video_vae).encode(clip)
    pixels = clip.permute(3, 0, 1, 2)[None] / 255 * 2 - 1
    vae = parts.video_vae
    mode = vae.encode(pixels).latent_dist.mode()
    theirs = LTX2Pipeline._normalize_latents(mode, vae.latents_mean, vae.latents_std)
    assert ours.shape[1] == np.prod(latent_grid(count, 64, 96))
    assert relative_error(ours, LTX2Pipeline._pack_latents(theirs)) < BOUND


@torch.inference_mode()
@pytest.mark.usefixtures("reference")
def test_image_to_video_matches_diffusers(
    parts: TinyParts, denoiser: Denoiser, contexts: tuple[TextContext, TextContext]
) -> None:
    clip = frames(1, 64, 128, seed=2)
    generator = torch.Generator().manual_seed(5)
    # This pipeline draws its noise as a volume.
    volume = torch.randn(1, 128, *GEOMETRY.grid, generator=generator)
    audio_noise = torch.randn(1, GEOMETRY.audio_tokens, 128, generator=generator)
    coords = denoiser.video_coords(*GEOMETRY.grid, CONFIG.frame_rate)
    video = TokenSequence(volume.flatten(2).transpose(1, 2), coords)
    still = VideoEncoder(parts.video_vae).encode(clip)
    video = pinned(denoiser, video, [FramePin(still, 0)], Noise())
    audio = TokenSequence(audio_noise, denoiser.audio_coords(GEOMETRY.audio_tokens))
    ours = denoise(denoiser, video, audio, [Pass(contexts[0])], SIGMAS)
    # D7 belongs to the preparation of images: no recompression on either side. Versions before 0.42 have none.
    crf: dict[str, Any] = {"image_crf": 0} if _accepts(LTX2ImageToVideoPipeline.__call__, "image_crf") else {}
    assert_same(ours, diffusers_result(parts, LTX2ImageToVideoPipeline, image=images(clip)[0], **crf))
    assert torch.equal(ours[0][:, : still.shape[1]], still)


def _accepts(function: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(function).parameters


def reference_class(base: Any, mask: Tensor | None) -> Any:
    """A diffusers pipeline with D8 (the video's denoise mask) and D21."""

    class Reference(base):  # type: ignore[misc]
        def convert_velocity_to_x0(self, sample: Tensor, velocity: Tensor, *args: Any) -> Tensor:
            if mask is not None and sample.shape[1] == mask.shape[1]:
                velocity = velocity * mask
            result: Tensor = super().convert_velocity_to_x0(sample, velocity, *args)
            return result

        def _prepare_keyframe_coords(self, *, pixel_frame_idx: int, **others: Any) -> Tensor:
            result: Tensor = super()._prepare_keyframe_coords(pixel_frame_idx=pixel_frame_idx + 7, **others)
            return result

    return Reference


def condition(clip: Tensor, index: int, strength: float) -> Any:
    made = LTX2VideoCondition(images(clip), index=index, strength=strength)
    if hasattr(made, "crf"):
        made.crf = 0
    return made


@torch.inference_mode()
@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize(
    "pins", [[(0, 1.0)], [(0, 0.7)], [(8, 1.0)], [(16, 0.6)], [(0, 0.9), (8, 0.5), (16, 1.0)]], ids=str
)
def test_pins_match_the_condition_pipeline(
    parts: TinyParts,
    denoiser: Denoiser,
    contexts: tuple[TextContext, TextContext],
    pins: list[tuple[int, float]],
) -> None:
    clips = [frames(1, 64, 128, seed=10 + index) for index, _ in pins]
    encoder = VideoEncoder(parts.video_vae)
    stills = [FramePin(encoder.encode(clip), *one) for clip, one in zip(clips, pins, strict=True)]
    noise = Noise()

    video = video_sequence(denoiser, noise)
    for still in stills:
        before = video.tokens
        video = pinned(denoiser, video, [still], noise)
        if video.tokens > before and still.strength == 1.0:
            # diffusers draws noise for kept tokens too.
            noise(video.tokens - before)
    audio = audio_sequence(denoiser, noise)
    ours = denoise(denoiser, video, audio, [Pass(contexts[0])], SIGMAS)
    theirs = diffusers_result(
        parts,
        reference_class(LTX2ConditionPipeline, video.denoise_mask),
        conditions=[
            condition(clip, index // 8, strength) for clip, (index, strength) in zip(clips, pins, strict=True)
        ],
    )
    assert_same(ours, theirs)


@torch.inference_mode()
@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("downscale", [1, 2])
@pytest.mark.parametrize("references", [1, 2])
def test_references_match_the_in_context_pipeline(
    parts: TinyParts,
    denoiser: Denoiser,
    contexts: tuple[TextContext, TextContext],
    downscale: int,
    references: int,
) -> None:
    clips = [frames(17 - 8 * i, 64 // downscale, 128 // downscale, seed=20 + i) for i in range(references)]
    still = frames(1, 64, 128, seed=30)
    encoder, noise = VideoEncoder(parts.video_vae), Noise()
    video = video_sequence(denoiser, noise)
    pins = [FramePin(encoder.encode(still), 0, 0.8), FramePin(encoder.encode(still), 8)]
    video = pinned(denoiser, video, pins, noise)
    noise(video.tokens - video.target_tokens)
    for clip in clips:
        made = VideoReference(
            encoder.encode(clip), latent_grid(*clip.shape[:3]), downscale=downscale, strength=0.75
        )
        video = append_reference(video, made, CONFIG.frame_rate, denoiser.video_coords, noise)
    audio = audio_sequence(denoiser, noise)
    guidance = Guidance(ModalityGuidance(cfg=2.0), ModalityGuidance(cfg=2.5))
    plan = guidance.plan(contexts[0], video, audio, contexts[1])
    ours = denoise(denoiser, video, audio, plan.passes, SIGMAS, combine=plan.combine)
    theirs = diffusers_result(
        parts,
        reference_class(LTX2InContextPipeline, video.denoise_mask),
        guidance=guidance,
        conditions=[condition(still, 0, 0.8), condition(still, 1, 1.0)],
        reference_conditions=[LTX2ReferenceCondition(images(clip), strength=0.75) for clip in clips],
        reference_downscale_factor=downscale,
    )
    assert_same(ours, theirs)


FULL = Guidance(
    ModalityGuidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7),
    ModalityGuidance(cfg=7.0, stg=0.5, modality=2.0, rescale=0.4),
    stg_blocks=(1,),
)


@torch.inference_mode()
@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize(
    "guidance",
    [
        Guidance(ModalityGuidance(cfg=4.0), ModalityGuidance(cfg=4.0)),
        Guidance(ModalityGuidance(stg=1.0), ModalityGuidance(stg=2.0), stg_blocks=(0, 2)),
        FULL,
    ],
    ids=["cfg", "stg", "all"],
)
def test_guidance_matches_diffusers(
    parts: TinyParts, denoiser: Denoiser, contexts: tuple[TextContext, TextContext], guidance: Guidance
) -> None:
    noise, sigmas = Noise(), dev_sigmas(3)
    video, audio = video_sequence(denoiser, noise), audio_sequence(denoiser, noise)
    plan = guidance.plan(contexts[0], video, audio, contexts[1])
    ours = denoise(denoiser, video, audio, plan.passes, sigmas, combine=plan.combine)
    zeros = torch.zeros(1, 128, *GEOMETRY.grid)
    assert_same(ours, diffusers_result(parts, LTX2Pipeline, sigmas, guidance, latents=zeros))
    unguided = denoise(denoiser, video, audio, [Pass(contexts[0])], sigmas)
    assert relative_error(ours[0], unguided[0]) > 1e-3, "guidance must matter"


@dataclass(frozen=True)
class Call:
    """One call of diffusers' transformer within a step of `plain_denoise`."""

    context: TextContext
    audio_tokens: int | None = None
    isolated: bool = False
    stg_blocks: tuple[int, ...] = ()


Rule = Callable[[list[Pair]], Pair]
"""Clean predictions of every call -> the guided ones, in the space of clean latents."""


def plain_denoise(
    transformer: Any,
    video: TokenSequence,
    audio: TokenSequence,
    calls: Sequence[Call],
    rule: Rule,
    sigmas: Sequence[float] = SIGMAS,
) -> Pair:
    """The reference's loop, step by step and token by token, over diffusers' transformer (D1, D8)."""
    latents = [video.latents, audio.latents]
    masks = [
        torch.ones(1, one.tokens, 1) if one.denoise_mask is None else one.denoise_mask for one in (video, audio)
    ]
    cleans = [torch.zeros_like(one.latents) if one.clean is None else one.clean for one in (video, audio)]
    for sigma, following in pairwise(sigmas):
        predictions = []
        for call in calls:
            kept = audio.tokens if call.audio_tokens is None else call.audio_tokens
            levels = [mask[..., 0] * sigma * 1000 for mask in masks]
            velocities = transformer(
                hidden_states=latents[0],
                audio_hidden_states=latents[1][:, :kept],
                encoder_hidden_states=call.context.video,
                audio_encoder_hidden_states=call.context.audio,
                timestep=levels[0],
                audio_timestep=levels[1][:, :kept],
                sigma=torch.tensor([sigma * 1000]),
                audio_sigma=torch.tensor([0.0 if audio.frozen else sigma * 1000]),
                video_coords=video.coords,
                audio_coords=audio.coords[:, :, :kept],
                isolate_modalities=call.isolated,
                spatio_temporal_guidance_blocks=list(call.stg_blocks) or None,
                use_cross_timestep=False,
                return_dict=False,
            )
            predictions.append(
                tuple(
                    x[:, : v.shape[1]] - mask[:, : v.shape[1]] * sigma * v
                    for x, mask, v in zip(latents, masks, velocities, strict=True)
                )
            )
        guided = rule(predictions)
        for i, x0 in enumerate(guided):
            blended = x0 * masks[i] + cleans[i] * (1 - masks[i])
            latents[i] = latents[i] + (latents[i] - blended) / sigma * (following - sigma)
    return latents[0][:, : video.target_tokens], latents[1][:, : audio.target_tokens]


def only(predictions: list[Pair]) -> Pair:
    return predictions[0]


def voice(denoiser: Denoiser, audio: TokenSequence, tokens: int) -> TokenSequence:
    """The sound with a reference voice, whose times end 0.04 s before the start (ID-LoRA)."""
    coords = denoiser.audio_coords(tokens)
    return append(audio, Noise(40)(tokens), coords - coords[0, 0, -1, 1] - 0.04, 1.0)


@torch.inference_mode()
@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_identity_guidance_matches_its_definition(
    parts: TinyParts, denoiser: Denoiser, contexts: tuple[TextContext, TextContext], cfg: float
) -> None:
    """D17: the delta is added to the sound alone, on top of classifier-free guidance and its rescaling."""
    noise, scale, rescale = Noise(), 3.0, 0.5 if cfg > 1 else 0.0
    video = video_sequence(denoiser, noise)
    still = FramePin(Noise(41)(8), 0, 0.9)
    video = pinned(denoiser, video, [still], noise)
    audio = voice(denoiser, audio_sequence(denoiser, noise), 6)
    target = audio.target_tokens
    both = ModalityGuidance(cfg=cfg, rescale=rescale)
    plan = Guidance(both, both, identity=scale).plan(contexts[0], video, audio, contexts[1])
    ours = denoise(denoiser, video, audio, plan.passes, SIGMAS, combine=plan.combine)

    def rule(predictions: list[Pair]) -> Pair:
        guided = []
        for conditional, negative in zip(predictions[0], predictions[1], strict=True):
            x0 = conditional + (cfg - 1) * (conditional - negative)
            guided.append(x0 * (rescale * conditional.std() / x0.std() + 1 - rescale))
        guided[1][:, :target] += scale * (predictions[0][1][:, :target] - predictions[2][1])
        return guided[0], guided[1]

    calls = [Call(contexts[0]), Call(contexts[1]), Call(contexts[0], audio_tokens=target)]
    theirs = plain_denoise(parts.transformer, video, audio, calls, rule)
    assert_same(ours, theirs)
    plain = denoise(denoiser, video, audio, [Pass(contexts[0])], SIGMAS)
    assert relative_error(ours[1], plain[1]) > 1e-3, "identity must matter"


@contextmanager
def attention_biases(transformer: Any, bias: Tensor) -> Iterator[None]:
    """D10: what diffusers makes of a mask is replaced by this (T, T) bias."""

    def replace_mask(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": bias[None]}

    handles = [
        block.attn1.register_forward_pre_hook(replace_mask, with_kwargs=True)
        for block in transformer.transformer_blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
@pytest.mark.usefixtures("reference")
def test_everything_at_once_matches_the_reference_semantics(
    parts: TinyParts, denoiser: Denoiser, contexts: tuple[TextContext, TextContext]
) -> None:
    """A pin, a keyframe, two references of half the size with attention strengths, driving sound, guidance."""
    noise = Noise()
    video = video_sequence(denoiser, noise)
    pins = [FramePin(Noise(50)(8), 0, 0.9), FramePin(Noise(51)(8), 8)]
    video = pinned(denoiser, video, pins, noise)
    mask = torch.zeros(17, 32, 64)
    mask[:, :, :32] = 1.0
    references = [
        VideoReference(Noise(52)(6), (3, 1, 2), downscale=2, attention_strength=0.5),
        VideoReference(Noise(53)(6), (3, 1, 2), strength=0.8, downscale=2, attention_mask=mask),
    ]
    for one in references:
        video = append_reference(video, one, CONFIG.frame_rate, denoiser.video_coords, noise)
    audio = audio_sequence(denoiser, noise)
    audio = freeze(audio, Noise(54)(audio.tokens))
    guidance = Guidance(ModalityGuidance(cfg=2.0, stg=0.5, rescale=0.3), stg_blocks=(1,))
    plan = guidance.plan(contexts[0], video, audio, contexts[1])
    ours = denoise(denoiser, video, audio, plan.passes, SIGMAS, combine=plan.combine)

    # Places: 24 of the target, 8 of the keyframe, 6 and 6 of the references.
    weights = torch.zeros(44, 44)
    weights[:32, :32] = weights[32:38, 32:38] = weights[38:, 38:] = 1.0
    weights[:24, 32:38] = weights[32:38, :24] = 0.5
    seen = torch.tensor([1.0, 0.0] * 3)
    weights[:24, 38:] = seen
    weights[38:, :24] = seen[:, None]
    bias = weights.log().clamp(min=torch.finfo(torch.float32).min)

    def rule(predictions: list[Pair]) -> Pair:
        conditional, negative, perturbed = (one[0] for one in predictions)
        x0 = conditional + 1.0 * (conditional - negative) + 0.5 * (conditional - perturbed)
        return x0 * (0.3 * conditional.std() / x0.std() + 0.7), predictions[0][1]

    calls = [Call(contexts[0]), Call(contexts[1]), Call(contexts[0], stg_blocks=(1,))]
    with attention_biases(parts.transformer, bias):
        theirs = plain_denoise(parts.transformer, video, audio, calls, rule)
    assert_same(ours, theirs)
    assert audio.clean is not None
    assert torch.equal(ours[1], audio.clean)
    without = plain_denoise(parts.transformer, video, audio, calls, rule)
    assert relative_error(without[0], ours[0]) > 1e-3, "the bias must matter"


@torch.inference_mode()
def test_perturbing_the_picture_alone_spares_the_sound(
    parts: TinyParts, denoiser: Denoiser, contexts: tuple[TextContext, TextContext]
) -> None:
    """stg_v: with picture and sound unaware of each other, the sound cannot tell."""
    noise = Noise()
    video, audio = video_sequence(denoiser, noise), audio_sequence(denoiser, noise)
    blocks = frozenset({0, 1})
    results = {
        name: denoise(denoiser, video, audio, [one], SIGMAS)
        for name, one in {
            "none": Pass(contexts[0], isolated=True),
            "video": Pass(contexts[0], blocks, isolated=True, perturbed="video"),
            "both": Pass(contexts[0], blocks, isolated=True),
        }.items()
    }
    assert torch.equal(results["video"][0], results["both"][0])
    assert torch.equal(results["video"][1], results["none"][1])
    assert relative_error(results["both"][1], results["none"][1]) > 1e-3
    assert relative_error(results["both"][0], results["none"][0]) > 1e-3
