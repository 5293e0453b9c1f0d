"""How strongly appended tokens and the target attend to each other, as a bias on attention scores.

A weight w scales the softmax's term of a pair of tokens, so the bias is log(w): 0 for an ordinary pair, the
lowest finite number for none. (diffusers 0.42 adds -10000 (1 - w), which is nothing or everything.)

Which pairs (Lightricks/LTX-2, ltx-core conditioning/mask_utils.py, applied group after group as appended):
    target and target            1
    a group and itself           1
    a weighted group and target  its weights, both ways
    a weighted group and others  0 with every group before it
    groups before the first weighted one  1 among each other
    any group after it           0 with every group before it
Without a weighted group there is no bias, and attention keeps its fast kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from scope_ltx.conditioning.sequence import Appended, TokenSequence


def attention_bias(sequence: TokenSequence, dtype: torch.dtype) -> Tensor | None:
    """(T, T) additive bias, query by key, or None when every pair attends fully."""
    if not any(_weighted(group) for group in sequence.appended):
        return None
    target = sequence.target_tokens
    bias = torch.zeros(sequence.tokens, sequence.tokens, dtype=dtype, device=sequence.latents.device)
    none = torch.finfo(dtype).min
    start, isolated = target, False
    for group in sequence.appended:
        stop = start + group.tokens
        isolated = isolated or _weighted(group)
        if isolated:
            bias[target:start, start:stop] = none
            bias[start:stop, target:start] = none
        if _weighted(group):
            log = _log(group, sequence.latents).to(dtype).clamp_(min=none)
            bias[:target, start:stop] = log[None, :]
            bias[start:stop, :target] = log[:, None]
        start = stop
    return bias


def token_weights(mask: Tensor, grid: tuple[int, int, int], strength: float) -> float | Tensor:
    """Weights of a reference's tokens (T,) from a mask over its pixels (F, H, W) in 0..1; the number 1 when they
    all are 1.

    Rows and columns are averaged over each cell of the latent grid (frames, height, width); of the frames the
    first stands alone and the others are averaged in the groups that the causal encoder makes.

    Raises ValueError for a mask whose frames do not fit the grid.
    """
    frames, height, width = grid
    if mask.ndim != 3 or mask.shape[0] != 8 * (frames - 1) + 1:
        expected = f"({8 * (frames - 1) + 1}, height, width)"
        raise ValueError(
            f"an attention mask for {frames} latent frames must be {expected}, got {tuple(mask.shape)}"
        )
    cells = functional.interpolate(mask.float()[:, None], size=(height, width), mode="area")[:, 0]
    groups = cells[1:].view(frames - 1, 8, height, width).mean(1)
    weights = torch.cat([cells[:1], groups]).flatten().mul_(strength)
    return 1.0 if bool((weights == 1).all()) else weights


def _weighted(group: Appended) -> bool:
    return isinstance(group.attention, Tensor) or group.attention != 1.0


def _log(group: Appended, like: Tensor) -> Tensor:
    weights = torch.as_tensor(group.attention, dtype=torch.float32, device=like.device)
    return weights.expand(group.tokens).log()
