"""The small vocoder's weights: an organ of five partials whose loudness follows the mel spectrogram.

The first upsampler writes each partial as a sine, at 100 or 200 Hz, which fit a mel frame of 10 ms without a
jump. Every later stage doubles the rate, which mirrors a partial's frequency f to rate / 2 - f; the upsampler's
taps prefer one of the two, and a residual block filters out the rest. So five partials come from two sines:

    rate   500  1000  2000  4000 Hz
           200   200   200   200         all multiples of 200 Hz: a period of 5 ms divides the default
           100   400   400   400         chunk of 5.375 s, so chunk after chunk the partials go on in phase
           100   400   600   600
           200   200   800   800
           200   200   800  1200

Snake activations have so small an alpha that they are nearly linear. The second generator (bandwidth extension)
adds next to nothing; its spectrogram bases are the real ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers.pipelines.ltx2.vocoder import DownSample1d, UpSample1d
from torch import Tensor

from scope_ltx.models.small.audio_vae_weights import LOG_MEL_CENTRE
from scope_ltx.models.small.draw import State, draw_state, generator_for, shapes_of
from scope_ltx.models.small.sizes import (
    AUDIO_LATENT_MELS,
    MELS,
    RESNET_DILATIONS,
    STFT_LENGTH,
    VOCODER_FACTORS,
    VOCODER_KERNELS,
    VOCODER_RATE,
    VOCODER_RESNET_KERNELS,
    build_vocoder,
)

_FRAME_RATE = 100


@dataclass(frozen=True)
class _Partial:
    """frequencies: after each of the first four stages, Hz. amplitude: at the level of a latent of 0."""

    frequencies: tuple[int, int, int, int]
    amplitude: float
    mel_group: int


_PARTIALS = (
    _Partial((200, 200, 200, 200), 0.050, 1),
    _Partial((100, 400, 400, 400), 0.035, 4),
    _Partial((100, 400, 600, 600), 0.020, 7),
    _Partial((200, 200, 800, 800), 0.014, 10),
    _Partial((200, 200, 800, 1200), 0.008, 13),
)

_SILENCE_BELOW_CENTRE = 2.5
"""A partial is silent where its mel bins are this far below `LOG_MEL_CENTRE`."""

_SUM_STAGE = 3
"""From this stage on there are too few channels for a lane each."""


def vocoder_weights(seed: int) -> State:
    """State dict of `build_vocoder`, float32."""
    generator = generator_for(seed, "vocoder")
    state = draw_state(shapes_of(build_vocoder), generator, 1.0)
    for name, tensor in state.items():
        if name.endswith(".alpha"):
            tensor.fill_(-3.0)
        elif name.endswith(".beta"):
            tensor.fill_(1.0)
        elif ".convs2." in name and name.endswith("weight"):
            tensor.mul_(0.02)
    _filters(state)
    state["mel_stft.mel_basis"] = mel_filterbank(MELS, STFT_LENGTH, VOCODER_RATE)
    forward, inverse = stft_bases(STFT_LENGTH)
    state["mel_stft.stft_fn.forward_basis"], state["mel_stft.stft_fn.inverse_basis"] = forward, inverse
    # -50 dB under the partials: the extension is heard by a test, not by a person.
    state["bwe_generator.conv_out.weight"].mul_(1e-4)
    _read_mel(state["vocoder.conv_in.weight"], state["vocoder.conv_in.bias"])
    for stage in range(len(VOCODER_FACTORS)):
        _stage(state, stage)
    _stereo(state["vocoder.conv_out.weight"])
    return state


def _filters(state: State) -> None:
    """The anti-aliasing filters, as the class computes them."""
    up, down = UpSample1d(ratio=2, kernel_size=12).filter, DownSample1d(ratio=2, kernel_size=12).filter
    for name in state:
        if name.endswith("upsample.filter"):
            state[name] = up.clone()
        elif name.endswith("downsample.filter"):
            state[name] = down.clone()


def _read_mel(weight: Tensor, bias: Tensor) -> None:
    """Channel i is the amplitude of partial i: the mean of its mel bins, left and right, above silence.

    The two stereo spectrograms lie one after the other. Only the middle tap is used: at the ends of a chunk the
    others would see zeros, and a log-mel of 0 is loud.
    """
    weight.mul_(0.01)
    bins = MELS // AUDIO_LATENT_MELS
    for lane, partial in enumerate(_PARTIALS):
        gain = partial.amplitude / _SILENCE_BELOW_CENTRE
        weight[lane] = 0
        for channel in range(2):
            start = channel * MELS + partial.mel_group * bins
            weight[lane, start : start + bins, 3] = gain / (2 * bins)
        bias[lane] = gain * (_SILENCE_BELOW_CENTRE - LOG_MEL_CENTRE)


def _stage(state: State, stage: int) -> None:
    """Upsampler and filters of one stage. Channels beyond the lanes stay small and random."""
    weight = state[f"vocoder.upsamplers.{stage}.weight"]
    lanes_in = _lanes(stage - 1)
    weight.mul_(0.05)
    weight[: len(_PARTIALS)] = 0
    weight[:, : len(_PARTIALS)] = 0
    pad = (VOCODER_KERNELS[stage] - VOCODER_FACTORS[stage]) // 2
    for lane, partials in enumerate(_lanes(stage)):
        for source, before in enumerate(lanes_in):
            if not set(before) & set(partials):
                continue
            if stage == 0:
                weight[source, lane] = _sine(partials[0].frequencies[0], pad)
            else:
                side = -0.5 if _mirrored(partials, stage) else 0.5
                weight[source, lane, pad - 1 : pad + 2] = torch.tensor([side, 1.0, side])
    if stage == 0:
        return
    rate = _rate(stage)
    for lane, partials in enumerate(_lanes(stage)):
        sign = -1 if _mirrored(partials, stage) else 1
        kept = [partial.frequencies[min(stage, 3)] / rate for partial in partials]
        # What the three taps left of it: (1 +- cos) / 2.
        wanted = [(f, 2 / (1 + sign * math.cos(2 * math.pi * f))) for f in kept]
        _keep(state, stage, lane, wanted + [(0.5 - f, 0.0) for f in kept])


def _mirrored(partials: tuple[_Partial, ...], stage: int) -> bool:
    """Whether this stage keeps the upper of the two frequencies; partials that share a lane agree."""
    frequencies = partials[0].frequencies
    return stage < len(frequencies) and frequencies[stage] != frequencies[stage - 1]


def _rate(stage: int) -> int:
    return _FRAME_RATE * math.prod(VOCODER_FACTORS[: stage + 1])


def _lanes(stage: int) -> tuple[tuple[_Partial, ...], ...]:
    """Which partials share a channel after a stage."""
    if stage < _SUM_STAGE:
        return tuple((partial,) for partial in _PARTIALS)
    if stage == _SUM_STAGE:
        return _PARTIALS[:4], _PARTIALS[4:]
    return (_PARTIALS,)


def _sine(frequency: int, pad: int) -> Tensor:
    """A sine under a triangle two frames wide: neighbouring frames cross-fade, and join in phase."""
    factor, kernel = VOCODER_FACTORS[0], VOCODER_KERNELS[0]
    place = torch.arange(kernel) - pad
    triangle = (1 - (place - factor // 2).abs() / factor).clamp(min=0)
    return triangle * torch.sin(2 * math.pi * frequency / _rate(0) * place)


def _keep(state: State, stage: int, lane: int, response: list[tuple[float, float]]) -> None:
    """Let the stage's widest residual block pass a lane with this response: (cycles per sample, gain) pairs.

    A block adds conv2(act(conv1(act(x)))) to x, and the stage is the mean of its blocks.
    """
    blocks = len(VOCODER_RESNET_KERNELS)
    taps = max(VOCODER_RESNET_KERNELS)
    widest = VOCODER_RESNET_KERNELS.index(taps)
    for block in range(blocks):
        for convolution in range(len(RESNET_DILATIONS)):
            state[_resnet(stage, block, f"convs2.{convolution}")][lane] *= 0.01
    middle = taps // 2
    cosines = torch.tensor(
        [[math.cos(2 * math.pi * f * (tap - middle)) for tap in range(taps)] for f, _ in response],
        dtype=torch.float64,
    )
    gains = torch.tensor([gain for _, gain in response], dtype=torch.float64)
    # The smallest symmetric filter with this response.
    kernel = (torch.linalg.pinv(cosines) @ gains).float()
    kernel[middle] -= 1.0
    first, second = state[_resnet(stage, widest, "convs1.0")], state[_resnet(stage, widest, "convs2.0")]
    first[lane] = 0
    first[lane, lane, middle] = 1.0
    second[lane] = 0
    second[lane, lane] = kernel * blocks


def _resnet(stage: int, block: int, convolution: str) -> str:
    """Weights of a convolution: the module counts the blocks of all stages in one list."""
    return f"vocoder.resnets.{stage * len(VOCODER_RESNET_KERNELS) + block}.{convolution}.weight"


def _stereo(weight: Tensor) -> None:
    """Right is left an eighth of a millisecond later and a little softer."""
    weight.zero_()
    weight[0, 0, 3] = 1.0
    weight[1, 0, 1] = 0.9


def mel_filterbank(mels: int, n_fft: int, rate: int) -> Tensor:
    """(mels, n_fft / 2 + 1) triangles of equal area from 0 to rate / 2, on Slaney's mel scale.

    Linear below 1 kHz (200/3 Hz a mel), logarithmic above (a factor of 6.4 in 27 mels); Slaney 1998, Auditory
    Toolbox.
    """

    def hertz(mel: Tensor) -> Tensor:
        return torch.where(mel < 15, mel * (200 / 3), 1000 * torch.exp((mel - 15) * (math.log(6.4) / 27)))

    top = 15 + math.log(rate / 2000) * 27 / math.log(6.4)
    edges = hertz(torch.linspace(0, top, mels + 2, dtype=torch.float64))
    bins = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    low, middle, high = (edges[start : start + mels, None] for start in range(3))
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def stft_bases(n_fft: int) -> tuple[Tensor, Tensor]:
    """Forward and inverse DFT, (n_fft + 2, 1, n_fft): real parts, then imaginary, under a periodic Hann window.

    inverse is forward's pseudo-inverse without its window, windowed again, so that overlapping frames add up.
    """
    time = torch.arange(n_fft, dtype=torch.float64)
    angles = 2 * math.pi / n_fft * torch.outer(torch.arange(n_fft // 2 + 1, dtype=torch.float64), time)
    waves = torch.cat([angles.cos(), -angles.sin()])
    window = torch.hann_window(n_fft, dtype=torch.float64)
    # Every frequency but the first and the last stands for two.
    weights = torch.full((n_fft // 2 + 1, 1), 2.0, dtype=torch.float64)
    weights[[0, -1]] = 1.0
    inverse = waves * torch.cat([weights, weights]) / n_fft
    return (waves * window).float()[:, None], (inverse * window).float()[:, None]
