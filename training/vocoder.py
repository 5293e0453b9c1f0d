"""Trains the vocoder: log-mels -> 16 kHz, on what the audio VAE makes of sounds; its extension adds nothing.

    python -m training.vocoder --audio-vae training/out/audio_vae.safetensors --device cpu --seconds 1500

The first stage, at the 100 Hz of the mel frames, understands them; the next two, at 500 and 1000 Hz, write blocks
of samples into their channels, and the later ones only put these in order: upsamplers that interleave channels,
residuals that are zero. That is exact and needs a tenth of the arithmetic. The world has nothing above 8 kHz, so
the bandwidth extension is left at its resampler.

The world's sounds begin on the grid of mel frames, so that a spectrogram tells even their phase: samples are
compared directly too, beside spectrograms that do not hear it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scope_ltx.models.antialias import Activation, SwitchedActivation, antialiased_snake, switchable_activations
from scope_ltx.models.small.draw import draw_state, generator_for, shapes_of
from scope_ltx.models.small.sizes import (
    BWE_FACTORS,
    MELS,
    STFT_LENGTH,
    VOCODER_FACTORS,
    VOCODER_KERNELS,
    VOCODER_RATE,
    VOCODER_RESNET_KERNELS,
    build_vocoder,
)
from scope_ltx.models.small.spectral_tables import mel_filterbank, stft_bases
from training.audio_vae import build as build_audio_vae
from training.audio_vae import encode, noise
from training.export import read_audio_vae, read_vocoder, write_vocoder
from training.graphs import GraphedStep
from training.optim import Trainer
from training.sound_bank import SoundBank, window_frames
from training.spectral import SpectralDistance
from training.stage import Stage, stage_arguments, stage_of

RATE = 1e-3
"""Of AdamW; at 3e-3 the loss rose again after 100 steps. Kernels go by Muon: after 100 steps on a CPU a seventh of
the sound's energy was wrong, by AdamW alone two fifths, and after 2,500 still half as the loss went up and
down."""
LATENTS, BATCH = 26, 16
LEARNING_STAGES = 3
_MEL_CENTRE, _MEL_SPREAD = -6.0, 3.0
_LEVEL = 0.2
"""Of the sound, by the scale of the values within."""
_TRUE_MELS = 0.25
"""Share of each batch that hears the analysis itself instead of the audio VAE's reconstruction."""
_NOISE = 0.25
_SAMPLES_WEIGHT = 2.0

_FUSED = ".switched.original."


class TrainedActivation(nn.Module):
    """An anti-aliased activation as `call` computes it, with gradients for its constants."""

    def __init__(self, switched: SwitchedActivation, call: Activation) -> None:
        super().__init__()
        self.switched = switched
        self._call = call

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x.contiguous(), *self.switched.constants())


def fuse_activations(vocoder: nn.Module, call: Activation) -> None:
    """Replace diffusers' activations, which run as grouped convolutions, by `call`, in place."""
    switched = set(switchable_activations(vocoder))
    for parent in list(vocoder.modules()):
        for name, child in list(parent.named_children()):
            if child in switched and not isinstance(parent, TrainedActivation):
                setattr(parent, name, TrainedActivation(child, call))


def plain_state(vocoder: nn.Module) -> dict[str, Tensor]:
    """State dict in diffusers' names, whether its activations were replaced or not."""
    return {name.replace(_FUSED, "."): tensor for name, tensor in vocoder.state_dict().items()}


def initial_weights(seed: int) -> dict[str, Tensor]:
    """Unit gain and small residuals in the stages that learn; interleaving in the others; no extension; the
    analysis' tables and filters as they are computed."""
    with torch.device("cpu"):
        filters = build_vocoder().state_dict()
    state = draw_state(shapes_of(build_vocoder), generator_for(seed, "vocoder training"), 1.0)
    for name, tensor in state.items():
        if name.endswith("filter"):
            state[name] = filters[name]
        elif ".convs2." in name and name.endswith("weight"):
            tensor.mul_(0.3)
        elif ".upsamplers." in name and name.endswith("weight"):
            # Inputs come first in a transposed kernel, and a result hears only kernel / stride of its taps.
            factors = VOCODER_FACTORS if name.startswith("vocoder.") else BWE_FACTORS
            tensor.mul_((tensor.shape[1] / tensor.shape[0] * factors[int(name.split(".")[2])]) ** 0.5)
    state["mel_stft.mel_basis"] = mel_filterbank(MELS, STFT_LENGTH, VOCODER_RATE)
    state["mel_stft.stft_fn.forward_basis"], state["mel_stft.stft_fn.inverse_basis"] = stft_bases(STFT_LENGTH)
    _centre_input(state["vocoder.conv_in.weight"], state["vocoder.conv_in.bias"])
    for stage in range(LEARNING_STAGES, len(VOCODER_FACTORS)):
        _interleaver(state, stage)
    # So small a frequency leaves the activation linear.
    state["vocoder.act_out.act.alpha"].fill_(-12.0)
    _mono_output(state["vocoder.conv_out.weight"])
    state["bwe_generator.conv_out.weight"].zero_()
    return state


def _centre_input(weight: Tensor, bias: Tensor) -> None:
    """Log-mels are between -11.5 and about 0; the network sees them around 0."""
    weight.mul_(1.0 / _MEL_SPREAD)
    bias.copy_(-_MEL_CENTRE * weight.sum((1, 2)))


def _interleaver(state: dict[str, Tensor], stage: int) -> None:
    """What `interleave` does."""
    weight, bias = (state[f"vocoder.upsamplers.{stage}.{kind}"] for kind in ("weight", "bias"))
    weight.zero_()
    bias.zero_()
    factor, kernel = VOCODER_FACTORS[stage], VOCODER_KERNELS[stage]
    kept = torch.arange(weight.shape[0] // factor)
    for phase in range(factor):
        # The middle taps of a kernel are the samples of their own input.
        weight[kept + phase * len(kept), kept, (kernel - factor) // 2 + phase] = 1.0
    blocks = len(VOCODER_RESNET_KERNELS)
    for name, tensor in state.items():
        if name.startswith(tuple(f"vocoder.resnets.{stage * blocks + block}.convs2." for block in range(blocks))):
            tensor.zero_()


def _mono_output(weight: Tensor) -> None:
    """Both sides hear the first channel; the second is left to the learning stages as room to compute in."""
    weight.zero_()
    weight[:, 0, weight.shape[2] // 2] = _LEVEL


def interleave(x: Tensor, factor: int) -> Tensor:
    """(B, C, T) -> (B, C / factor, factor T): channels c, c + C / factor, ... are samples of channel c in turn."""
    batch, channels, length = x.shape
    return x.view(batch, factor, channels // factor, length).permute(0, 2, 3, 1).flatten(2)


def core(vocoder: Any, mel: Tensor) -> Tensor:
    """(B, 2, T, 64) -> (B, 2, 160 T): diffusers' forward, with `interleave` for the stages that do only that."""
    x = vocoder.conv_in(mel.transpose(2, 3).flatten(1, 2))
    blocks = len(VOCODER_RESNET_KERNELS)
    for stage in range(LEARNING_STAGES):
        x = vocoder.upsamplers[stage](x)
        resnets = vocoder.resnets[stage * blocks : (stage + 1) * blocks]
        x = torch.stack([resnet(x) for resnet in resnets]).mean(0)
    for stage in range(LEARNING_STAGES, len(VOCODER_FACTORS)):
        x = interleave(x, VOCODER_FACTORS[stage])
        # An upsampler leaves half of the channels: those that nothing was interleaved into are zero.
        x = functional.pad(x, (0, 0, 0, vocoder.upsamplers[stage].out_channels - x.shape[1]))
    low: Tensor = vocoder.conv_out(vocoder.act_out(x))
    return low


def learning(vocoder: Any) -> list[nn.Parameter]:
    """Parameters of the learning stages, of the input, and of the output's filter."""
    blocks = len(VOCODER_RESNET_KERNELS)
    modules = [vocoder.conv_in, *vocoder.upsamplers[:LEARNING_STAGES], vocoder.conv_out]
    modules += vocoder.resnets[: LEARNING_STAGES * blocks]
    return [parameter for module in modules for parameter in module.parameters()]


class Losses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spectra = SpectralDistance((128, 512, 2048))

    def forward(self, heard: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, distance of spectrograms, noise to signal), of (B, 2, N) at 16 kHz."""
        spectra = self.spectra(heard, wanted)
        noise = (heard - wanted).square().mean((1, 2))
        signal = wanted.square().mean((1, 2))
        # Per clip, so that quiet ones count too. The addends: a tone 24 dB under full scale, or silence would
        # outweigh all else, and what keeps the root's slope finite.
        ratio = noise / (signal + 2e-3) + 1e-4
        return spectra + _SAMPLES_WEIGHT * ratio.sqrt().mean(), spectra, noise.sum() / signal.sum()


@torch.no_grad()
def heard_mels(vae: Any, mel: Tensor, noise: Tensor) -> Tensor:
    """What the audio VAE makes of most of them, under a latent noise such as a transformer leaves."""
    latents = encode(vae, mel)
    spread = vae.latents_std.view(1, latents.shape[1], 1, -1)
    made = vae.decoder(latents + spread * noise)
    kept = round(len(mel) * _TRUE_MELS)
    return torch.cat([mel[:kept], made[kept:]])


def noise_levels(stage: Stage, count: int) -> Tensor:
    """(B,): none for three in ten."""
    drawn = torch.rand((2, count), generator=stage.generator, device=stage.device)
    return drawn[0] * (drawn[1] < 0.7) * _NOISE


def train(stage: Stage, vocoder: Any, vae: Any, bank: SoundBank, arguments: argparse.Namespace) -> None:
    trained = learning(vocoder.vocoder)
    # The output filter has two rows: AdamW keeps them.
    kernels = [weight for weight in trained if weight.ndim == 3 and len(weight) > 2]
    trainer = Trainer(vocoder, arguments.rate, warm_up=50, trained=trained, muon=kernels)
    if (state := stage.resume()) is not None:
        trainer.restore(state)
    losses = Losses().to(stage.device)

    def update(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        low = core(vocoder.vocoder, heard_mels(vae, inputs["mel"], inputs["noise"]))
        # Both sides get the mean: the output is mono.
        loss, spectra, ratio = losses(low, inputs["low"].mean(1, keepdim=True).expand_as(low))
        norm = trainer.step(loss)
        return {"loss": loss.detach(), "spectra": spectra.detach(), "noise": ratio.detach(), "gradient": norm}

    step = GraphedStep(update, graphed=arguments.graph)
    while stage.running:
        sounds = bank.sample(arguments.batch, window_frames(LATENTS), stage.rng)
        trainer.prepare(stage.step, stage.progress)
        drawn = noise(stage, noise_levels(stage, arguments.batch), LATENTS)
        figures = step({"mel": sounds.mel, "low": sounds.low, "noise": drawn})
        if stage.step == 0:
            stage.record({"compiled_s": stage.seconds})
            stage.start_clock()
        if stage.logs_now:
            stage.record({name: float(value) for name, value in figures.items()})
        stage.step += 1
        stage.save_now_and_then(trainer.state)
    stage.save(trainer.state())
    trainer.use_mean()


def main() -> None:
    parser = stage_arguments("Trains the vocoder")
    parser.add_argument("--audio-vae", type=Path, required=True)
    parser.add_argument("--start", type=Path, default=None, help="weights to begin with")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--clips", type=int, default=400, help="kept on the device: 1.5 MB each")
    arguments = parser.parse_args()
    stage = stage_of("vocoder", arguments)
    vae: Any = build_audio_vae()
    vae.load_state_dict(read_audio_vae(arguments.audio_vae))
    vae.to(stage.device).requires_grad_(False)
    vocoder: Any = build_vocoder()
    state = initial_weights(arguments.seed) if arguments.start is None else read_vocoder(arguments.start)
    vocoder.load_state_dict(state)
    if arguments.compile:
        # One compilation for the shapes of all stages: each of its own would take minutes.
        fuse_activations(vocoder, torch.compile(antialiased_snake, dynamic=True))
    vocoder.to(stage.device)
    bank = SoundBank(arguments.clips, stage.device, arguments.seed)
    train(stage, vocoder, vae, bank, arguments)
    write_vocoder(stage.directory / "vocoder.safetensors", plain_state(vocoder))
    stage.plot(("loss", "spectra", "noise"))


if __name__ == "__main__":
    main()
