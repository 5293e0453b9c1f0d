"""A chunk's inputs as token sequences: what is laid out where, and from which noise."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor

from scope_ltx.conditioning.chunk import GuideScales, SequenceBuilder, demand_of
from scope_ltx.conditioning.stages import STAGE_TWO_SIGMAS, Stage, plan_stages
from scope_ltx.config import LTX2Config
from scope_ltx.inputs import NO_INPUTS, ChunkInputs, DrivingSound, PinnedImage, Tail
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sound_in.lengths import model_samples_for, tokens_of, tokens_within
from scope_ltx.sound_in.resample import to_model_rate

CONFIG = LTX2Config(height=128, width=64, num_frames=17)
GEOMETRY = ChunkGeometry.of(CONFIG)
SOUND = np.zeros((2, model_samples_for(GEOMETRY.audio_tokens)), np.float32)
CPU = torch.device("cpu")
SAME_SIZE = GuideScales()
VOICE = np.zeros((2, 16_000), np.float32)


class FakeEncoder:
    """Tokens whose value tells what was encoded: 10 a still, 20 a clip, 30 a guide, 40 a voice, 50 sound."""

    def __init__(self) -> None:
        self.sizes: list[tuple[str, int, int]] = []

    def still(self, pixels: np.ndarray, height: int, width: int) -> Tensor:
        return self._tokens("still", 10.0, 1, height, width)

    def clip(self, frames: np.ndarray, height: int, width: int) -> Tensor:
        return self._tokens("clip", 20.0, len(frames), height, width)

    def guide(self, frames: np.ndarray, group: str, height: int, width: int) -> tuple[Tensor, int]:
        return self._tokens(group, 30.0, len(frames), height, width), len(frames)

    def voice(self, samples: np.ndarray) -> Tensor:
        return torch.full((1, tokens_of(samples.shape[1]), 128), 40.0)

    def sound(self, samples: np.ndarray) -> Tensor:
        return torch.full((1, tokens_of(samples.shape[1]), 128), 50.0)

    def _tokens(self, what: str, value: float, frames: int, height: int, width: int) -> Tensor:
        self.sizes.append((what, height, width))
        return torch.full((1, ((frames - 1) // 8 + 1) * height * width // 1024, 128), value)


class FakeCoordinates:
    """Zeros of the right shape."""

    def video_coords(self, frames: int, height: int, width: int, frame_rate: float) -> Tensor:
        return torch.zeros(1, 3, frames * height * width, 2)

    def audio_coords(self, tokens: int) -> Tensor:
        return torch.zeros(1, 1, tokens, 2)


def builder(
    inputs: ChunkInputs = NO_INPUTS,
    config: LTX2Config = CONFIG,
    scales: GuideScales = SAME_SIZE,
    seed: int = 7,
) -> tuple[SequenceBuilder, FakeEncoder]:
    encoder = FakeEncoder()
    return SequenceBuilder(config, inputs, scales, seed, encoder, FakeCoordinates(), CPU), encoder


def only_stage(config: LTX2Config = CONFIG) -> Stage:
    (stage,) = plan_stages(config).stages
    return stage


def frames(count: int) -> np.ndarray:
    return np.zeros((count, CONFIG.height, CONFIG.width, 3), np.uint8)


PIN = PinnedImage(frames(1)[0], 0, 1.0)
KEYFRAME = PinnedImage(frames(1)[0], 8, 0.5)


def test_without_inputs_there_is_noise_and_nothing_else() -> None:
    video, audio = builder()[0].sequences(only_stage(), None)
    assert (video.tokens, audio.tokens) == (GEOMETRY.video_tokens, GEOMETRY.audio_tokens)
    assert video.denoise_mask is None
    assert audio.denoise_mask is None
    again, _ = builder()[0].sequences(only_stage(), None)
    other, _ = builder(seed=8)[0].sequences(only_stage(), None)
    assert torch.equal(again.latents, video.latents)
    assert not torch.equal(other.latents, video.latents)


def test_the_targets_noise_does_not_depend_on_conditions() -> None:
    inputs = ChunkInputs(pins=(PIN, KEYFRAME), reference=frames(17), voice=VOICE)
    video, audio = builder(inputs)[0].sequences(only_stage(), None)
    plain_video, plain_audio = builder()[0].sequences(only_stage(), None)
    still = prod(GEOMETRY.grid[1:])
    assert torch.equal(video.latents[:, still : video.target_tokens], plain_video.latents[:, still:])
    assert torch.equal(audio.latents[:, : audio.target_tokens], plain_audio.latents)
    assert video.target_tokens == plain_video.tokens


def test_pins_come_first_then_the_reference_at_the_size_that_the_lora_wants() -> None:
    config = CONFIG.updated(control_group="canny", control_strength=1.0)
    inputs = ChunkInputs(pins=(PIN, KEYFRAME), reference=frames(17))
    built, encoder = builder(inputs, config, GuideScales(downscale=2))
    video, _ = built.sequences(only_stage(config), None)
    still = prod(GEOMETRY.grid[1:])
    assert encoder.sizes == [("still", 128, 64), ("still", 128, 64), ("canny", 64, 32)]
    assert [group.tokens for group in video.appended] == [still, 3 * still // 4]
    assert video.latents[0, -1, 0] == 30.0
    assert video.latents[0, 0, 0] == 10.0


def test_a_slower_reference_takes_every_second_frame_after_the_first() -> None:
    config = LTX2Config(height=64, width=64, num_frames=17)
    built, _ = builder(ChunkInputs(reference=frames(17)), config, GuideScales(temporal=2))
    video, _ = built.sequences(only_stage(config), None)
    assert [group.tokens for group in video.appended] == [2 * 4]


def test_a_driving_track_freezes_the_sound() -> None:
    inputs = ChunkInputs(driving=DrivingSound(SOUND, SOUND))
    _, audio = builder(inputs)[0].sequences(only_stage(), None)
    assert audio.frozen
    assert audio.latents.unique().tolist() == [50.0]


def test_a_tail_holds_the_first_tokens_of_picture_and_sound() -> None:
    samples = np.zeros((2, 9 * 2000), np.float32)
    built, _ = builder(ChunkInputs(tail=Tail(frames(9), samples)))
    video, audio = built.sequences(only_stage(), None)
    held = 2 * prod(GEOMETRY.grid[1:])
    assert video.latents[0, :held].unique().tolist() == [20.0]
    assert video.latents[0, held, 0] != 20.0
    sounding = tokens_within(samples.shape[1])
    assert 0 < sounding <= tokens_of(to_model_rate(samples).shape[1])
    assert audio.latents[0, :sounding].unique().tolist() == [50.0]
    assert audio.latents[0, sounding, 0] != 50.0


def test_a_voice_lies_behind_the_sound() -> None:
    _, audio = builder(ChunkInputs(voice=VOICE))[0].sequences(only_stage(), None)
    assert [group.tokens for group in audio.appended] == [tokens_of(16_000)]
    assert not audio.frozen


def test_two_stages_halve_the_size_and_then_refine_without_a_reference() -> None:
    config = CONFIG.updated(two_stage=True)
    first, second = plan_stages(config).stages
    assert first.geometry.grid == (3, 2, 1)
    assert second.geometry == GEOMETRY
    assert second.sigmas == STAGE_TWO_SIGMAS
    inputs = ChunkInputs(pins=(PIN,), reference=frames(17))
    built, encoder = builder(inputs, config)
    small, sound = built.sequences(first, None)
    assert len(small.appended) == 1
    before = torch.full((1, GEOMETRY.video_tokens, 128), 3.0), torch.full_like(sound.latents, 3.0)
    video, audio = built.sequences(second, before)
    assert not video.appended
    assert [size for what, *size in encoder.sizes if what == "still"] == [[64, 32], [128, 64]]
    # What is refined is mixed with noise: (1 - 0.909375) * 3 and noise of deviation 0.909375.
    assert float(audio.latents.mean()) == pytest.approx(0.271875, abs=0.05)
    assert float(audio.latents.std()) == pytest.approx(0.909375, abs=0.05)


def test_the_second_stage_keeps_an_imitated_voice() -> None:
    config = CONFIG.updated(two_stage=True)
    built, _ = builder(ChunkInputs(voice=VOICE), config)
    sound = torch.full((1, GEOMETRY.audio_tokens, 128), 3.0)
    before = torch.zeros(1, GEOMETRY.video_tokens, 128), sound
    _, audio = built.sequences(plan_stages(config).stages[1], before)
    assert audio.frozen
    assert torch.equal(audio.latents, sound)


def test_a_size_that_the_reference_cannot_have_is_refused_with_those_it_can() -> None:
    built, _ = builder(ChunkInputs(reference=frames(17)), scales=GuideScales(downscale=4))
    with pytest.raises(ValueError, match=r"multiples of 128, got 128x64: use a height of 128 and a width of 128"):
        built.sequences(only_stage(), None)


def test_what_conditions_add_is_counted_before_it_is_made() -> None:
    inputs = ChunkInputs(
        pins=(PIN, KEYFRAME),
        reference=frames(17),
        voice=VOICE,
        tail=Tail(frames(9), None),
    )
    demand = demand_of(CONFIG, inputs, GuideScales(downscale=2), passes=2)
    video, audio = builder(
        ChunkInputs(pins=(KEYFRAME,), reference=frames(17), voice=inputs.voice), scales=GuideScales(downscale=2)
    )[0].sequences(only_stage(), None)
    assert demand.tokens == video.tokens + audio.tokens
    assert demand.passes == 2
    assert demand.encoded_pixels == 9 * 128 * 64
