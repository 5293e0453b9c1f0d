"""One modality's tokens: the single form in which every condition reaches the denoising loop.

A pinned frame, a frozen soundtrack or a reference clip is a range of tokens with coordinates, a denoise mask
and clean values. The loop itself has no branch for any of them. The tokens that become the output always come
first; what a condition adds is appended behind them, and is dropped after the last step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Appended:
    """A group of tokens behind the target's.

    attention: how much these tokens and the target's attend to each other, 0 to 1: one number, or (tokens,)
    float32. Anything but the number 1 also keeps the group from every group before it: see `attention`.
    """

    tokens: int
    attention: float | Tensor = 1.0


@dataclass(frozen=True)
class TokenSequence:
    """Tokens of one modality, batch 1.

    latents: (1, T, C) float32, what denoising starts from.
    coords: (1, axes, T, 2) float32 [start, end) bounds; video (seconds, pixels, pixels), audio (seconds).
    denoise_mask: (1, T, 1) float32; 1 generates the token, 0 keeps `clean`, between is a partial pin.
        None means 1 everywhere, which spares the per-token timesteps.
    clean: (1, T, C) float32, needed where the mask is below 1.
    frozen: no token is generated at all; the modality's own sigma is then 0 for its prompt modulation and
        for the gate of the other modality (Lightricks/LTX-2, ltx-core transformer_args.py).
    appended: the groups at the end of the T tokens, in order. The `target_tokens` before them are the output.
    """

    latents: Tensor
    coords: Tensor
    denoise_mask: Tensor | None = None
    clean: Tensor | None = None
    frozen: bool = False
    appended: tuple[Appended, ...] = ()

    def __post_init__(self) -> None:
        tokens = self.latents.shape[1]
        if self.coords.shape[2] != tokens:
            raise ValueError(f"{tokens} tokens need {tokens} coordinates, got {self.coords.shape[2]}")
        if (self.denoise_mask is None) != (self.clean is None):
            raise ValueError("a denoise mask and clean values come together: one of them is missing")
        if self.target_tokens < 1:
            raise ValueError(f"{tokens} tokens with {tokens - self.target_tokens} appended leave no target")

    @property
    def tokens(self) -> int:
        return self.latents.shape[1]

    @property
    def target_tokens(self) -> int:
        """How many tokens, from the first, are the output."""
        return self.latents.shape[1] - sum(group.tokens for group in self.appended)


def pin(sequence: TokenSequence, clean: Tensor, first_token: int, strength: float) -> TokenSequence:
    """Hold tokens `first_token...` of the target at `clean` (1, N, C): strength 1 exactly, 0 not at all.

    The start is blended the same way, so a partly pinned token begins between its noise and its clean value.
    Source: Lightricks/LTX-2, ltx-core conditioning/types (mask = 1 - strength).

    Raises ValueError for tokens outside the target, and for ones that are pinned already: their noise is gone.
    """
    _require_strength(strength)
    last = first_token + clean.shape[1]
    if first_token < 0 or last > sequence.target_tokens:
        raise ValueError(f"tokens {first_token}..{last - 1} do not lie in a target of {sequence.target_tokens}")
    mask, values = _mask_and_clean(sequence)
    held = slice(first_token, last)
    if bool((mask[:, held] != 1.0).any()):
        raise ValueError(f"tokens {first_token}..{last - 1} are pinned already: pin one thing to each frame")
    mask[:, held] = 1.0 - strength
    values[:, held] = clean
    latents = sequence.latents.clone()
    latents[:, held] = clean + (latents[:, held] - clean) * mask[:, held]
    return replace(sequence, latents=latents, denoise_mask=mask, clean=values)


def append(
    sequence: TokenSequence,
    clean: Tensor,
    coords: Tensor,
    strength: float,
    *,
    noise: Tensor | None = None,
    noise_scale: float = 1.0,
    attention: float | Tensor = 1.0,
) -> TokenSequence:
    """Add tokens that condition the target and are not part of the output.

    clean: (1, N, C) float32. coords: (1, axes, N, 2). strength: 1 keeps them clean, with noise level 0; below,
    they start mixed with `noise` (1, N, C) and are denoised along. noise_scale: the level that denoising starts
    from, below 1 in a second stage. attention: see `Appended`.
    Source: Lightricks/LTX-2, ltx-core conditioning/types (mask = 1 - strength, appended behind what is there).
    """
    _require_strength(strength)
    if strength < 1.0 and (noise is None or noise.shape != clean.shape):
        got = None if noise is None else tuple(noise.shape)
        raise ValueError(f"tokens of strength {strength} need noise of shape {tuple(clean.shape)}, got {got}")
    if strength < 1.0 and sequence.frozen:
        raise ValueError(f"tokens appended to a frozen sequence must have strength 1, got {strength}")
    if not isinstance(attention, Tensor) and not 0.0 <= attention <= 1.0:
        raise ValueError(f"attention must be within 0..1, got {attention}")
    if isinstance(attention, Tensor) and attention.shape != clean.shape[1:2]:
        raise ValueError(f"{clean.shape[1]} tokens need as many attentions, got shape {tuple(attention.shape)}")
    mask, values = _mask_and_clean(sequence)
    added = torch.full_like(clean[..., :1], 1.0 - strength)
    start = clean if noise is None or strength == 1.0 else clean + (noise - clean) * added * noise_scale
    return replace(
        sequence,
        latents=torch.cat([sequence.latents, start], dim=1),
        coords=torch.cat([sequence.coords, coords], dim=2),
        denoise_mask=torch.cat([mask, added], dim=1),
        clean=torch.cat([values, clean], dim=1),
        appended=(*sequence.appended, Appended(clean.shape[1], attention)),
    )


def freeze(sequence: TokenSequence, clean: Tensor) -> TokenSequence:
    """Keep the whole modality at `clean` (1, T, C): it conditions the other one and is not generated."""
    if clean.shape != sequence.latents.shape:
        raise ValueError(f"clean values must be {tuple(sequence.latents.shape)}, got {tuple(clean.shape)}")
    mask = torch.zeros_like(sequence.latents[..., :1])
    return replace(sequence, latents=clean.clone(), denoise_mask=mask, clean=clean, frozen=True)


def _mask_and_clean(sequence: TokenSequence) -> tuple[Tensor, Tensor]:
    """Copies of both, or what stands for their absence."""
    if sequence.denoise_mask is None or sequence.clean is None:
        return torch.ones_like(sequence.latents[..., :1]), torch.zeros_like(sequence.latents)
    return sequence.denoise_mask.clone(), sequence.clean.clone()


def _require_strength(strength: float) -> None:
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be within 0..1, got {strength}")
