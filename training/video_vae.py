"""Trains the video VAE: 32 of its 128 latent channels, flat shapes with sharp edges, robust to latent noise.

    python -m training.video_vae --seconds 480
    python -m training.video_vae --decoder-only --start training/out/video_vae.safetensors --seconds 300

The second form leaves the encoder as it is, so that latents made before stay valid.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from scope_ltx.models.small.draw import draw_state, generator_for, shapes_of
from scope_ltx.models.small.sizes import LATENT_CHANNELS, build_video_vae
from training.export import read_video_vae, write_video_vae
from training.optim import Trainer
from training.stage import Stage, stage_arguments, stage_of
from training.video_bank import GROUP, ClipSize, VideoBank

USED_CHANNELS = 32
"""Of 128. More does not help a decoder of this width (30.9 dB at 32, 31.0 at 64), and fewer are learnt sooner by
a transformer."""

RATE = 1e-3
CROP, FRAMES, BATCH = 160, 33, 16


@dataclass(frozen=True)
class Extra:
    """A batch of another geometry in every 16th step, the `turn`th."""

    frames: int
    count: int
    side: int
    turn: int


_EVERY = 16
EXTRAS = (Extra(1, 48, CROP, 5), Extra(65, 3, 256, 13))
"""Stills, and clips so long and wide that their middle sees no border, as most of a generated clip."""

_NOISE = 0.2
_NOISE_FROM, _NOISE_FULL = 0.04, 0.12
"""Progress between which the latent noise comes in: a decoder that cannot draw yet would ignore its latents."""

_EDGE_WEIGHT, _EDGE_PIXELS, _EDGE_STEP = 5.0, 4, 0.1
"""Pixels so near to a step of so much count more: they are few, and they are the shape."""

BANKS = (ClipSize(65, 384, 320), ClipSize(65, 256, 256))

LossOf = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def initial_weights(seed: int) -> dict[str, Tensor]:
    """Unit gain and small residuals. With the class's own start the decoder ignores its latents: its upsamplers
    have no residual, and each default convolution shrinks the signal."""
    state = draw_state(shapes_of(build_video_vae), generator_for(seed, "video VAE training"), 1.0)
    for name, weight in state.items():
        if name.endswith("conv2.conv.weight"):
            weight.mul_(0.3)
    out = "encoder.conv_out.conv"
    state[f"{out}.weight"][USED_CHANNELS:] = 0
    # The last channel is the log-variance of all others: encodings are certain.
    state[f"{out}.bias"][-1] = -10.0
    state["decoder.conv_in.conv.weight"].mul_(2.0)
    state["decoder.conv_in.conv.weight"][:, USED_CHANNELS:] = 0
    state["latents_std"].fill_(1.0)
    return state


def encode(vae: Any, clips: Tensor) -> Tensor:
    """(B, 3, F, H, W) -> (B, 32, f, h, w) float32, not normalised."""
    latents: Tensor = vae.encoder(clips)[:, :USED_CHANNELS].float()
    return latents


def latent_shape(clips: Tensor) -> tuple[int, ...]:
    """Of what `encode` makes of them."""
    count, _, frames, height, width = clips.shape
    return (count, USED_CHANNELS, (frames + 7) // 8, height // 32, width // 32)


def decode(vae: Any, latents: Tensor) -> Tensor:
    padded = functional.pad(latents, (0, 0, 0, 0, 0, 0, 0, LATENT_CHANNELS - USED_CHANNELS))
    clips: Tensor = vae.decoder(padded).float()
    return clips


def edge_weights(clips: Tensor) -> Tensor:
    """(B, 3, F, H, W) -> (B, 1, F, H, W): `_EDGE_WEIGHT` near edges, 1 elsewhere."""
    right = (clips[..., 1:] - clips[..., :-1]).abs().amax(1)
    down = (clips[..., 1:, :] - clips[..., :-1, :]).abs().amax(1)
    edges = (functional.pad(right, (0, 1)) > _EDGE_STEP) | (functional.pad(down, (0, 0, 0, 1)) > _EDGE_STEP)
    near = functional.max_pool2d(edges.to(clips.dtype), 2 * _EDGE_PIXELS + 1, 1, _EDGE_PIXELS)
    return near.mul(_EDGE_WEIGHT - 1.0).add(1.0)[:, None]


def loss_terms(vae: Any, *, decoder_only: bool) -> LossOf:
    """The loss of clips under a latent noise (B, 32, f, h, w): (loss, mean squared error)."""

    def loss_of(clips: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=clips.is_cuda):
            with torch.set_grad_enabled(not decoder_only):
                latents = encode(vae, clips)
            drawn = decode(vae, latents + noise)
        error = drawn - clips
        weights = edge_weights(clips)
        pixels = (weights * (error.abs() + 2.0 * error.square())).mean() / weights.mean()
        slopes = (error[..., 1:] - error[..., :-1]).abs().mean()
        slopes = slopes + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        mean, variance = latents.mean((0, 2, 3, 4)), latents.var((0, 2, 3, 4))
        moments = (mean.square() + variance.clamp(min=1e-6).log().square()).mean()
        loss = pixels + 0.5 * slopes + (0.0 if decoder_only else 0.003) * moments
        return loss, error.detach().square().mean()

    return loss_of


class Sampler:
    """Batches from two banks, of the default frame and of the square one of the tests, with latent noise."""

    def __init__(self, stage: Stage, clips: int, sizes: Sequence[ClipSize], groups: Sequence[int]) -> None:
        counts = (max(1, clips // 6) * GROUP, max(1, clips // 12) * GROUP)
        self._stage = stage
        self.banks = [
            VideoBank(count, size, stage.device, stage.seed, drawn)
            for count, size, drawn in zip(counts, sizes, groups, strict=True)
        ]

    def batch(self, count: int, frames: int, side: int) -> Tensor:
        shares = (count * 5 // 8, count - count * 5 // 8)
        rng = self._stage.rng
        parts = [bank.sample(n, frames, side, rng) for bank, n in zip(self.banks, shares, strict=True) if n]
        return torch.cat(parts).contiguous(memory_format=torch.channels_last_3d)

    def noise(self, clips: Tensor, *, full: bool) -> Tensor:
        """For the latents of `clips`, of a size between none and the most."""
        stage = self._stage
        shown = 1.0 if full else min(1.0, max(0.0, (stage.progress - _NOISE_FROM) / (_NOISE_FULL - _NOISE_FROM)))
        levels = torch.rand((len(clips), 1, 1, 1, 1), generator=stage.generator, device=stage.device)
        drawn = torch.randn(latent_shape(clips), generator=stage.generator, device=stage.device)
        return drawn * levels * (_NOISE * shown)

    def refresh(self, step: int) -> None:
        if step % 2 == 0:
            self.banks[step // 2 % 2].refresh()

    def state(self) -> dict[str, Any]:
        return {"groups": [bank.groups for bank in self.banks]}


def train(stage: Stage, vae: Any, arguments: argparse.Namespace, sizes: Sequence[ClipSize] = BANKS) -> None:
    trained = vae.decoder.parameters() if arguments.decoder_only else vae.parameters()
    trainer = Trainer(vae, arguments.rate, trained=trained)
    if (state := stage.resume()) is not None:
        trainer.restore(state)
    sampler = Sampler(stage, arguments.clips, sizes, (0, 0) if state is None else state["groups"])
    stage.record({"banks_s": stage.seconds})
    plain = loss_terms(vae, decoder_only=arguments.decoder_only)
    fast = torch.compile(plain, dynamic=False) if arguments.compile else plain
    side, full = arguments.crop, arguments.decoder_only

    def update(loss_of: LossOf, count: int, frames: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
        clips = sampler.batch(count, frames, side)
        loss, mse = loss_of(clips, sampler.noise(clips, full=full))
        trainer.prepare(stage.step, stage.progress)
        return loss.detach(), mse, trainer.step(loss)

    if stage.device.type == "cuda":
        clips = torch.zeros((arguments.batch, 3, FRAMES, side, side), device=stage.device)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
        fast(clips, torch.zeros(latent_shape(clips), device=stage.device))[0].backward()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    stage.record({"compiled_s": stage.seconds})
    stage.start_clock()
    while stage.running:
        loss, mse, norm = update(fast, arguments.batch, FRAMES, side)
        for extra in EXTRAS:
            if arguments.extras and stage.step % _EVERY == extra.turn:
                _, extra_mse, _ = update(plain, extra.count, extra.frames, extra.side)
                if stage.step % (8 * _EVERY) == extra.turn:
                    stage.record({f"psnr_{extra.frames}": psnr(extra_mse)})
        sampler.refresh(stage.step)
        if stage.logs_now:
            stage.record({"loss": float(loss), "psnr": psnr(mse), "gradient": float(norm)})
            if math.isnan(float(loss)):
                raise ArithmeticError(f"the loss is not a number at step {stage.step}: lower --rate")
        stage.step += 1
        stage.save_now_and_then(lambda: trainer.state() | sampler.state())
    stage.save(trainer.state() | sampler.state())
    trainer.use_mean()


def psnr(mse: Tensor) -> float:
    """dB, for values between -1 and 1."""
    return float(10.0 * torch.log10(4.0 / mse))


@torch.inference_mode()
def measure_statistics(stage: Stage, vae: Any, clips: int) -> None:
    """Store the mean and deviation of each channel over whole frames; unused channels keep 0 and 1."""
    bank = VideoBank(clips, BANKS[0], stage.device, stage.seed + 1)
    total, squares = torch.zeros(2, USED_CHANNELS, dtype=torch.float64, device=stage.device)
    count = 0
    for _ in range(clips):
        latents = encode(vae, bank.sample(1, 65, 320, stage.rng)).double()
        total += latents.sum((0, 2, 3, 4))
        squares += latents.square().sum((0, 2, 3, 4))
        count += latents[:, 0].numel()
    mean = total / count
    vae.latents_mean[:USED_CHANNELS] = mean
    vae.latents_std[:USED_CHANNELS] = (squares / count - mean.square()).sqrt()


def main() -> None:
    parser = stage_arguments("Trains the video VAE")
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--start", type=Path, default=None, help="weights to begin with")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--crop", type=int, default=CROP)
    parser.add_argument("--clips", type=int, default=2400, help="kept on the device: 20 MB each")
    parser.add_argument(
        "--extras", action=argparse.BooleanOptionalAction, default=True, help="other geometries too"
    )
    arguments = parser.parse_args()
    stage = stage_of("video_decoder" if arguments.decoder_only else "video_vae", arguments)
    vae: Any = build_video_vae()
    weights = initial_weights(arguments.seed) if arguments.start is None else read_video_vae(arguments.start)
    vae.load_state_dict(weights)
    vae.to(stage.device)
    if stage.device.type == "cuda":
        vae.to(memory_format=torch.channels_last_3d)
        # Shapes stay the same from step to step: cuDNN tries its ways once.
        torch.backends.cudnn.benchmark = True
    train(stage, vae, arguments)
    if not arguments.decoder_only:
        measure_statistics(stage, vae, 8 if stage.device.type == "cpu" else 160)
    write_video_vae(stage.directory / "video_vae.safetensors", vae.state_dict())
    stage.plot(("loss", "psnr", "psnr_1", "psnr_65"))


if __name__ == "__main__":
    main()
