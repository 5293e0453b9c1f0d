"""The places of a shape of work, through the denoiser that keeps them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.workspace import Pass
from tests.test_fidelity import SIGMAS, PromptEncoder, sequences
from tests.tiny import tiny_parts


@pytest.mark.parametrize("first", ["in order", "transposed"])
@torch.inference_mode()
def test_strides_of_the_first_latents_do_not_stay(first: str) -> None:
    """The upsampler's are transposed; a chunk after them rounded otherwise on a CUDA device than one without."""
    parts = tiny_parts()
    context = PromptEncoder(parts.tokenizer, parts.text_encoder, parts.connectors).encode("a")
    denoiser = Denoiser(parts.transformer)
    video, audio = sequences(denoiser)
    if first == "transposed":
        video = replace(video, latents=video.latents.transpose(1, 2).contiguous().transpose(1, 2))
    assert video.latents.is_contiguous() == (first == "in order")
    prepared = denoiser.prepare(video, audio, [Pass(context)], SIGMAS)
    (velocity,) = prepared.workspace.velocities
    assert velocity.video.is_contiguous()
    assert velocity.audio.is_contiguous()
