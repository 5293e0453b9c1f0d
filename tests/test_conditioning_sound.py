"""Driving sound, a voice and the last chunk's tail as tokens: against the facts, token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence, freeze
from scope_ltx.conditioning.sound import driving, extend_audio, voice_coords, with_voice
from scope_ltx.models.text import TextContext
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.loop import denoise
from scope_ltx.sampling.workspace import Pass
from tests.tiny import AUDIO_WIDTH, VIDEO_WIDTH, tiny_parts

L = 11


def tokens(count: int, seed: int) -> Tensor:
    return torch.randn(1, count, 128, generator=torch.Generator().manual_seed(seed))


def coords(count: int) -> Tensor:
    bounds = [(max(0, 4 * i - 3) * 0.01, (4 * i + 1) * 0.01) for i in range(count)]
    return torch.tensor(bounds)[None, None]


def noise(count: int = L) -> TokenSequence:
    return TokenSequence(tokens(count, 0), coords(count))


def test_driving_sound_is_given_and_frozen() -> None:
    given_tokens = tokens(L, 1)
    sequence = driving(noise(), given_tokens)
    assert sequence.frozen
    assert sequence.denoise_mask is not None
    assert not sequence.denoise_mask.any()
    torch.testing.assert_close(sequence.latents, given_tokens)
    torch.testing.assert_close(sequence.clean, given_tokens)
    torch.testing.assert_close(sequence.coords, coords(L))
    with pytest.raises(ValueError, match=r"must be \(1, 11, 128\), got \(1, 12, 128\)"):
        driving(noise(), tokens(12, 1))


@given(count=st.integers(1, 300))
def test_a_voice_lies_before_the_sound_and_ends_one_token_before_it(count: int) -> None:
    ours = voice_coords(torch.zeros(1, count, 128))
    end_last = 0.04 * count - 0.03
    expected = [
        (max(0, 4 * i - 3) * 0.01 - (end_last + 0.04), (4 * i + 1) * 0.01 - (end_last + 0.04))
        for i in range(count)
    ]
    torch.testing.assert_close(ours, torch.tensor(expected)[None, None], rtol=0, atol=1e-6)
    assert float(ours[0, 0, -1, 1]) == pytest.approx(-0.04, abs=1e-7)
    assert ours.dtype == torch.float32


def test_coordinates_of_a_five_second_voice() -> None:
    ours = voice_coords(torch.zeros(1, 126, 128))
    torch.testing.assert_close(ours[0, 0, 0], torch.tensor([-5.05, -5.04]))
    torch.testing.assert_close(ours[0, 0, 1], torch.tensor([-5.04, -5.00]))
    torch.testing.assert_close(ours[0, 0, 125], torch.tensor([-0.08, -0.04]))


def test_a_voice_follows_the_tokens_to_generate() -> None:
    start, voice = noise(), tokens(5, 2)
    sequence = with_voice(start, voice)
    assert (sequence.tokens, sequence.target_tokens) == (L + 5, L)
    assert not sequence.frozen
    torch.testing.assert_close(sequence.latents, torch.cat([start.latents, voice], 1))
    assert sequence.denoise_mask is not None
    assert sequence.clean is not None
    assert sequence.denoise_mask.flatten().tolist() == [1.0] * L + [0.0] * 5
    torch.testing.assert_close(sequence.clean[:, L:], voice)
    torch.testing.assert_close(sequence.coords[:, :, :L], start.coords)
    torch.testing.assert_close(sequence.coords[:, :, L:], voice_coords(voice))


def test_a_voice_needs_sound_that_is_generated_and_tokens_that_fit() -> None:
    with pytest.raises(ValueError, match="the driving track gives this sound"):
        with_voice(driving(noise(), tokens(L, 1)), tokens(5, 2))
    for wrong in (torch.zeros(1, 0, 128), torch.zeros(1, 5, 64), torch.zeros(2, 5, 128), torch.zeros(5, 128)):
        with pytest.raises(ValueError, match=r"a voice has tokens \(1, 1 or more, 128\)"):
            with_voice(noise(), wrong)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_tail_holds_the_first_tokens(strength: float) -> None:
    start, tail = noise(), tokens(4, 3)
    sequence = extend_audio(start, tail, strength)
    assert sequence.denoise_mask is not None
    mask = torch.ones(L)
    mask[:4] = 1 - strength
    torch.testing.assert_close(sequence.denoise_mask.flatten(), mask)
    expected = start.latents.clone()
    expected[:, :4] = tail * strength + start.latents[:, :4] * (1 - strength)
    torch.testing.assert_close(sequence.latents, expected)


def test_a_tail_that_does_not_fit_is_refused() -> None:
    for whole in (noise(), with_voice(noise(), tokens(5, 2))):
        with pytest.raises(ValueError, match="11 audio tokens cannot begin with 11 of the last one"):
            extend_audio(whole, tokens(L, 3))
    with pytest.raises(ValueError, match=r"within 0\.\.1, got 1\.5"):
        extend_audio(noise(), tokens(2, 3), 1.5)
    with pytest.raises(ValueError, match="cannot be extended"):
        extend_audio(freeze(noise(), tokens(L, 1)), tokens(2, 3))


@pytest.mark.parametrize("voice_first", [True, False])
def test_a_tail_and_a_voice_go_together_in_either_order(voice_first: bool) -> None:
    start, voice, tail = noise(), tokens(5, 2), tokens(3, 3)
    sequence = (
        extend_audio(with_voice(start, voice), tail)
        if voice_first
        else with_voice(extend_audio(start, tail), voice)
    )
    assert sequence.denoise_mask is not None
    assert sequence.clean is not None
    assert sequence.denoise_mask.flatten().tolist() == [0.0] * 3 + [1.0] * (L - 3) + [0.0] * 5
    torch.testing.assert_close(sequence.latents, torch.cat([tail, start.latents[:, 3:], voice], 1))
    torch.testing.assert_close(sequence.clean[:, :3], tail)
    torch.testing.assert_close(sequence.clean[:, L:], voice)


@torch.inference_mode()
def test_denoising_generates_around_a_voice_and_leaves_it_as_it_is() -> None:
    """The voice changes what is generated, its order does not matter, and it comes out unchanged."""
    parts = tiny_parts()
    denoiser = Denoiser(parts.transformer)
    generator = torch.Generator().manual_seed(9)
    context = TextContext(
        torch.randn(1, 6, VIDEO_WIDTH, generator=generator), torch.randn(1, 6, AUDIO_WIDTH, generator=generator)
    )
    video = TokenSequence(torch.randn(1, 8, 128, generator=generator), denoiser.video_coords(2, 2, 2, 24.0))
    voice, sigmas = tokens(5, 2), (1.0, 0.6, 0.0)
    sequence = with_voice(noise(), voice)
    assert sequence.denoise_mask is not None
    assert sequence.clean is not None

    def run(audio: TokenSequence) -> tuple[Tensor, Tensor]:
        return denoise(denoiser, video, audio, [Pass(context)], sigmas)

    picture, sound = run(sequence)
    assert sound.shape[1] == L
    _, without = run(noise())
    assert float((sound - without).abs().max()) > 1e-3
    order = [*range(L, L + 5), *range(L)]
    prepended = TokenSequence(
        sequence.latents[:, order],
        sequence.coords[:, :, order],
        sequence.denoise_mask[:, order],
        sequence.clean[:, order],
    )
    other_picture, other_sound = run(prepended)
    torch.testing.assert_close(other_sound[:, :5], voice)
    torch.testing.assert_close(other_sound[:, 5:], sound, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other_picture, picture, rtol=1e-4, atol=1e-4)
