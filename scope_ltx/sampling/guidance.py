"""Which passes a step makes, and how their predictions become one.

    x0 = c + (cfg - 1)(c - unconditional) + stg (c - perturbed) + (modality - 1)(c - isolated)
    x0 <- x0 (r std(c) / std(x0) + 1 - r)                      rescale r
    x0 <- x0 + identity (c - without reference)                the target's sound only

c is the conditional prediction of the clean latents, all terms are those of one modality, and a standard
deviation is taken over all its tokens and channels. The passes predict velocities, x0 = x - m sigma v with the
denoise mask m: sums of differences are the same in both, so only rescaling leaves velocities.

Source: Lightricks/LTX-2, ltx-core components/guiders.py; identity: ID-LoRA, ID-LoRA-2.3 (decision D17).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.config import LTX2Config
from scope_ltx.models.text import TextContext
from scope_ltx.sampling.perturbation import Perturbed
from scope_ltx.sampling.workspace import Pass, Velocity


@dataclass(frozen=True)
class Noisy:
    """What a step starts from: latents (1, T, C) of each modality at noise level sigma."""

    video: Tensor
    audio: Tensor
    sigma: float


Combine: TypeAlias = Callable[[Sequence[Velocity], Noisy], Velocity]
"""One velocity from those of all passes, which it may use up."""


def only_pass(predictions: Sequence[Velocity], noisy: Noisy) -> Velocity:
    """The rule for a single conditional pass, as the distilled model wants it."""
    (prediction,) = predictions
    return prediction


@dataclass(frozen=True)
class ModalityGuidance:
    """Scales for one modality; these defaults are no guidance.

    cfg: away from the negative prompt. stg: away from perturbed self-attention. modality: away from picture and
    sound unaware of each other. rescale: 0 to 1, how far the result gets the conditional prediction's spread.
    """

    cfg: float = 1.0
    stg: float = 0.0
    modality: float = 1.0
    rescale: float = 0.0


@dataclass(frozen=True)
class Guidance:
    """stg_blocks, stg_mode: which blocks are perturbed, and whether their sound is too. identity: how far the
    voice goes toward that of the reference sound."""

    video: ModalityGuidance = ModalityGuidance()
    audio: ModalityGuidance = ModalityGuidance()
    stg_blocks: tuple[int, ...] = ()
    stg_mode: Perturbed = "both"
    identity: float = 0.0

    def __post_init__(self) -> None:
        for one in (self.video, self.audio):
            if not 0.0 <= one.rescale <= 1.0:
                raise ValueError(f"rescale must be within 0..1, got {one.rescale}")
        if self._differs("stg", 0.0) and not self.stg_blocks:
            raise ValueError("spatio-temporal guidance needs at least one block in stg_blocks, got none")

    @property
    def count(self) -> int:
        """Passes that `plan` makes."""
        further = (self._differs("cfg", 1.0), self._differs("stg", 0.0), self._differs("modality", 1.0))
        return 1 + sum(further) + bool(self.identity)

    @property
    def needs_negative(self) -> bool:
        """A negative prompt takes part."""
        return self._differs("cfg", 1.0)

    def plan(
        self,
        context: TextContext,
        video: TokenSequence,
        audio: TokenSequence,
        negative: TextContext | None = None,
    ) -> GuidedPasses:
        """The passes over `video` and `audio` and their rule. One pass, and nothing to combine, without guidance.

        Raises ValueError for classifier-free guidance without a negative prompt's context, and for identity
        guidance without reference tokens behind the sound.
        """
        passes, picture, sound = [Pass(context)], [0.0], [0.0]

        def add(one: Pass, of_video: float, of_audio: float) -> None:
            passes.append(one)
            picture.append(of_video)
            sound.append(of_audio)

        if self.needs_negative:
            if negative is None:
                raise ValueError("classifier-free guidance needs a negative prompt: its context is missing")
            add(Pass(negative), self.video.cfg - 1, self.audio.cfg - 1)
        if self._differs("stg", 0.0):
            perturbed = Pass(context, frozenset(self.stg_blocks), perturbed=self.stg_mode)
            add(perturbed, self.video.stg, self.audio.stg)
        if self._differs("modality", 1.0):
            add(Pass(context, isolated=True), self.video.modality - 1, self.audio.modality - 1)
        identity = None
        if self.identity:
            if not audio.appended:
                raise ValueError("identity guidance compares with and without reference sound: there is none")
            add(Pass(context, audio_tokens=audio.target_tokens), 0.0, 0.0)
            identity = _Identity(len(passes) - 1, self.identity)
        if len(passes) == 1:
            return GuidedPasses(passes, only_pass)
        rules = (
            _Rule(tuple(picture), self.video.rescale, video.denoise_mask),
            _Rule(tuple(sound), self.audio.rescale, audio.denoise_mask, identity),
        )
        return GuidedPasses(passes, _Guided(*rules))

    def _differs(self, name: str, neutral: float) -> bool:
        return any(getattr(one, name) != neutral for one in (self.video, self.audio))


@dataclass(frozen=True)
class GuidedPasses:
    """For `denoise`: its passes and its rule."""

    passes: list[Pass]
    combine: Combine


NO_GUIDANCE = Guidance()

DEV_GUIDANCE = Guidance(
    video=ModalityGuidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7),
    audio=ModalityGuidance(cfg=7.0, stg=1.0, modality=3.0, rescale=0.7),
    stg_blocks=(28,),
)
"""What Lightricks' pipelines use with the dev checkpoint of LTX-2.3, in 30 steps."""


@dataclass(frozen=True)
class _Identity:
    """The pass without the reference, and its scale."""

    index: int
    scale: float


@dataclass
class _Rule:
    """Weights of the passes' differences from the first, for one modality, then rescaling and identity."""

    weights: tuple[float, ...]
    rescale: float
    mask: Tensor | None
    identity: _Identity | None = None
    _inverse_mask: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.mask is not None:
            # Where the mask is 0 the velocity does not matter, but it must stay a number.
            self._inverse_mask = torch.where(self.mask > 0, 1 / self.mask, 0.0)

    def __call__(self, predictions: Sequence[Tensor], latents: Tensor, sigma: float) -> Tensor:
        """In place of the first prediction (1, T, C)."""
        velocity = predictions[0]
        toward = None
        if self.identity is not None:
            without = predictions[self.identity.index]
            toward = (velocity[:, : without.shape[1]] - without).mul_(self.identity.scale)
        conditional = self._clean(velocity, latents, sigma).std() if self.rescale else None
        velocity.mul_(1 + sum(self.weights))
        for prediction, weight in zip(predictions, self.weights, strict=True):
            if weight:
                velocity.sub_(prediction, alpha=weight)
        if conditional is not None:
            spread = self._clean(velocity, latents, sigma).std()
            # x0 times this factor, as a velocity: 0-dimensional tensors, so that nothing waits for the device.
            factor = conditional.div_(spread).mul_(self.rescale).add_(1 - self.rescale)
            base = latents if self._inverse_mask is None else latents * self._inverse_mask
            velocity.mul_(factor).addcmul_(base, (1 - factor).div_(sigma))
        if toward is not None:
            velocity[:, : toward.shape[1]] += toward
        return velocity

    def _clean(self, velocity: Tensor, latents: Tensor, sigma: float) -> Tensor:
        scaled = velocity if self.mask is None else velocity * self.mask
        return latents.sub(scaled, alpha=sigma)


@dataclass(frozen=True)
class _Guided:
    video: _Rule
    audio: _Rule

    def __call__(self, predictions: Sequence[Velocity], noisy: Noisy) -> Velocity:
        return Velocity(
            self.video([one.video for one in predictions], noisy.video, noisy.sigma),
            self.audio([one.audio for one in predictions], noisy.audio, noisy.sigma),
        )


def guidance_of(config: LTX2Config, *, voice: bool) -> Guidance:
    """What a configuration asks for; identity guidance only beside a reference `voice`."""
    stg = (config.stg_scale, config.modality_scale, config.guidance_rescale)
    return Guidance(
        ModalityGuidance(config.cfg_scale, *stg),
        ModalityGuidance(config.audio_cfg_scale, *stg),
        stg_blocks=config.stg_blocks if config.stg_scale else (),
        stg_mode=config.stg_mode,
        identity=config.identity_guidance_scale if voice else 0.0,
    )
