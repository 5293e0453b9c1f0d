"""What a training example is: clips at a noise level, with the conditions that the product knows.

    nothing        both modalities are generated
    first frame    the first latent frame is given (a pinned picture), sometimes only in part
    beginning      the first latent frames and the sound beside them are given (a chunk that extends another)
    driving        the whole sound is given

Given tokens are clean and have noise level 0, as `scope_ltx.conditioning.sequence` lays them out. What a LoRA
looks at, a guide or a voice, is given as well, behind the tokens of the clip; a guide sometimes only in part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from scope_ltx.models.small.sizes import LATENT_CHANNELS
from scope_ltx.sampling.geometry import SAMPLE_RATE, overlap_frames
from scope_ltx.sampling.schedules import DISTILLED_SIGMAS
from scope_ltx.sound_in.lengths import tokens_within
from training.clips import FPS, Clips

Inputs = dict[str, Tensor]

GENERATED, GIVEN, PARTLY = 0, 1, 2
"""Places among the shares of a sample."""

_SHIFT = 4.0
"""Of the uniform noise levels: 4 u / (1 + 3 u) has half of them above 0.8."""
_LEVEL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.5, 2.5)
"""How often each published level is drawn. Five of the eight are above 0.97, where layout is decided, which is
right in 97 % of the clips; the last three decide what is drawn there, and corners were what was wrong."""


@dataclass(frozen=True)
class Shares:
    """Of the samples: first frame given, beginning given, driving sound, no caption, exactly a published level."""

    first_frame: float = 0.2
    beginning: float = 0.1
    driving: float = 0.12
    partly: float = 0.25
    guide_partly: float = 0.2
    no_caption: float = 0.1
    published_level: float = 0.4


class Conditioner:
    """Draws batches of `batch` samples from clips of one geometry."""

    def __init__(
        self,
        clips: Clips,
        batch: int,
        empty: tuple[Tensor, Tensor],
        generator: torch.Generator,
        shares: Shares | None = None,
        *,
        voices: bool = True,
    ) -> None:
        """empty: features (1, SLOTS, FEATURES) and length (1,) of no caption. voices: False leaves out those that
        the clips have. `clips` may grow later."""
        self.clips, self.batch = clips, batch
        self._empty, self._generator = empty, generator
        self._shares = Shares() if shares is None else shares
        self._voices = voices
        self._device = clips.video.device
        self._levels = torch.tensor(DISTILLED_SIGMAS[:-1], device=self._device)
        self._level_weights = torch.tensor(_LEVEL_WEIGHTS, device=self._device)
        grid = clips.geometry.grid
        self._frame_tokens = grid[1] * grid[2]
        self._most_given = max(2, grid[0] // 3)
        self._sound_within = torch.tensor(
            [_sound_tokens(frames) for frames in range(self._most_given + 1)], device=self._device
        )

    def sigmas(self) -> Tensor:
        """(B,) noise levels."""
        uniform = self._uniform()
        shifted = _SHIFT * uniform / (1.0 + (_SHIFT - 1.0) * uniform)
        drawn = torch.multinomial(self._level_weights, self.batch, replacement=True, generator=self._generator)
        published = self._levels[drawn]
        return torch.where(self._uniform() < self._shares.published_level, published, shifted)

    def draw(self) -> Inputs:
        """Clean latents with noise and conditions: `noised` makes a training example of it."""
        clips, shares = self.clips, self._shares
        index = self._integers(len(clips))
        features, lengths = self._captions(index)
        kind = self._uniform()
        first = kind < shares.first_frame
        beginning = ~first & (kind < shares.first_frame + shares.beginning)
        driving = kind > 1.0 - shares.driving
        frames = torch.where(beginning, 1 + self._integers(self._most_given), first.long())
        video_of = self._given(clips.video.shape[1], frames * self._frame_tokens)
        partly = first & (self._uniform() < shares.partly)
        video_of = torch.where((video_of == GIVEN) & partly[:, None], PARTLY, video_of)
        sound = torch.where(beginning, self._sound_within[frames], 0)
        audio_of = self._given(clips.audio.shape[1], torch.where(driving, clips.audio.shape[1], sound))
        level = torch.stack(
            [torch.ones_like(kind), torch.zeros_like(kind), self._uniform().mul(0.9).add(0.05)], dim=1
        )
        drawn = {
            "clean_video": clips.video[index].float(),
            "clean_audio": clips.audio[index].float(),
            "video_share_of": video_of,
            "audio_share_of": audio_of,
            "video_shares": level,
            "audio_shares": level,
            "driven": driving.float(),
            "features": features,
            "lengths": lengths,
        }
        if clips.guide is not None:
            partly = self._uniform() < shares.guide_partly
            self._append(drawn, "video", clips.guide[index].float(), torch.where(partly, PARTLY, GIVEN))
        if self._voices and clips.voice is not None:
            self._append(drawn, "audio", clips.voice[index].float(), torch.full_like(index, GIVEN))
        for name in ("video", "audio"):
            drawn[f"noise_{name}"] = self._noise(drawn[f"clean_{name}"])
        return drawn

    def _append(self, drawn: Inputs, name: str, tokens: Tensor, share_of: Tensor) -> None:
        """Tokens (B, R, used) behind a modality's own, all of a sample with one share (B,)."""
        drawn[f"clean_{name}"] = torch.cat([drawn[f"clean_{name}"], tokens], dim=1)
        shares_of = share_of[:, None].expand(-1, tokens.shape[1])
        drawn[f"{name}_share_of"] = torch.cat([drawn[f"{name}_share_of"], shares_of], dim=1)

    def _captions(self, index: Tensor) -> tuple[Tensor, Tensor]:
        variant = self._integers(self.clips.lengths.shape[1])
        none = self._uniform() < self._shares.no_caption
        features = torch.where(none[:, None, None], self._empty[0], self.clips.features[index, variant])
        return features, torch.where(none, self._empty[1], self.clips.lengths[index, variant])

    def _given(self, tokens: int, count: Tensor) -> Tensor:
        """(B, tokens): GIVEN for the first `count` (B,), GENERATED for the rest."""
        places = torch.arange(tokens, device=self._device)[None]
        return (places < count[:, None]).long() * GIVEN

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator, device=self._device)

    def _uniform(self) -> Tensor:
        return torch.rand(self.batch, generator=self._generator, device=self._device)

    def _integers(self, below: int) -> Tensor:
        return torch.randint(below, (self.batch,), generator=self._generator, device=self._device)


def noised(drawn: Inputs, sigma: Tensor) -> Inputs:
    """Latents at `sigma` (B,), what the velocities should be, and how much each token counts."""
    inputs = dict(drawn)
    inputs["sigma"] = sigma
    inputs["audio_sigma"] = sigma * (1.0 - drawn["driven"])
    for name in ("video", "audio"):
        clean, noise = drawn[f"clean_{name}"], drawn[f"noise_{name}"]
        share = token_shares(drawn, name)
        level = (share * sigma[:, None])[..., None]
        inputs[name] = padded(clean + (noise - clean) * level)
        inputs[f"{name}_target"] = noise - clean
        inputs[f"{name}_weight"] = share
    return inputs


def token_shares(drawn: Inputs, name: str) -> Tensor:
    """(B, T): how much of the noise level each token has; a partly pinned one something between 0 and 1."""
    return drawn[f"{name}_shares"].gather(1, drawn[f"{name}_share_of"])


def padded(latents: Tensor) -> Tensor:
    """(B, T, used) -> (B, T, 128)."""
    return functional.pad(latents, (0, LATENT_CHANNELS - latents.shape[-1]))


def weighted_error(velocity: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(B,): mean squared error over the channels that are used, and the tokens that are generated."""
    error = (velocity[..., : target.shape[-1]].float() - target).square().mean(-1)
    return (error * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def _sound_tokens(latent_frames: int) -> int:
    """Sound that goes with so many given latent frames; none with a single picture."""
    frames = overlap_frames(latent_frames)
    return tokens_within(round(frames / FPS * SAMPLE_RATE)) if latent_frames > 1 else 0
