"""Trains the audio VAE on log-mels of the world's sounds.

python -m training.audio_vae --seconds 120
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scope_ltx.models.small.draw import draw_state, generator_for, shapes_of
from scope_ltx.models.small.sizes import AUDIO_LATENT_CHANNELS, AUDIO_LATENT_MELS, build_audio_vae
from training.export import write_audio_vae
from training.graphs import GraphedStep
from training.optim import Trainer
from training.sound_bank import SoundBank, window_frames
from training.stage import Stage, stage_arguments, stage_of

USED_CHANNELS = 4
"""Of 8, so 64 of a token's 128 values: fewer are learnt sooner by a transformer, and the world needs no more."""

RATE = 2e-3
LATENTS, BATCH = 33, 48
_NOISE = 0.2
_NOISE_FROM, _NOISE_FULL = 0.05, 0.15

_AUDIBLE = -7.5
"""Log-mel under which errors count little: 60 dB under a tone. The floor of the analysis, -11.5, is so far down
that window sidelobes and rounding reach it."""
_INAUDIBLE_WEIGHT = 0.05


def initial_weights(seed: int) -> dict[str, Tensor]:
    """Unit gain and small residuals, as the video VAE's; log-mels are about -9 to 0, so the first layer is small.
    Statistics are those of tokens: 8 channels x 16 mel places."""
    state = draw_state(shapes_of(build_audio_vae), generator_for(seed, "audio VAE training"), 1.0)
    for name, weight in state.items():
        if name.endswith("conv2.conv.weight"):
            weight.mul_(0.3)
    state["encoder.conv_in.conv.weight"].mul_(0.2)
    state["encoder.conv_out.conv.weight"][USED_CHANNELS:] = 0
    state["decoder.conv_in.conv.weight"][:, USED_CHANNELS:] = 0
    # Log-variances: encodings are certain.
    state["encoder.conv_out.conv.bias"][AUDIO_LATENT_CHANNELS:] = -10.0
    state["decoder.conv_out.conv.bias"].fill_(-7.0)
    tokens = AUDIO_LATENT_CHANNELS * AUDIO_LATENT_MELS
    return state | {"latents_mean": torch.zeros(tokens), "latents_std": torch.ones(tokens)}


def build() -> nn.Module:
    """diffusers sizes the statistics by the width, which is their number only at the published size."""
    module = build_audio_vae()
    tokens = AUDIO_LATENT_CHANNELS * AUDIO_LATENT_MELS
    module.register_buffer("latents_mean", torch.zeros(tokens))
    module.register_buffer("latents_std", torch.ones(tokens))
    return module


def encode(vae: Any, mel: Tensor) -> Tensor:
    """(B, 2, T, 64) -> (B, 8, ceil(T / 4), 16), not normalised; from the fifth channel on 0."""
    latents: Tensor = vae.encoder(mel)[:, :USED_CHANNELS]
    return _padded(latents)


def _padded(latents: Tensor) -> Tensor:
    return functional.pad(latents, (0, 0, 0, 0, 0, AUDIO_LATENT_CHANNELS - USED_CHANNELS))


def noise(stage: Stage, levels: Tensor, latents: int) -> Tensor:
    """(B,) sizes -> (B, 8, latents, 16), on the used channels."""
    shape = (len(levels), USED_CHANNELS, latents, AUDIO_LATENT_MELS)
    drawn = torch.randn(shape, generator=stage.generator, device=stage.device)
    return _padded(drawn * levels.view(-1, 1, 1, 1))


def mel_loss(heard: Tensor, mel: Tensor) -> Tensor:
    audible = heard.clamp(min=_AUDIBLE) - mel.clamp(min=_AUDIBLE)
    rest = (heard - mel).abs().mean()
    return audible.abs().mean() + audible.square().mean() + _INAUDIBLE_WEIGHT * rest


def moments_loss(latents: Tensor) -> Tensor:
    used = latents[:, :USED_CHANNELS]
    mean, variance = used.mean((0, 2, 3)), used.var((0, 2, 3))
    return (mean.square() + variance.clamp(min=1e-6).log().square()).mean()


def noise_levels(stage: Stage, count: int) -> Tensor:
    shown = min(1.0, max(0.0, (stage.progress - _NOISE_FROM) / (_NOISE_FULL - _NOISE_FROM)))
    return torch.rand(count, generator=stage.generator, device=stage.device).mul_(_NOISE * shown)


def train(stage: Stage, vae: Any, bank: SoundBank, arguments: argparse.Namespace) -> None:
    trainer = Trainer(vae, RATE)
    if (state := stage.resume()) is not None:
        trainer.restore(state)

    def update(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mel = inputs["mel"]
        latents = encode(vae, mel)
        heard = vae.decoder(latents + inputs["noise"])
        error = mel_loss(heard, mel)
        norm = trainer.step(error + 0.003 * moments_loss(latents))
        audible = (heard.detach().clamp(min=_AUDIBLE) - mel.clamp(min=_AUDIBLE)).abs().mean()
        return {"loss": error.detach(), "error_db": audible * (20.0 / math.log(10.0)), "gradient": norm}

    step = GraphedStep(update, graphed=arguments.graph)
    stage.start_clock()
    while stage.running:
        mel = bank.sample(arguments.batch, window_frames(LATENTS), stage.rng).mel
        trainer.prepare(stage.step, stage.progress)
        figures = step({"mel": mel, "noise": noise(stage, noise_levels(stage, arguments.batch), LATENTS)})
        if stage.logs_now:
            stage.record({name: float(value) for name, value in figures.items()})
        stage.step += 1
        stage.save_now_and_then(trainer.state)
    stage.save(trainer.state())
    trainer.use_mean()


@torch.inference_mode()
def measure_statistics(stage: Stage, vae: Any, bank: SoundBank, batches: int) -> None:
    """Store mean and deviation of each of the 128 values of a token; unused ones keep 0 and 1."""
    mels = (bank.sample(16, window_frames(129), stage.rng).mel for _ in range(batches))
    tokens = torch.cat([encode(vae, mel).transpose(1, 2).flatten(2) for mel in mels]).flatten(0, 1)
    used = USED_CHANNELS * AUDIO_LATENT_MELS
    vae.latents_mean[:used] = tokens.mean(0)[:used]
    vae.latents_std[:used] = tokens.std(0)[:used].clamp(min=0.05)


def main() -> None:
    parser = stage_arguments("Trains the audio VAE")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--clips", type=int, default=1500, help="kept on the device: 1.5 MB each")
    arguments = parser.parse_args()
    stage = stage_of("audio_vae", arguments)
    vae: Any = build()
    vae.load_state_dict(initial_weights(arguments.seed))
    vae.to(stage.device)
    bank = SoundBank(arguments.clips, stage.device, arguments.seed)
    train(stage, vae, bank, arguments)
    measure_statistics(stage, vae, bank, 24 if stage.device.type == "cuda" else 2)
    write_audio_vae(stage.directory / "audio_vae.safetensors", vae.state_dict())
    stage.plot(("loss", "error_db"))


if __name__ == "__main__":
    main()
