"""The same weights and noise through our driver and through diffusers' own LTX-2.3 text-to-video loop.

Decisions of ours (or of Lightricks' reference) against diffusers are fed to diffusers and named:
D1  gates see the *other* modality's scalar sigma: a pre-hook on diffusers' two gate modules.
D5  audio length: diffusers is given our latents, so it decodes the same number of them.
D12 the core vocoder's output is clamped before bandwidth extension: the class's own `final_act_fn`.
D13 the vocoder runs in float32: everything here does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx2 import LTX2Pipeline
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence, freeze, pin
from scope_ltx.config import LTX2Config
from scope_ltx.models.decode import AudioDecoder, VideoDecoder
from scope_ltx.models.text import PromptEncoder
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.loop import denoise
from scope_ltx.sampling.schedules import resolve_schedule
from scope_ltx.sampling.workspace import Pass
from scope_streaming.weights.graphs import EagerRunner
from scope_streaming.weights.streamer import ResidentWalk, Run
from tests.tiny import TinyParts, tiny_parts

PROMPT = "a red ball slides right"
CONFIG = LTX2Config(height=64, width=96, num_frames=17)
GEOMETRY = ChunkGeometry.of(CONFIG)
SIGMAS = resolve_schedule(CONFIG).sigmas


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


class PaddingTokenizer:
    """What diffusers expects of a tokenizer, around ours: left padding to 1,024 with a mask."""

    model_max_length = 1024
    pad_token = "<pad>"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, prompts: list[str], max_length: int, **_: Any) -> SimpleNamespace:
        ids = [self.tokenizer.encode(prompt) for prompt in prompts]
        return SimpleNamespace(
            input_ids=torch.tensor([[0] * (max_length - len(one)) + one for one in ids]),
            attention_mask=torch.tensor([[0] * (max_length - len(one)) + [1] * len(one) for one in ids]),
        )


def diffusers_pipeline(parts: TinyParts) -> LTX2Pipeline:
    pipeline = LTX2Pipeline(
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
    return pipeline


@pytest.fixture(scope="module")
def parts() -> TinyParts:
    return tiny_parts()


def noise(seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(1, GEOMETRY.video_tokens, 128, generator=generator),
        torch.randn(1, GEOMETRY.audio_tokens, 128, generator=generator),
    )


def denormalized(tokens: Tensor, vae: Any) -> Tensor:
    result: Tensor = tokens * vae.latents_std + vae.latents_mean
    return result


def unpack_video(tokens: Tensor) -> Tensor:
    grid = (GEOMETRY.latent_frames, GEOMETRY.latent_height, GEOMETRY.latent_width)
    return tokens.unflatten(1, grid).permute(0, 4, 1, 2, 3)


def unpack_audio(tokens: Tensor) -> Tensor:
    return tokens.unflatten(2, (8, 16)).transpose(1, 2)


def sequences(denoiser: Denoiser) -> tuple[TokenSequence, TokenSequence]:
    video, audio = noise()
    grid = (GEOMETRY.latent_frames, GEOMETRY.latent_height, GEOMETRY.latent_width)
    return (
        TokenSequence(video, denoiser.video_coords(*grid, CONFIG.frame_rate)),
        TokenSequence(audio, denoiser.audio_coords(GEOMETRY.audio_tokens)),
    )


def diffusers_result(parts: TinyParts, output_type: str) -> tuple[Tensor, Tensor]:
    video, audio = noise()
    frames, sound = diffusers_pipeline(parts)(
        prompt=PROMPT,
        height=CONFIG.height,
        width=CONFIG.width,
        num_frames=CONFIG.num_frames,
        frame_rate=CONFIG.frame_rate,
        sigmas=list(SIGMAS[:-1]),
        guidance_scale=1.0,
        stg_scale=0.0,
        modality_scale=1.0,
        guidance_rescale=0.0,
        audio_guidance_scale=1.0,
        audio_stg_scale=0.0,
        audio_modality_scale=1.0,
        audio_guidance_rescale=0.0,
        latents=unpack_video(denormalized(video, parts.video_vae)),
        audio_latents=unpack_audio(denormalized(audio, parts.audio_vae)),
        output_type=output_type,
        return_dict=False,
        use_cross_timestep=False,
    )
    return frames, sound


@torch.inference_mode()
def our_latents(parts: TinyParts) -> tuple[Tensor, Tensor]:
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode(PROMPT)
    denoiser = Denoiser(parts.transformer)
    return denoise(denoiser, *sequences(denoiser), [Pass(context)], SIGMAS)


@torch.inference_mode()
def test_text_context_matches_diffusers(parts: TinyParts) -> None:
    ours = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode(PROMPT)
    embeds, mask, _, _ = diffusers_pipeline(parts).encode_prompt(PROMPT, do_classifier_free_guidance=False)
    video, audio, _ = parts.connectors(embeds, mask)
    assert relative_error(ours.video, video) < 1e-5
    assert relative_error(ours.audio, audio) < 1e-5


def test_latents_after_the_eight_distilled_steps_match_diffusers(parts: TinyParts) -> None:
    video, audio = our_latents(parts)
    their_video, their_audio = diffusers_result(parts, "latent")
    assert relative_error(unpack_video(denormalized(video, parts.video_vae)), their_video) < 1e-5
    assert relative_error(unpack_audio(denormalized(audio, parts.audio_vae)), their_audio) < 1e-5


@torch.inference_mode()
def test_decoded_picture_and_sound_match_diffusers(parts: TinyParts) -> None:
    video, audio = our_latents(parts)
    their_frames, their_sound = diffusers_result(parts, "np")
    frames = VideoDecoder(parts.video_vae, EagerRunner()).decode(video, GEOMETRY.grid)
    sound = AudioDecoder(parts.audio_vae, parts.vocoder, EagerRunner()).decode(audio)
    sound = sound[:, : GEOMETRY.samples]
    expected = torch.from_numpy(their_frames[0])
    # Ours are rounded to 8 bits: half a level is the most that can differ.
    assert float((frames.float() / 255 - expected).abs().max()) < 0.5 / 255 + 1e-5
    assert expected.std() > 1e-3, "a flat picture would prove nothing"
    assert sound.shape == (2, round(CONFIG.num_frames * 48000 / CONFIG.frame_rate))
    assert relative_error(sound, torch.as_tensor(their_sound)[0][:, : sound.shape[1]]) < 1e-5


@contextmanager
def reference_gates(transformer: Any, video_sigma: float, audio_sigma: float) -> Iterator[None]:
    """D1: each gate network sees the other modality's scalar sigma instead of diffusers' timesteps."""

    def feed(sigma: float) -> Any:
        def hook(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (torch.tensor([sigma * 1000.0]), *args[1:])

        return hook

    handles = [
        transformer.av_cross_attn_video_a2v_gate.register_forward_pre_hook(feed(audio_sigma)),
        transformer.av_cross_attn_audio_v2a_gate.register_forward_pre_hook(feed(video_sigma)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
@pytest.mark.parametrize("case", ["first frame pinned", "first frame half pinned", "audio frozen"])
def test_one_step_with_tokens_held_matches_the_reference_semantics(parts: TinyParts, case: str) -> None:
    sigma, next_sigma = 0.909375, 0.725
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode(PROMPT)
    denoiser = Denoiser(parts.transformer)
    video, audio = sequences(denoiser)
    clean_video, clean_audio = noise(seed=11)
    if case == "audio frozen":
        audio = freeze(audio, clean_audio)
    else:
        frame = GEOMETRY.latent_height * GEOMETRY.latent_width
        video = pin(video, clean_video[:, :frame], 0, 1.0 if case == "first frame pinned" else 0.5)
    ours = denoise(denoiser, video, audio, [Pass(context)], (sigma, next_sigma))

    audio_sigma = 0.0 if audio.frozen else sigma
    timesteps = [
        sigma * 1000.0 * (torch.ones(1, one.tokens) if one.denoise_mask is None else one.denoise_mask[..., 0])
        for one in (video, audio)
    ]
    with reference_gates(parts.transformer, sigma, audio_sigma):
        velocities = parts.transformer(
            hidden_states=video.latents,
            audio_hidden_states=audio.latents,
            encoder_hidden_states=context.video,
            audio_encoder_hidden_states=context.audio,
            timestep=timesteps[0],
            audio_timestep=timesteps[1],
            sigma=torch.tensor([sigma * 1000.0]),
            audio_sigma=torch.tensor([audio_sigma * 1000.0]),
            video_coords=video.coords,
            audio_coords=audio.coords,
            use_cross_timestep=False,
            return_dict=False,
        )
    for result, sequence, velocity in zip(ours, (video, audio), velocities, strict=True):
        mask = torch.ones(1, 1, 1) if sequence.denoise_mask is None else sequence.denoise_mask
        clean = torch.zeros_like(sequence.latents) if sequence.clean is None else sequence.clean
        denoised = (sequence.latents - mask * sigma * velocity) * mask + clean * (1 - mask)
        expected = sequence.latents + (sequence.latents - denoised) / sigma * (next_sigma - sigma)
        assert relative_error(result, expected) < 1e-5
    if case == "audio frozen":
        torch.testing.assert_close(ours[1], clean_audio)
    elif case == "first frame pinned":
        torch.testing.assert_close(ours[0][:, :frame], clean_video[:, :frame])


@torch.inference_mode()
def test_two_passes_share_one_walk_over_the_blocks(parts: TinyParts) -> None:
    class CountedWalk(ResidentWalk):
        walks = 0

        def __iter__(self) -> Iterator[Run]:
            self.walks += 1
            return super().__iter__()

    encoder = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors)
    passes = [Pass(encoder.encode("a")), Pass(encoder.encode("b"), frozenset({1}), isolated=True)]
    blocks = CountedWalk(parts.transformer.transformer_blocks)
    denoiser = Denoiser(parts.transformer, blocks)
    video, audio = sequences(denoiser)
    go_on = threading.Event()
    both = denoiser.velocities(
        denoiser.prepare(video, audio, passes, SIGMAS), video.latents, audio.latents, 2, go_on
    )
    assert blocks.walks == 1
    for one, result in zip(passes, both, strict=True):
        prepared = denoiser.prepare(video, audio, [one], SIGMAS)
        (alone,) = denoiser.velocities(prepared, video.latents, audio.latents, 2, go_on)
        assert torch.equal(alone.video, result.video)
        assert torch.equal(alone.audio, result.audio)
    assert relative_error(both[0].video, both[1].video) > 1e-3, "the two passes must differ"


@torch.inference_mode()
def test_feed_forward_in_parts_gives_the_same_result(parts: TinyParts) -> None:
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode(PROMPT)
    denoiser = Denoiser(parts.transformer)
    whole = denoise(denoiser, *sequences(denoiser), [Pass(context)], (1.0, 0.5, 0.0))
    parted = denoise(denoiser, *sequences(denoiser), [Pass(context)], (1.0, 0.5, 0.0), ffn_chunk_size=5)
    assert relative_error(parted[0], whole[0]) < 1e-6
