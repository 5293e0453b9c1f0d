"""All of a chunk's conditions -> the two token sequences that denoising starts from.

The order is fixed, so that one seed gives the same noise to the target whatever conditions it: noise of the
picture, noise of the sound, then what conditions draw. Pins come before references.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scope_ltx.conditioning.continuity import extend_video
from scope_ltx.conditioning.pins import FramePin, apply_pins
from scope_ltx.conditioning.reference import VideoReference, append_reference, kept_frames
from scope_ltx.conditioning.sequence import TokenSequence, freeze
from scope_ltx.conditioning.sound import driving, extend_audio, with_voice
from scope_ltx.conditioning.stages import Stage
from scope_ltx.config import LTX2Config
from scope_ltx.inputs import ChunkInputs, Pixels, Samples
from scope_ltx.mode_parameters import ControlGroup
from scope_ltx.sampling.geometry import SPATIAL_COMPRESSION, ChunkGeometry, latent_grid, reference_size
from scope_ltx.sampling.headroom import Demand
from scope_ltx.sound_in.lengths import tokens_of, tokens_within
from scope_ltx.sound_in.resample import to_model_rate

CHANNELS = 128


class Encoder(Protocol):
    """`scope_ltx.models.encoders.InputEncoder`, or a fake: inputs to tokens (1, T, 128)."""

    def still(self, pixels: Pixels, height: int, width: int) -> Tensor: ...

    def clip(self, frames: Pixels, height: int, width: int) -> Tensor: ...

    def guide(self, frames: Pixels, group: ControlGroup, height: int, width: int) -> tuple[Tensor, int]: ...

    def voice(self, samples: Samples) -> Tensor: ...

    def sound(self, samples: Samples) -> Tensor: ...


class Coordinates(Protocol):
    """`scope_ltx.sampling.denoiser.Denoiser`: bounds of latent cells."""

    def video_coords(self, frames: int, height: int, width: int, frame_rate: float) -> Tensor: ...

    def audio_coords(self, tokens: int) -> Tensor: ...


@dataclass(frozen=True)
class GuideScales:
    """What the chosen in-context LoRA wants of its reference: how many times smaller, and slower."""

    downscale: int = 1
    temporal: int = 1


def demand_of(config: LTX2Config, inputs: ChunkInputs, scales: GuideScales, passes: int) -> Demand:
    """What the largest stage of a chunk asks of the device's memory."""
    geometry = ChunkGeometry.of(config)
    still = geometry.latent_height * geometry.latent_width
    appended = sum(still for pin in inputs.pins if pin.frame_idx)
    encoded = 0 if inputs.tail is None else inputs.tail.frames[..., 0].size
    if inputs.reference is not None and not config.two_stage:
        appended += geometry.video_tokens // (scales.downscale**2 * scales.temporal)
        encoded = max(encoded, inputs.reference[..., 0].size // scales.downscale**2)
    if inputs.voice is not None:
        appended += tokens_of(inputs.voice.shape[1])
    return Demand.of(geometry, appended_tokens=appended, passes=passes, encoded_pixels=encoded)


class SequenceBuilder:
    """Lays out one chunk. `seed` decides all noise, drawn on the CPU: one seed is one noise on every device."""

    def __init__(
        self,
        config: LTX2Config,
        inputs: ChunkInputs,
        scales: GuideScales,
        seed: int,
        encoder: Encoder,
        coords: Coordinates,
        device: torch.device,
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._scales = scales
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._encoder = encoder
        self._coords = coords
        self._device = device

    def sequences(self, stage: Stage, before: tuple[Tensor, Tensor] | None) -> tuple[TokenSequence, TokenSequence]:
        """Video and audio of a stage. `before`: the latents that it refines, of its own size.

        Raises ValueError for inputs that do not fit the chunk or each other, and what encoding raises.
        """
        geometry = stage.geometry
        picture, sound = (self._noise(tokens) for tokens in (geometry.video_tokens, geometry.audio_tokens))
        if before is not None:
            picture = before[0] + (picture - before[0]) * stage.noise_scale
            sound = before[1] + (sound - before[1]) * stage.noise_scale
        video = TokenSequence(picture, self._coords.video_coords(*geometry.grid, float(geometry.frame_rate)))
        audio = TokenSequence(sound, self._coords.audio_coords(geometry.audio_tokens))
        return self._conditioned_video(video, stage), self._conditioned_audio(audio, stage, before)

    def _conditioned_video(self, video: TokenSequence, stage: Stage) -> TokenSequence:
        inputs, geometry = self._inputs, stage.geometry
        height, width = (cells * SPATIAL_COMPRESSION for cells in geometry.grid[1:])
        rate = float(geometry.frame_rate)
        if inputs.tail is not None:
            video = extend_video(video, self._encoder.clip(inputs.tail.frames, height, width), 1.0)
        pins = [
            FramePin(self._encoder.still(pin.pixels, height, width), pin.frame_idx, pin.strength)
            for pin in inputs.pins
        ]
        coords = self._coords.video_coords
        video = apply_pins(video, pins, geometry.grid, rate, coords, self._noise, stage.noise_scale)
        if inputs.reference is None or stage.refines:
            return video
        return append_reference(video, self._reference(inputs.reference, height, width), rate, coords, self._noise)

    def _reference(self, frames: Pixels, height: int, width: int) -> VideoReference:
        config, scales = self._config, self._scales
        size = reference_size(height, width, scales.downscale)
        kept = frames[list(kept_frames(len(frames), scales.temporal))]
        tokens, count = self._encoder.guide(kept, config.control_group, *size)
        grid = latent_grid(count, *size)
        return VideoReference(tokens, grid, config.control_strength, scales.downscale, scales.temporal)

    def _conditioned_audio(
        self, audio: TokenSequence, stage: Stage, before: tuple[Tensor, Tensor] | None
    ) -> TokenSequence:
        inputs = self._inputs
        if inputs.driving is not None:
            return driving(audio, self._encoder.sound(inputs.driving.model))
        if inputs.voice is not None and before is not None:
            # As ID-LoRA's two-stage script: the second stage knows no reference, so the voice must not change.
            return freeze(audio, before[1])
        if inputs.tail is not None and inputs.tail.samples is not None:
            samples = inputs.tail.samples
            tokens = self._encoder.sound(to_model_rate(samples))[:, : tokens_within(samples.shape[1])]
            if tokens.shape[1]:
                audio = extend_audio(audio, tokens)
        return audio if inputs.voice is None else with_voice(audio, self._encoder.voice(inputs.voice))

    def _noise(self, tokens: int) -> Tensor:
        return torch.randn(1, tokens, CHANNELS, generator=self._generator).to(self._device)
