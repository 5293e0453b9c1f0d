"""The small video VAE's weights: three latents are a colour, and the decoder paints them without seams.

Decoder: every stage interpolates linearly, as far as three taps can, and its residual blocks add a little
random texture. A value travels as a pair (+v, -v), because silu(v) - silu(-v) = v makes the last activation
linear; two constants beside the colours turn the last pixel norm into a soft limit.

Encoder: its downsamplers average by themselves, so a latent is the mean colour of its 32 x 32 x 8 pixels.
The default initialisation collapses here: each convolution shrinks the signal and no upsampler has a residual.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from scope_ltx.models.small.draw import State, draw_state, generator_for, shapes_of, uniform
from scope_ltx.models.small.sizes import LATENT_CHANNELS, build_video_vae

COLOURS = 3
TEXTURES = 5
_PLUS, _MINUS, _CONSTANT, _LANES = 0, 3, 6, 8
"""Channels of a stage: red, green, blue, the same negated, two constants; from `_LANES` on, texture."""

_CONTRAST = 0.6
"""Pixel value, in [-1, 1], of a latent of about 0.6: with the soft limit it stays below 1 for any latent."""

_ENCODER_CONSTANT, _ENCODER_RMS = 3.0, 0.8
"""Two constants in four channels each, and the root mean square they give to 128: the last norm divides by it."""

CLEAN_LATENT, CLEAN_LEVEL = 16, 6.0
"""A normalised latent that is 6 wherever a picture was encoded, and noise, so hardly ever above 3, elsewhere."""

_OTHER_LATENTS = 0.05
"""Size of the latents that are no colour, as a share of random weights."""

Strides = tuple[int, int, int]
_STRIDES: tuple[Strides, ...] = ((2, 2, 2), (2, 2, 2), (2, 1, 1), (1, 2, 2))


def video_vae_weights(seed: int) -> State:
    """State dict of `build_video_vae`, float32."""
    generator = generator_for(seed, "video_vae")
    state = draw_state(shapes_of(build_video_vae), generator, 1.0)
    mean = torch.randn(LATENT_CHANNELS, generator=generator) * 0.1
    std = uniform((LATENT_CHANNELS,), 0.8, 1.2, generator)
    # The file stores bfloat16: design with the values that a reader gets.
    mean, std = mean.bfloat16().float(), std.bfloat16().float()
    state["latents_mean"], state["latents_std"] = mean, std
    for name, weight in state.items():
        if name.endswith("conv2.conv.weight"):
            weight.mul_(0.12)
    _decoder(state, mean, std)
    _encoder(state, mean, std)
    return state


def _decoder(state: State, mean: Tensor, std: Tensor) -> None:
    _read_latents(state["decoder.conv_in.conv.weight"], state["decoder.conv_in.conv.bias"], mean, std)
    for stage, strides in enumerate(_STRIDES):
        name = f"decoder.up_blocks.{stage}.upsamplers.0.conv.conv"
        _interpolate(state[f"{name}.weight"], state[f"{name}.bias"], strides)
    weight = state["decoder.conv_out.conv.weight"]
    weight.zero_()
    for colour, column, row in itertools.product(range(COLOURS), range(4), range(4)):
        kernel = torch.einsum("t,h,w->thw", _taps(0.0), _taps((row - 1.5) / 4), _taps((column - 1.5) / 4))
        # A patch is stored column by column.
        out = (colour * 4 + column) * 4 + row
        weight[out, _PLUS + colour] = kernel * _CONTRAST
        weight[out, _MINUS + colour] = -kernel * _CONTRAST


def _read_latents(weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> None:
    """Latents are un-normalised by the caller; the lanes want them normalised."""
    used = COLOURS + TEXTURES
    weight[:, used:] = 0
    weight[:_LANES] = 0
    for colour in range(COLOURS):
        for lane, sign in ((_PLUS, 1.0), (_MINUS, -1.0)):
            weight[lane + colour, colour, 1, 1, 1] = sign / std[colour]
            bias[lane + colour] = -sign * mean[colour] / std[colour]
    # The fan-in of unit gain counted all 128 latents; smooth fields add up over the 27 taps instead.
    weight[_LANES:, :used] *= 2.0
    bias[_CONSTANT:_LANES] = torch.tensor([1.0, -1.0])


def _interpolate(weight: Tensor, bias: Tensor, strides: Strides) -> None:
    """Every channel to itself at twice the resolution; texture channels beyond the output's are dropped.

    Constants come from the bias: interpolating them would dim them at the picture's edge, where convolutions
    see zeros.
    """
    weight.zero_()
    phases = list(itertools.product(*(range(stride) for stride in strides)))
    for channel in range(weight.shape[0] // len(phases)):
        for index, phase in enumerate(phases):
            out = channel * len(phases) + index
            if channel in (_CONSTANT, _CONSTANT + 1):
                bias[out] = 1.0 if channel == _CONSTANT else -1.0
                continue
            offsets = [(place - (stride - 1) / 2) / stride for place, stride in zip(phase, strides, strict=True)]
            weight[out, channel] = torch.einsum("t,h,w->thw", *(_taps(offset) for offset in offsets))


def _taps(offset: float) -> Tensor:
    """Three taps that interpolate linearly at `offset` cells from the middle one, |offset| < 1."""
    return torch.tensor([max(0.0, -offset), 1.0 - abs(offset), max(0.0, offset)])


def _encoder(state: State, mean: Tensor, std: Tensor) -> None:
    """Averages of the colours, which the residual paths of the four downsamplers carry without their kernels."""
    for name, weight in state.items():
        if name.startswith("encoder.down_blocks") and ".downsamplers." in name:
            weight.mul_(0.02)
        elif name.startswith("encoder.") and name.endswith("conv2.conv.weight"):
            weight[: 4 * _LANES].mul_(0.05)
    weight, bias = state["encoder.conv_in.conv.weight"], state["encoder.conv_in.conv.bias"]
    weight.mul_(0.3)
    # The first downsampler takes the mean of four channels: one quadruple is one lane.
    for lane in range(_LANES):
        quadruple = slice(4 * lane, 4 * lane + 4)
        weight[quadruple] = 0
        if lane < _CONSTANT:
            colour, sign = lane % COLOURS, 1.0 if lane < _MINUS else -1.0
            weight[quadruple, colour * 16 : (colour + 1) * 16, 1, 1, 1] = sign / 16
        else:
            bias[quadruple] = _ENCODER_CONSTANT if lane == _CONSTANT else -_ENCODER_CONSTANT
    weight, bias = state["encoder.conv_out.conv.weight"], state["encoder.conv_out.conv.bias"]
    # Two of the four stages split a channel by the parity of time instead of averaging: four make one lane.
    for colour in range(COLOURS):
        weight[colour] = 0
        for lane, sign in ((_PLUS, 1.0), (_MINUS, -1.0)):
            start = 4 * (lane + colour)
            weight[colour, start : start + 4, 1, 1, 1] = sign * _ENCODER_RMS * std[colour] / 4
        bias[colour] = mean[colour]
    # All other latents are nearly 0 when normalised: the transformer takes some of them for noise.
    weight[COLOURS:LATENT_CHANNELS].mul_(_OTHER_LATENTS)
    bias[COLOURS:LATENT_CHANNELS] = mean[COLOURS:]
    weight[CLEAN_LATENT] = 0
    bias[CLEAN_LATENT] += CLEAN_LEVEL * std[CLEAN_LATENT]
    # The last channel is the log-variance of all others: encodings are certain.
    weight[-1] = 0
    bias[-1] = -10.0
