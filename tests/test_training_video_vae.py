"""Training of the video VAE: its bank, which channels it uses, what it keeps, and that it learns."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from scope_ltx.models.small.sizes import LATENT_CHANNELS, build_video_vae
from tests.fakes.training_stage import CutOffError, CutOffStage, stage_in
from training.export import read_video_vae, write_video_vae
from training.stage import Stage
from training.video_bank import ClipSize, VideoBank
from training.video_vae import (
    USED_CHANNELS,
    decode,
    edge_weights,
    encode,
    initial_weights,
    latent_shape,
    loss_terms,
    train,
)

CPU = torch.device("cpu")
SIZE = ClipSize(33, 64, 48)
SETTINGS = argparse.Namespace(
    decoder_only=False, rate=1e-3, batch=2, crop=32, clips=6, compile=False, extras=False
)


def fresh() -> Any:
    vae: Any = build_video_vae()
    vae.load_state_dict(initial_weights(3))
    return vae


def test_a_bank_depends_on_its_seed_and_on_how_much_was_drawn_alone() -> None:
    size = ClipSize(9, 32, 32)
    drawn, again = (VideoBank(8, size, CPU, 5) for _ in range(2))
    for _ in range(3):
        drawn.refresh()
    assert drawn.groups == 5
    resumed = VideoBank(8, size, CPU, 5, groups=5)
    crops = [bank.sample(6, 9, 32, random.Random(1)) for bank in (drawn, resumed, again)]
    assert crops[0].shape == (6, 3, 9, 32, 32)
    assert crops[0].abs().max() <= 1.0
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])
    with pytest.raises(ValueError, match="groups of 4, got 6"):
        VideoBank(6, size, CPU, 5)


def test_pixels_near_a_step_count_five_times() -> None:
    clips = torch.full((1, 3, 1, 16, 32), -1.0)
    clips[..., 16:] = 1.0
    weights = edge_weights(clips)[0, 0, 0]
    assert weights.shape == (16, 32)
    assert (weights[:, 11:20] == 5.0).all()
    assert (weights[:, :11] == 1.0).all()
    assert (weights[:, 20:] == 1.0).all()


def test_it_learns_and_leaves_the_unused_channels_alone(tmp_path: Path) -> None:
    vae = fresh()
    clips = VideoBank(4, SIZE, CPU, 1).sample(2, 9, 32, random.Random(2))
    nothing = torch.zeros(latent_shape(clips))
    before = float(loss_terms(vae, decoder_only=False)(clips, nothing)[0].detach())
    train(stage_in(tmp_path, Stage, steps=6), vae, SETTINGS, (SIZE, SIZE))
    after = float(loss_terms(vae, decoder_only=False)(clips, nothing)[0].detach())
    assert after < before
    latents = vae.encoder(clips)
    assert latents[:, USED_CHANNELS:LATENT_CHANNELS].abs().max() == 0
    assert encode(vae, clips).abs().max() > 0
    assert vae.decoder.conv_in.conv.weight[:, USED_CHANNELS:].abs().max() == 0
    assert decode(vae, encode(vae, clips)).shape == clips.shape


def test_cut_off_it_goes_on_to_the_same_weights_and_a_frozen_encoder_stays(tmp_path: Path) -> None:
    whole, rest = fresh(), fresh()
    train(stage_in(tmp_path / "whole", Stage, steps=3), whole, SETTINGS, (SIZE, SIZE))
    with pytest.raises(CutOffError):
        train(stage_in(tmp_path / "cut", CutOffStage, steps=3), fresh(), SETTINGS, (SIZE, SIZE))
    train(stage_in(tmp_path / "cut", Stage, steps=3), rest, SETTINGS, (SIZE, SIZE))
    for (name, ours), theirs in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    encoder = {name: weight.clone() for name, weight in rest.encoder.state_dict().items()}
    decoder = rest.decoder.conv_out.conv.weight.clone()
    frozen = argparse.Namespace(**{**vars(SETTINGS), "decoder_only": True})
    train(stage_in(tmp_path / "decoder", Stage, steps=1), rest, frozen, (SIZE, SIZE))
    assert all(torch.equal(weight, encoder[name]) for name, weight in rest.encoder.state_dict().items())
    assert not torch.equal(decoder, rest.decoder.conv_out.conv.weight)


def test_its_file_has_the_published_names_and_gives_the_weights_back(tmp_path: Path) -> None:
    state = fresh().state_dict()
    write_video_vae(tmp_path / "vae.safetensors", state)
    read = read_video_vae(tmp_path / "vae.safetensors")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], weight.bfloat16().float()) for name, weight in state.items())
