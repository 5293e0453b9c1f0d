"""Sound as a condition: a driving track, a voice to imitate, the end of the chunk before.

Each adds to the audio `TokenSequence`; nothing else of a generation knows of it. Facts of the three: the driving
track from Lightricks/LTX-2, A2Vid pipeline; the voice from the ID-LoRA's own inference scripts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence, append, freeze, pin
from scope_ltx.sampling.geometry import MEL_FRAMES_PER_AUDIO_LATENT
from scope_ltx.sound_in.lengths import SECONDS_PER_MEL_FRAME

VOICE_GAP_S = 0.04
"""A voice clip ends one token before the generated sound begins."""


def driving(sequence: TokenSequence, tokens: Tensor) -> TokenSequence:
    """The sound is given, (1, L, 128) for every token of `sequence`: it leads the picture and is not generated.

    Raises ValueError for another number of tokens.
    """
    return freeze(sequence, tokens.to(sequence.latents))


def with_voice(sequence: TokenSequence, reference: Tensor) -> TokenSequence:
    """`sequence` and, after it, the tokens (1, R, 128) of a voice to imitate.

    They lie before time 0, are given (mask 0) and leave the modality's own sigma as it is. The tokens to generate
    stay the first ones, `target_tokens` of them; the identity pass takes these only. (Order is of no meaning to
    the model; training put the clip first.)

    Raises ValueError when the sound is given already, and for a reference of another shape.
    """
    if sequence.frozen:
        raise ValueError("a voice is imitated in sound that is generated, but the driving track gives this sound")
    batch, _, channels = sequence.latents.shape
    if reference.ndim != 3 or reference.shape[1] < 1 or reference.shape[::2] != (batch, channels):
        raise ValueError(f"a voice has tokens ({batch}, 1 or more, {channels}), got {tuple(reference.shape)}")
    reference = reference.to(sequence.latents)
    return append(sequence, reference, voice_coords(reference).to(sequence.coords), strength=1.0)


def voice_coords(reference: Tensor) -> Tensor:
    """(1, 1, R, 2) seconds of a voice clip's tokens (1, R, C): as a sound of its own has them, moved to end
    0.04 s before 0."""
    place = torch.arange(reference.shape[1], dtype=torch.float64, device=reference.device)
    end = place * MEL_FRAMES_PER_AUDIO_LATENT + 1
    start = (end - MEL_FRAMES_PER_AUDIO_LATENT).clamp_(min=0)
    seconds = torch.stack([start, end], dim=-1) * SECONDS_PER_MEL_FRAME
    moved = seconds - (seconds[-1, 1] + VOICE_GAP_S)
    return moved.float()[None, None]


def extend_audio(sequence: TokenSequence, tail: Tensor, strength: float = 1.0) -> TokenSequence:
    """The sound goes on from `tail` (1, K, 128), which the first K tokens repeat: 1 exactly, 0 not at all.

    A chunk's first token stands for one mel frame, every other for four. So `tail` must be encoded as a sound of
    its own, from the last samples of the chunk before (`lengths.tokens_within` says how many tokens they hold);
    that chunk's last tokens as they are would come 30 ms too early.

    Raises ValueError when the sound is given already, when nothing would be left to generate, and for a strength
    outside 0..1.
    """
    if sequence.frozen:
        raise ValueError("the driving track gives this sound: it goes on by itself and cannot be extended")
    if tail.shape[1] >= sequence.target_tokens:
        raise ValueError(
            f"a chunk of {sequence.target_tokens} audio tokens cannot begin with {tail.shape[1]} of the last one: "
            "use a shorter overlap, or more frames"
        )
    return pin(sequence, tail.to(sequence.latents), 0, strength)
