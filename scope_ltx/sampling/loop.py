"""The denoising loop: Python sigmas in, clean latents out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.guidance import Combine, Noisy, only_pass
from scope_ltx.sampling.workspace import Pass


def denoise(
    denoiser: Denoiser,
    video: TokenSequence,
    audio: TokenSequence,
    passes: Sequence[Pass],
    sigmas: tuple[float, ...],
    *,
    combine: Combine = only_pass,
    ffn_chunk_size: int | None = None,
    cancel: threading.Event | None = None,
) -> tuple[Tensor, Tensor]:
    """Euler steps over `sigmas` (descending, ending in 0); returns (1, T, C) float32 latents of each modality's
    target: what conditions have appended is dropped.

    The sigmas stay Python floats and the latents float32: rounded to bfloat16, the first four step sizes of
    the distilled schedule would be off by up to 37 %.
    """
    cancel = cancel or threading.Event()
    prepared = denoiser.prepare(video, audio, passes, sigmas, ffn_chunk_size)
    video_latents, audio_latents = video.latents.clone(), audio.latents.clone()
    for step, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        predictions = denoiser.velocities(prepared, video_latents, audio_latents, step, cancel)
        velocity = combine(predictions, Noisy(video_latents, audio_latents, sigma))
        euler_step(video_latents, velocity.video, sigma, next_sigma, video)
        euler_step(audio_latents, velocity.audio, sigma, next_sigma, audio)
    return video_latents[:, : video.target_tokens], audio_latents[:, : audio.target_tokens]


def euler_step(
    latents: Tensor, velocity: Tensor, sigma: float, next_sigma: float, sequence: TokenSequence
) -> None:
    """One step from `sigma` to `next_sigma`, (1, T, C) float32, in place; `velocity` is used up.

    With a mask: x0 = x - mask * sigma * v, blended with the clean values by the mask, then every token moves
    by the *global* sigma, so a fully pinned token lands on its clean value (Lightricks/LTX-2, X0Model and
    post-process step).
    """
    mask, clean = sequence.denoise_mask, sequence.clean
    if mask is None or clean is None:
        latents.add_(velocity, alpha=next_sigma - sigma)
        return
    denoised = velocity.mul_(mask).mul_(-sigma).add_(latents)
    denoised.mul_(mask).addcmul_(clean, mask, value=-1).add_(clean)
    latents.add_(denoised.sub_(latents), alpha=(sigma - next_sigma) / sigma)
