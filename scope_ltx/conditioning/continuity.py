"""Going on from the chunk before: the first latent frames are pinned to what that chunk ended with.

A chunk's first latent stands for one frame and each later one for eight, so latents cannot be carried over: the
last ones of a chunk stand for eight frames each, and none of them can be a first one. What is carried over is
the chunk's last decoded frames, `overlap_frames(K)` of them, encoded anew as a clip of K latent frames.
The next chunk then begins with those same frames; its caller drops them (`ChunkSplice`).
"""

from __future__ import annotations

from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence, pin


def extend_video(video: TokenSequence, tail_latents: Tensor, strength: float) -> TokenSequence:
    """The video with its first tokens held at `tail_latents` (1, K * height * width, C). Excludes a pin of
    frame 0.

    Raises ValueError when nothing would be left to generate, or frame 0 is pinned already.
    """
    if tail_latents.shape[1] >= video.target_tokens:
        raise ValueError(
            f"a chunk of {video.target_tokens} tokens cannot begin with {tail_latents.shape[1]} of the last one: "
            "use a shorter overlap, or more frames"
        )
    return pin(video, tail_latents, 0, strength)
