"""The small audio VAE's weights: one latent channel is loudness by pitch, read and written almost linearly.

Normalised values of that channel stand for log-mel values around `LOG_MEL_CENTRE`. As in the video VAE a value
travels as (+v, -v) beside two constants. The decoder's upsampling repeats frames; a mean of two neighbours in time
turns that into linear interpolation, and the one frame it would spoil is the one that causality drops.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scope_ltx.models.small.draw import State, draw_state, generator_for, shapes_of, uniform
from scope_ltx.models.small.sizes import AUDIO_LATENT_CHANNELS, AUDIO_LATENT_MELS, build_audio_vae

LOG_MEL_CENTRE, LOG_MEL_SPREAD = -5.0, 2.2
"""Log-mel of a latent of 0, and how far one of 1 is above it: quiet (silence is -11.5, speech about -2)."""

_PLUS, _MINUS, _CONSTANT, _LANES = 0, 1, 2, 4
_CONSTANT_LEVEL = 2.0
_TWO_FRAMES = (0.0, 0.5, 0.5)


def audio_vae_weights(seed: int) -> State:
    """State dict of `build_audio_vae`, float32. The statistics are those of tokens: 8 channels x 16 mel places.

    (The class sizes its statistics by its width, which is the same number only at full size.)
    """
    generator = generator_for(seed, "audio_vae")
    state = draw_state(shapes_of(build_audio_vae), generator, 1.0)
    mean = (torch.randn(AUDIO_LATENT_CHANNELS, generator=generator) * 0.1).bfloat16().float()
    std = uniform((AUDIO_LATENT_CHANNELS,), 0.8, 1.2, generator).bfloat16().float()
    state["latents_mean"] = mean.repeat_interleave(AUDIO_LATENT_MELS)
    state["latents_std"] = std.repeat_interleave(AUDIO_LATENT_MELS)
    for name, weight in state.items():
        if name.endswith("conv2.conv.weight"):
            weight.mul_(0.1)
        elif name.endswith("nin_shortcut.conv.weight"):
            _identity(weight[:, :, 0, 0])
    _decoder(state, mean[0], std[0])
    _encoder(state, mean[0], std[0])
    return state


def _identity(matrix: Tensor) -> None:
    matrix.zero_()
    matrix.fill_diagonal_(1.0)


def _keep_constants(weight: Tensor, bias: Tensor) -> None:
    weight[_CONSTANT:_LANES] = 0
    bias[_CONSTANT:_LANES] = torch.tensor([_CONSTANT_LEVEL, -_CONSTANT_LEVEL])


def _resample(weight: Tensor, bias: Tensor, mel_taps: tuple[float, float, float]) -> None:
    """Every channel to itself: the mean of this frame and the one before, and `mel_taps` over mel places."""
    weight.zero_()
    kernel = torch.outer(torch.tensor(_TWO_FRAMES), torch.tensor(mel_taps))
    for channel in range(weight.shape[0]):
        weight[channel, channel] = kernel
    _keep_constants(weight, bias)


def _decoder(state: State, mean: Tensor, std: Tensor) -> None:
    weight, bias = state["decoder.conv_in.conv.weight"], state["decoder.conv_in.conv.bias"]
    weight[:_LANES] = 0
    weight[_LANES:, 1:] = 0
    for lane, sign in ((_PLUS, 1.0), (_MINUS, -1.0)):
        weight[lane, 0, 2, 1] = sign / std
        bias[lane] = -sign * mean / std
    _keep_constants(weight, bias)
    for level in (2, 1):
        name = f"decoder.up.{level}.upsample.conv.conv"
        _resample(state[f"{name}.weight"], state[f"{name}.bias"], (0.0, 1.0, 0.0))
    weight, bias = state["decoder.conv_out.conv.weight"], state["decoder.conv_out.conv.bias"]
    weight.mul_(0.1)
    # 16 channels, of which two constants of 2 and the pair: a root mean square of about 0.75.
    for lane, sign in ((_PLUS, 1.0), (_MINUS, -1.0)):
        weight[:, lane, 2, 1] = sign * 0.75 * LOG_MEL_SPREAD
    bias.fill_(LOG_MEL_CENTRE)


def _encoder(state: State, mean: Tensor, std: Tensor) -> None:
    weight, bias = state["encoder.conv_in.conv.weight"], state["encoder.conv_in.conv.bias"]
    # Log-mels are far from zero: as large as the lanes' values, they would rule the norm.
    weight.mul_(0.03)
    weight[:_LANES] = 0
    for lane, sign in ((_PLUS, 1.0), (_MINUS, -1.0)):
        weight[lane, :, 2, 1] = sign * 0.5 / LOG_MEL_SPREAD
        bias[lane] = -sign * LOG_MEL_CENTRE / LOG_MEL_SPREAD
    _keep_constants(weight, bias)
    for level in (0, 1):
        name = f"encoder.down.{level}.downsample.conv"
        # Padding is at the end of the mel axis: places 2j and 2j + 1 become place j.
        _resample(state[f"{name}.weight"], state[f"{name}.bias"], (0.5, 0.5, 0.0))
    weight, bias = state["encoder.conv_out.conv.weight"], state["encoder.conv_out.conv.bias"]
    # 64 channels: the same values give a root mean square of about 0.4.
    weight[0] = 0
    for lane, sign in ((_PLUS, 1.0), (_MINUS, -1.0)):
        weight[0, lane, 2, 1] = sign * 0.4 * std
    bias[0] = mean
    bias[AUDIO_LATENT_CHANNELS:] = -10.0
