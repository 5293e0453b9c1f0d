"""How much sound makes how many audio tokens. Pure arithmetic.

The model hears 16 kHz. A mel frame hops 160 samples and looks 512 to either side of its centre, the first one
being centred on the first sample; a causal encoder then turns 4 frames into a token, the first token being
frame 0 alone: token i has heard frames 0 to 4i and nothing later.
"""

from __future__ import annotations

from scope_ltx.sampling.geometry import MEL_FRAMES_PER_AUDIO_LATENT, SAMPLE_RATE, SAMPLES_PER_MEL_FRAME

OUTPUT_RATE = SAMPLE_RATE
"""Hz of everything that is played and kept: 48,000."""

MODEL_RATE = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 1024
"""Of the analysis, at 16 kHz."""

TOKEN_SAMPLES = MEL_FRAMES_PER_AUDIO_LATENT * HOP_SAMPLES
SECONDS_PER_MEL_FRAME = HOP_SAMPLES / MODEL_RATE


def mel_frames_of(model_samples: int) -> int:
    """Frames of a centred analysis of that many samples at 16 kHz."""
    return model_samples // HOP_SAMPLES + 1


def tokens_of(model_samples: int) -> int:
    """Tokens that the encoder makes of that many samples at 16 kHz."""
    return -(-mel_frames_of(model_samples) // MEL_FRAMES_PER_AUDIO_LATENT)


def model_samples_for(tokens: int) -> int:
    """The fewest samples at 16 kHz of which the encoder makes exactly `tokens` that are final: more sound after
    them would not change one of them.

    The last frame that they hear is 4 tokens - 4, and its window ends 512 samples past its centre. (One more,
    because the analysis reflects 512 samples at either edge and needs a longer sound for it.) At the default
    size that is 5.432 s for a chunk of 5.375 s: the model hears 57 ms of what comes next.

    Raises ValueError for no token.
    """
    if tokens < 1:
        raise ValueError(f"sound is encoded into at least one token, got {tokens}")
    last_centre = (tokens - 1) * TOKEN_SAMPLES
    return last_centre + WINDOW_SAMPLES // 2 + 1


def tokens_within(samples: int) -> int:
    """How many tokens from a chunk's start end within its first `samples` at 48 kHz: token i ends after
    4i + 1 mel frames. 0 when the sound is shorter than one frame."""
    frames = samples // SAMPLES_PER_MEL_FRAME
    return (frames + MEL_FRAMES_PER_AUDIO_LATENT - 1) // MEL_FRAMES_PER_AUDIO_LATENT if frames > 0 else 0
