"""Frames that chunks repeat, hand on and drop; sizes that references need."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.conditioning.continuity import extend_video
from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.models.video_encoder import VideoEncoder
from scope_ltx.sampling.geometry import ChunkSplice, latent_grid, overlap_frames, reference_size
from tests.tiny import tiny_video_vae


def test_overlaps_are_clips_that_can_be_encoded() -> None:
    assert [overlap_frames(k) for k in range(5)] == [0, 1, 9, 17, 25]
    for latents in range(1, 9):
        assert latent_grid(overlap_frames(latents), 32, 32)[0] == latents
    with pytest.raises(ValueError, match="from 0, got -1"):
        overlap_frames(-1)


@settings(deadline=None)
@given(
    latents=st.lists(st.integers(2, 6), min_size=1, max_size=12),
    overlap=st.integers(0, 1),
    trim=st.integers(0, 4),
)
def test_spliced_chunks_show_every_frame_once(latents: list[int], overlap: int, trim: int) -> None:
    """Chunks of a film numbered 0, 1, 2...: each goes on from what was shown, whatever was generated behind it."""
    shown: list[int] = []
    tail: list[int] = []
    for count in latents:
        splice = ChunkSplice(overlap_frames(count), overlap if shown else 0, overlap, trim)
        first = tail[0] if tail else len(shown)
        chunk = list(range(first, first + splice.num_frames))
        assert chunk[: len(tail)] == tail, "the chunk begins with the frames that it was given"
        shown += chunk[splice.shown]
        tail = chunk[splice.tail]
        assert len(tail) == overlap_frames(overlap)
    assert shown == list(range(len(shown)))


def test_a_splice_that_shows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk of 17 frames that repeats 9, drops 8 at its end and hands on 9"):
        ChunkSplice(17, overlap_latents=2, next_latents=2, trim_tail=8)
    with pytest.raises(ValueError, match="hands on 17 has nothing to show"):
        ChunkSplice(17, next_latents=3, trim_tail=1)
    with pytest.raises(ValueError, match="trim_tail is counted from 0, got -1"):
        ChunkSplice(17, trim_tail=-1)


@torch.inference_mode()
def test_the_tail_of_a_chunk_becomes_the_first_tokens_of_the_next() -> None:
    grid = (3, 1, 2)
    frames = torch.randint(0, 256, (17, 32, 64, 3), dtype=torch.uint8)
    splice = ChunkSplice(17, next_latents=2, trim_tail=3)
    tail = VideoEncoder(tiny_video_vae().eval()).encode(frames[splice.tail])
    assert tail.shape == (1, 4, 128)
    start = TokenSequence(torch.randn(1, 6, 128), torch.rand(1, 3, 6, 2))
    video = extend_video(start, tail, 1.0)
    assert torch.equal(video.latents[:, :4], tail)
    assert video.target_tokens == grid[0] * grid[1] * grid[2]
    assert torch.equal(video.latents[:, 4:], start.latents[:, 4:])
    with pytest.raises(ValueError, match="6 tokens cannot begin with 6 of the last one"):
        extend_video(start, torch.zeros(1, 6, 128), 1.0)


def test_a_reference_is_a_whole_fraction_of_the_picture() -> None:
    assert reference_size(384, 320, 1) == (384, 320)
    assert reference_size(384, 320, 2) == (192, 160)
    with pytest.raises(
        ValueError, match="multiples of 96, got 384x320: use a height of 384 and a width of 288 or"
    ):
        reference_size(384, 320, 3)
    with pytest.raises(ValueError, match="use a height of 64 and a width of 64"):
        reference_size(32, 32, 2)
    with pytest.raises(ValueError, match="whole number from 1, got 0"):
        reference_size(384, 320, 0)


@given(st.integers(1, 2048), st.integers(1, 2048), st.integers(1, 4))
def test_a_reference_size_fits_or_the_message_names_sizes_that_do(height: int, width: int, factor: int) -> None:
    step = 32 * factor
    try:
        small = reference_size(height, width, factor)
    except ValueError as error:
        assert height % step or width % step
        told = re.search(r"a height of ([\d or]+) and a width of ([\d or]+)$", str(error))
        assert told
        for named, size in zip(told.groups(), (height, width), strict=True):
            near = [int(one) for one in named.split(" or ")]
            assert all(one % step == 0 and one > 0 for one in near)
            assert min(abs(one - size) for one in near) <= step / 2 or near == [step]
    else:
        assert (small[0] * factor, small[1] * factor) == (height, width)
        assert small[0] % 32 == small[1] % 32 == 0
