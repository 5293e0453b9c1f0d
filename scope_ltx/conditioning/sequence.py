"""One modality's tokens: the single form in which every condition reaches the denoising loop.

A pinned frame, a frozen soundtrack or a reference clip is a range of tokens with coordinates, a denoise mask
and clean values. The loop itself has no branch for any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
    """

    latents: Tensor
    coords: Tensor
    denoise_mask: Tensor | None = None
    clean: Tensor | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        tokens = self.latents.shape[1]
        if self.coords.shape[2] != tokens:
            raise ValueError(f"{tokens} tokens need {tokens} coordinates, got {self.coords.shape[2]}")
        if (self.denoise_mask is None) != (self.clean is None):
            raise ValueError("a denoise mask and clean values come together: one of them is missing")

    @property
    def tokens(self) -> int:
        return self.latents.shape[1]


def pin(sequence: TokenSequence, clean: Tensor, first_token: int, strength: float) -> TokenSequence:
    """Hold tokens `first_token...` at `clean` (1, N, C): strength 1 exactly, 0 not at all.

    The start is blended the same way, so a partly pinned token begins between its noise and its clean value.
    Source: Lightricks/LTX-2, ltx-core conditioning/types (mask = 1 - strength).
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength must be within 0..1, got {strength}")
    last = first_token + clean.shape[1]
    if first_token < 0 or last > sequence.tokens:
        raise ValueError(f"tokens {first_token}..{last - 1} do not lie in a sequence of {sequence.tokens}")
    mask = _full_mask(sequence)
    values = torch.zeros_like(sequence.latents) if sequence.clean is None else sequence.clean.clone()
    mask[:, first_token:last] = 1.0 - strength
    values[:, first_token:last] = clean
    latents = values + (sequence.latents - values) * mask
    return replace(sequence, latents=latents, denoise_mask=mask, clean=values)


def freeze(sequence: TokenSequence, clean: Tensor) -> TokenSequence:
    """Keep the whole modality at `clean` (1, T, C): it conditions the other one and is not generated."""
    if clean.shape != sequence.latents.shape:
        raise ValueError(f"clean values must be {tuple(sequence.latents.shape)}, got {tuple(clean.shape)}")
    mask = torch.zeros_like(_full_mask(sequence))
    return replace(sequence, latents=clean.clone(), denoise_mask=mask, clean=clean, frozen=True)


def _full_mask(sequence: TokenSequence) -> Tensor:
    if sequence.denoise_mask is not None:
        return sequence.denoise_mask.clone()
    return torch.ones_like(sequence.latents[..., :1])
