"""LTX-2.3's transformer at full size with random weights: the real work without the real files."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel
from torch import Tensor, nn

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.models.text import TextContext
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.workspace import CallBlock
from scope_quant.capability import Fp8Path
from scope_quant.convert import Fp8Layer, convert_linears
from scope_streaming.weights.streamer import Fill

PUBLISHED_BF16_BLOCKS = (0, 1, 46, 47)
"""The published distilled file keeps about four blocks in bfloat16; its size fits these."""


def build_transformer(path: Fp8Path, bf16_blocks: Sequence[int] = (), layers: int = 48) -> Any:
    """On `meta`: every linear layer inside the blocks in FP8, except in `bf16_blocks`."""
    with torch.device("meta"):
        model = LTX2VideoTransformer3DModel(
            num_layers=layers,
            gated_attn=True,
            cross_attn_mod=True,
            audio_gated_attn=True,
            audio_cross_attn_mod=True,
            rope_type="split",
            use_prompt_embeddings=False,
            perturbed_attn=True,
        ).to(torch.bfloat16)
    layers_in_fp8 = {
        name: Fp8Layer()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith("transformer_blocks.")
        and int(name.split(".")[1]) not in bf16_blocks
    }
    convert_linears(model, layers_in_fp8, path)
    return model.eval().requires_grad_(False)


def materialize_rest(model: nn.Module, device: torch.device) -> None:
    """Everything outside the blocks gets random values on `device`; the blocks stay on `meta`."""
    for name, child in model.named_children():
        if name != "transformer_blocks":
            child.to_empty(device=device)
            for tensor in child.parameters():
                tensor.normal_(0, 0.02)
    for name, parameter in list(model.named_parameters(recurse=False)):
        values = torch.randn(parameter.shape, device=device, dtype=parameter.dtype) * 0.02
        setattr(model, name, nn.Parameter(values, requires_grad=False))


def random_fill(device: torch.device) -> Fill:
    """Values that keep activations of order one, the same for a block every time. Drawn on `device`: that is 100
    times faster."""

    def fill(index: int, tensors: dict[str, Tensor]) -> None:
        generator = torch.Generator(device).manual_seed(index)
        for name, tensor in tensors.items():
            read(name, tensor, generator)

    read = Drawing(device)
    return fill


class Drawing:
    """Draws values for one tensor at a time, whichever thread asks: on a device the largest takes 0.8 GB."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._turn = threading.Lock()

    def __call__(self, name: str, target: Tensor, generator: torch.Generator | None = None) -> None:
        with self._turn:
            draw(self._device, name, target, generator)


def draw(device: torch.device, name: str, target: Tensor, generator: torch.Generator | None = None) -> None:
    """A random value for the tensor `name` of a block; with a `generator` the same one every time."""
    if name.endswith("weight_scale"):
        target.fill_(1 / 64)
    elif "norm" in name:
        target.fill_(1.0)
    else:
        target.copy_(
            (torch.randn(target.shape, device=device, generator=generator) * _spread(name, target)).to(
                target.dtype
            )
        )


def _spread(name: str, tensor: Tensor) -> float:
    """Standard deviation of a tensor's random values; FP8 weights get theirs from the scale beside them."""
    if tensor.dtype == torch.float8_e4m3fn:
        return 1.0
    return 0.1 if tensor.ndim < 2 or "table" in name else 1 / math.sqrt(tensor.shape[1])


class FixedForm:
    """The blocks in one form from the first step on."""

    def __init__(self, name: str, call: CallBlock) -> None:
        self._form = (name, call)

    def form(self, shape: Hashable, rehearse: object) -> tuple[str, CallBlock]:
        return self._form


def random_work(
    denoiser: Denoiser, geometry: ChunkGeometry, device: torch.device, dtype: torch.dtype
) -> tuple[TokenSequence, TokenSequence, TextContext]:
    """Noise of the geometry's size and a text context of 1,024 tokens per modality."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    video = TokenSequence(
        draw(1, geometry.video_tokens, 128),
        denoiser.video_coords(geometry.latent_frames, geometry.latent_height, geometry.latent_width, 24.0),
    )
    audio = TokenSequence(draw(1, geometry.audio_tokens, 128), denoiser.audio_coords(geometry.audio_tokens))
    return video, audio, TextContext(draw(1, 1024, 4096).to(dtype), draw(1, 1024, 2048).to(dtype))
