"""What training computes is what the product computes from the published files: same weights, same velocities."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scope_ltx.conditioning.reference import VideoReference, append_reference
from scope_ltx.conditioning.sequence import TokenSequence, freeze, pin
from scope_ltx.conditioning.sound import with_voice
from scope_ltx.config import LTX2Config
from scope_ltx.manifest import ModelFiles
from scope_ltx.models import small
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.small.published import Parts, write_parts
from scope_ltx.models.text import PromptEncoder
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.loop import euler_step
from scope_ltx.sampling.workspace import Pass
from training import audio_vae, unpack, video_vae, vocoder
from training.clips import VOICE_TOKENS
from training.conditions import GENERATED, GIVEN, PARTLY, noised
from training.joint import JointModel
from training.lora import add_lora, round_as_published
from training.package import parts_of
from training.text import CaptionEncoder, text_encoder_state, world_tokenizer
from training.transformer import build_model, places_of
from training.walk import moved

SEED = 7
CONFIG = LTX2Config(height=64, width=128, num_frames=17)
GEOMETRY = ChunkGeometry.of(CONFIG)
CAPTION = "A large red circle slides right and below it a medium blue star stays still on a navy background."
SIGMA, STRENGTH = 0.725, 0.4
CPU = torch.device("cpu")
VIDEO, AUDIO = 32, 64
"""Latent values of a token that mean something."""


@pytest.fixture(scope="module")
def model() -> JointModel:
    """As training begins, but with every weight moved: what starts at 0 would hide what it is multiplied by."""
    model = build_model(SEED, CPU, compiled=False, audio_used=AUDIO).requires_grad_(False)
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
        parameter.copy_(parameter.bfloat16())
    round_as_published(model)
    return model


@pytest.fixture(scope="module")
def product(model: JointModel, tmp_path_factory: pytest.TempPathFactory) -> Components:
    directory: Path = tmp_path_factory.mktemp("model")
    tokenizer = world_tokenizer()
    parts = Parts(
        transformer=model.transformer.state_dict(),
        connectors=model.connectors.state_dict(),
        text_encoder=text_encoder_state(tokenizer),
        tokenizer=tokenizer,
        video_vae=video_vae.initial_weights(SEED),
        audio_vae=audio_vae.initial_weights(SEED),
        vocoder=vocoder.initial_weights(SEED),
    )
    write_parts(directory, parts, SEED)
    components = load_components(ModelFiles.below(directory), CPU)
    components.place(components.plan(0))
    return components


def drawn(video_of: int, audio_of: int, guide: int = 0, voice: int = 0) -> dict[str, Tensor]:
    """Clean latents, noise and conditions as `Conditioner.draw` gives them. video_of, audio_of: of the first row
    of picture tokens, and of all sound. guide, voice: how many tokens are behind."""
    generator = torch.Generator().manual_seed(3)
    features, lengths = CaptionEncoder(CPU).features([CAPTION])
    inputs: dict[str, Tensor] = {"features": features, "lengths": lengths}
    for name, tokens, used in (
        ("video", GEOMETRY.video_tokens + guide, VIDEO),
        ("audio", GEOMETRY.audio_tokens + voice, AUDIO),
    ):
        inputs[f"clean_{name}"] = torch.randn(1, tokens, used, generator=generator)
        inputs[f"noise_{name}"] = torch.randn(1, tokens, used, generator=generator)
        inputs[f"{name}_shares"] = torch.tensor([[1.0, 0.0, 1.0 - STRENGTH]])
    still = GEOMETRY.latent_height * GEOMETRY.latent_width
    video_share_of = torch.full((1, GEOMETRY.video_tokens + guide), GENERATED)
    video_share_of[:, :still] = video_of
    video_share_of[:, GEOMETRY.video_tokens :] = GIVEN
    audio_share_of = torch.full((1, GEOMETRY.audio_tokens + voice), audio_of)
    audio_share_of[:, GEOMETRY.audio_tokens :] = GIVEN
    inputs |= {"video_share_of": video_share_of, "audio_share_of": audio_share_of}
    inputs["driven"] = torch.tensor([float(audio_of == GIVEN)])
    return inputs


def in_training(model: JointModel, inputs: dict[str, Tensor], **behind: object) -> tuple[Tensor, Tensor]:
    ready = noised(inputs, torch.tensor([SIGMA]))
    contexts = model.contexts(inputs["features"], inputs["lengths"])
    places = places_of(model, CONFIG, **behind)  # type: ignore[arg-type]
    result: tuple[Tensor, Tensor] = model(ready, places, contexts)
    return result


Condition = Callable[[TokenSequence], TokenSequence]


def in_product(
    product: Components, inputs: dict[str, Tensor], video_condition: Condition, audio_condition: Condition
) -> tuple[Tensor, Tensor]:
    """Sequences at noise level 1, brought to SIGMA as the loop does, then one evaluation."""
    denoiser = Denoiser(product.transformer)
    rate = float(CONFIG.frame_rate)
    ready = noised(inputs, torch.tensor([SIGMA]))
    video = TokenSequence(ready["video"][:, : GEOMETRY.video_tokens], denoiser.video_coords(*GEOMETRY.grid, rate))
    audio = TokenSequence(ready["audio"][:, : GEOMETRY.audio_tokens], denoiser.audio_coords(GEOMETRY.audio_tokens))
    video, audio = video_condition(video), audio_condition(audio)
    context = PromptEncoder(product.tokenizer, product.text_encoder, product.connectors).encode(CAPTION)
    prepared = denoiser.prepare(video, audio, [Pass(context)], (SIGMA, 0.0))
    velocity = denoiser.velocities(prepared, ready["video"], ready["audio"], 0, threading.Event())[0]
    return velocity.video, velocity.audio


def clean(inputs: dict[str, Tensor], name: str, tokens: slice) -> Tensor:
    values = inputs[f"clean_{name}"][:, tokens]
    return torch.nn.functional.pad(values, (0, 128 - values.shape[-1]))


def unchanged(sequence: TokenSequence) -> TokenSequence:
    return sequence


def require_equal(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    for trained, generated in zip(ours, theirs, strict=True):
        assert trained.shape == generated.shape
        assert float((trained - generated).norm() / generated.norm()) < 2e-3


def test_a_prompt_alone(model: JointModel, product: Components) -> None:
    inputs = drawn(GENERATED, GENERATED)
    require_equal(in_training(model, inputs), in_product(product, inputs, unchanged, unchanged))


@pytest.mark.parametrize(("share_of", "strength"), [(GIVEN, 1.0), (PARTLY, STRENGTH)])
def test_a_pinned_first_frame(model: JointModel, product: Components, share_of: int, strength: float) -> None:
    inputs = drawn(share_of, GENERATED)
    still = slice(0, GEOMETRY.latent_height * GEOMETRY.latent_width)

    def pinned(video: TokenSequence) -> TokenSequence:
        return pin(video, clean(inputs, "video", still), 0, strength)

    require_equal(in_training(model, inputs), in_product(product, inputs, pinned, unchanged))


def test_driving_sound(model: JointModel, product: Components) -> None:
    inputs = drawn(GENERATED, GIVEN)

    def driven(audio: TokenSequence) -> TokenSequence:
        return freeze(audio, clean(inputs, "audio", slice(None)))

    require_equal(in_training(model, inputs), in_product(product, inputs, unchanged, driven))


def test_a_reference_video_of_half_the_size(model: JointModel, product: Components) -> None:
    grid = (GEOMETRY.latent_frames, GEOMETRY.latent_height // 2, GEOMETRY.latent_width // 2)
    inputs = drawn(GENERATED, GENERATED, guide=grid[0] * grid[1] * grid[2])
    tokens = clean(inputs, "video", slice(GEOMETRY.video_tokens, None))

    def guided(video: TokenSequence) -> TokenSequence:
        coords = Denoiser(product.transformer).video_coords
        reference = VideoReference(tokens, grid, downscale=2)
        return append_reference(video, reference, float(CONFIG.frame_rate), coords, torch.zeros)

    trained = in_training(model, inputs, downscale=2)
    require_equal(trained, in_product(product, inputs, guided, unchanged))


def test_a_voice(model: JointModel, product: Components) -> None:
    inputs = drawn(GENERATED, GENERATED, voice=VOICE_TOKENS)
    tokens = clean(inputs, "audio", slice(GEOMETRY.audio_tokens, None))
    trained = in_training(model, inputs, voice=True)
    require_equal(trained, in_product(product, inputs, unchanged, lambda audio: with_voice(audio, tokens)))


def test_a_step_of_distillation_is_the_product_s_step() -> None:
    generator = torch.Generator().manual_seed(5)
    latents, velocity, values = (torch.randn(1, 6, 4, generator=generator) for _ in range(3))
    coords = torch.zeros(1, 3, 6, 2)
    sequence = pin(TokenSequence(latents, coords), values[:, :2], 0, STRENGTH)
    sequence = pin(sequence, values[:, 2:4], 2, 1.0)
    assert sequence.denoise_mask is not None
    assert sequence.clean is not None
    share, start = sequence.denoise_mask[..., 0], sequence.latents
    ours = moved(start, velocity, sequence.clean, share, torch.tensor([SIGMA]), torch.tensor([0.421875]))
    theirs = start.clone()
    euler_step(theirs, velocity.clone(), SIGMA, 0.421875, sequence)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_shipped_model_taken_apart_and_put_together_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["unpack", "--target", str(tmp_path)])
    unpack.main()
    again = tmp_path / "again"
    write_parts(again, parts_of(tmp_path), small.SEED)
    for role in ("transformer", "text_projection", "text_encoder", "video_vae", "audio_vae"):
        ours, shipped = (getattr(ModelFiles.below(where), role) for where in (again, small.WEIGHTS))
        assert ours.read_bytes() == shipped.read_bytes(), role


def test_a_lora_starts_as_nothing_and_reaches_what_it_is_for() -> None:
    model = build_model(SEED, CPU, compiled=False, audio_used=AUDIO).requires_grad_(False)
    inputs = drawn(GENERATED, GENERATED)
    before = in_training(model, inputs)
    factors = add_lora(model.transformer, ("attn1",), rank=2)
    assert len(factors) == 6 * 4 * 2
    assert all(name.split(".")[2] == "attn1" for name in factors)
    after = in_training(model, inputs)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    for name, factor in factors.items():
        if name.endswith(".up"):
            factor.data.fill_(0.1)
    assert not torch.equal(in_training(model, inputs)[0], before[0])
