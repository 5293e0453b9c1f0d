"""Pins, keyframes, references and frozen sound as tokens: every combination keeps its books."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scope_ltx.conditioning.continuity import extend_video
from scope_ltx.conditioning.pins import FramePin, apply_pins, keyframe_coords, require_pin_frames
from scope_ltx.conditioning.reference import VideoReference, append_reference, kept_frames, reference_coords
from scope_ltx.conditioning.sequence import Appended, TokenSequence, append, freeze, pin
from scope_ltx.models.video_encoder import VideoEncoder
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import Grid
from tests.tiny import tiny_transformer, tiny_video_vae

DENOISER = Denoiser(tiny_transformer(1))
COORDS = DENOISER.video_coords
RATE = 24.0


def draw(tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(1, tokens, 128, generator=torch.Generator().manual_seed(seed))


def target(grid: Grid) -> TokenSequence:
    return TokenSequence(draw(grid[0] * grid[1] * grid[2]), COORDS(*grid, RATE))


class Counted:
    """Noise, and how much of it was asked for."""

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(self, tokens: int) -> Tensor:
        self.tokens += tokens
        return draw(tokens, seed=99)


@dataclass(frozen=True)
class Reference:
    frames: int
    downscale: int
    strength: float


strengths = st.sampled_from([0.0, 0.3, 1.0])
references = st.builds(Reference, st.integers(1, 3), st.sampled_from([1, 2]), strengths)


@settings(deadline=None, max_examples=80)
@given(
    frames=st.integers(2, 4),
    half=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    pins=st.dictionaries(st.integers(0, 1), strengths, max_size=2),
    clips=st.lists(references, max_size=3),
    overlap=st.integers(0, 1),
)
def test_any_combination_is_consistent(
    frames: int, half: tuple[int, int], pins: dict[int, float], clips: list[Reference], overlap: int
) -> None:
    grid = (frames, 2 * half[0], 2 * half[1])
    still = grid[1] * grid[2]
    start = target(grid)
    noise = Counted()
    video = extend_video(start, draw(still, seed=7), 0.8) if overlap else start
    made = [FramePin(draw(still, seed=20 + i), 8 * i, strength) for i, strength in pins.items()]
    if overlap and 0 in pins:
        with pytest.raises(ValueError, match="pinned already"):
            apply_pins(video, made, grid, RATE, COORDS, noise)
        return
    video = apply_pins(video, made, grid, RATE, COORDS, noise)

    sizes = [(one.frames, grid[1] // one.downscale, grid[2] // one.downscale) for one in clips]
    counts = [size[0] * size[1] * size[2] for size in sizes]
    for one, size, count in zip(clips, sizes, counts, strict=True):
        reference = VideoReference(draw(count, seed=30), size, one.strength, one.downscale)
        video = append_reference(video, reference, RATE, COORDS, noise)

    keyframes = [one for one in made if one.frame_idx]
    appended = [still] * len(keyframes) + counts
    assert [group.tokens for group in video.appended] == appended
    assert video.target_tokens == start.tokens
    assert video.tokens == start.tokens + sum(appended)
    assert video.coords.shape == (1, 3, video.tokens, 2)
    assert video.coords.dtype == video.latents.dtype == torch.float32
    assert torch.equal(video.coords[:, :, : start.tokens], start.coords)
    assert bool((video.coords[..., 0] < video.coords[..., 1]).all())
    later = [one.strength for one in keyframes] + [one.strength for one in clips]
    assert noise.tokens == sum(n for n, strength in zip(appended, later, strict=True) if strength < 1)
    if video.denoise_mask is None or video.clean is None:
        assert not overlap
        assert not pins
        assert not clips
        assert torch.equal(video.latents, start.latents)
        return
    assert video.denoise_mask.shape == (1, video.tokens, 1)
    assert video.clean.shape == video.latents.shape
    expected = [1.0] * start.tokens
    if overlap or 0 in pins:
        expected[:still] = [1 - pins.get(0, 0.8)] * still
    for count, strength in zip(appended, later, strict=True):
        expected += [1 - strength] * count
    torch.testing.assert_close(video.denoise_mask[0, :, 0], torch.tensor(expected))
    kept = video.denoise_mask[0, :, 0] == 0
    assert torch.equal(video.latents[:, kept], video.clean[:, kept])
    free = video.denoise_mask[0, : start.tokens, 0] == 1
    untouched = video.latents[:, : start.tokens][:, free]
    torch.testing.assert_close(untouched, start.latents[:, free], rtol=0, atol=1e-6)


def test_a_partly_kept_token_starts_between_its_noise_and_its_value() -> None:
    clean, noise = draw(4, seed=1), draw(4, seed=2)
    video = append(target((2, 2, 2)), clean, torch.zeros(1, 3, 4, 2), 0.75, noise=noise)
    torch.testing.assert_close(video.latents[:, 8:], 0.75 * clean + 0.25 * noise)


def test_a_keyframe_lasts_one_frame_at_its_place() -> None:
    """Facts of the reference: no causal shift, [index, index + 1) / fps, spatially like the target."""
    bounds = keyframe_coords(COORDS, 2, 3, 64, RATE)
    assert bounds.shape == (1, 3, 6, 2)
    assert torch.equal(bounds[0, 0], torch.tensor([64.0, 65.0]).expand(6, 2) / RATE)
    assert torch.equal(bounds[:, 1:], COORDS(9, 2, 3, RATE)[:, 1:, :6])


def test_a_smaller_reference_covers_the_same_picture_and_time() -> None:
    grid = (3, 2, 4)
    bounds = reference_coords(COORDS, VideoReference(draw(6), (3, 1, 2), downscale=2), RATE)
    whole = COORDS(*grid, RATE)
    assert float(bounds[:, 1].max()) == float(whole[:, 1].max()) == 64
    assert float(bounds[:, 2].max()) == float(whole[:, 2].max()) == 128
    assert torch.equal(bounds[0, 0, ::2], whole[0, 0, ::8])


def test_a_slower_reference_has_the_times_of_the_frames_it_kept() -> None:
    """Kept every 4th frame of 33: latent frames of [0, 1) and then of 32 frames each, in the target's seconds."""
    assert kept_frames(33, 4) == (0, 1, 5, 9, 13, 17, 21, 25, 29)
    bounds = reference_coords(COORDS, VideoReference(draw(2), (2, 1, 1), temporal_scale=4), RATE)
    expected = torch.tensor([[0.0, 1.0], [1.0, 33.0]]) / RATE
    torch.testing.assert_close(bounds[0, 0], expected)
    assert kept_frames(9, 1) == tuple(range(9))


@pytest.mark.parametrize(("frames", "scale", "advice"), [(17, 4, "use 1 or 33"), (12, 1, "use 9 or 17")])
def test_a_number_of_reference_frames_that_cannot_be_encoded_is_refused(
    frames: int, scale: int, advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        kept_frames(frames, scale)


def test_pins_that_cannot_be_are_refused() -> None:
    require_pin_frames([0, 64, 128], 129)
    with pytest.raises(ValueError, match=r"frame 0, 8, 16 and so on up to 128, got 12"):
        require_pin_frames([12], 129)
    with pytest.raises(ValueError, match="up to 128, got 136"):
        require_pin_frames([136], 129)
    with pytest.raises(ValueError, match="two images are pinned to frame 64: put both into one image"):
        require_pin_frames([64, 0, 64], 129)
    with pytest.raises(ValueError, match="a still of this size has 4 tokens, got 3"):
        apply_pins(target((2, 2, 2)), [FramePin(draw(3), 8)], (2, 2, 2), RATE, COORDS, draw)


def test_tokens_that_do_not_fit_are_refused() -> None:
    video = target((2, 2, 2))
    with pytest.raises(ValueError, match=r"strength must be within 0..1, got 1.2"):
        append(video, draw(1), torch.zeros(1, 3, 1, 2), 1.2)
    with pytest.raises(ValueError, match=r"strength 0.5 need noise of shape \(1, 1, 128\), got None"):
        append(video, draw(1), torch.zeros(1, 3, 1, 2), 0.5)
    with pytest.raises(ValueError, match="9 tokens need 9 coordinates, got 10"):
        append(video, draw(1), torch.zeros(1, 3, 2, 2), 1.0)
    with pytest.raises(ValueError, match="attention must be within 0"):
        append(video, draw(1), torch.zeros(1, 3, 1, 2), 1.0, attention=2.0)
    with pytest.raises(ValueError, match=r"1 tokens need as many attentions, got shape \(2,\)"):
        append(video, draw(1), torch.zeros(1, 3, 1, 2), 1.0, attention=torch.ones(2))
    with pytest.raises(ValueError, match="frozen sequence must have strength 1"):
        append(freeze(video, draw(8)), draw(1), torch.zeros(1, 3, 1, 2), 0.5, noise=draw(1))
    longer = append(video, draw(1), torch.zeros(1, 3, 1, 2), 1.0)
    with pytest.raises(ValueError, match=r"tokens 8..8 do not lie in a target of 8"):
        pin(longer, draw(1), 8, 1.0)
    with pytest.raises(ValueError, match=r"grid of \(2, 1, 1\) has 2 tokens, got 3"):
        append_reference(video, VideoReference(draw(3), (2, 1, 1)), RATE, COORDS, draw)
    with pytest.raises(ValueError, match="leave no target"):
        TokenSequence(draw(2), torch.zeros(1, 3, 2, 2), appended=(Appended(2),))


@torch.inference_mode()
def test_frames_that_cannot_be_encoded_are_refused() -> None:
    encoder = VideoEncoder(tiny_video_vae())
    with pytest.raises(ValueError, match=r"8 k \+ 1 frames, got 8: use 1 or 9"):
        encoder.encode(torch.zeros(8, 32, 32, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="multiples of 32, got 32x40"):
        encoder.encode(torch.zeros(1, 32, 40, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(F, H, W, 3\) uint8, got \(1, 3, 32, 32\) torch.float32"):
        encoder.encode(torch.zeros(1, 3, 32, 32))
