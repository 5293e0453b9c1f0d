"""How the transformer starts: sublayers add a little, modulations are neutral, latents pass straight through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.video_vae import USED_CHANNELS

_GATE = 0.3
_GATE_ROWS = {9: (2, 5, 8), 5: (4,)}
"""Rows of a block's tables by their number: gates of attention, feed-forward and text; of the other modality."""


@torch.no_grad()
def initialise(transformer: nn.Module, audio_used: int) -> None:
    """From the class's own start, whose random tables would drown the latents.

    audio_used: of a sound token's 128 values, the first so many mean something; of a picture's, 32.
    """
    for name, parameter in transformer.named_parameters():
        if name.endswith("scale_shift_table"):
            parameter.zero_()
            for row in _GATE_ROWS.get(len(parameter), ()):
                parameter[row] = _GATE
        elif name.endswith(("linear.weight", "linear.bias", "to_gate_logits.weight", "to_gate_logits.bias")):
            parameter.zero_()
    for prefix, used in (("", USED_CHANNELS), ("audio_", audio_used)):
        _pass_through(transformer, prefix, used)


def _pass_through(transformer: nn.Module, prefix: str, used: int) -> None:
    """The first `used` places of the width carry the noisy latents to the output, where they are most of a
    velocity; columns of unused latents stay zero, since their noise means nothing."""
    weight, bias = _linear(transformer, f"{prefix}proj_in")
    weight[:, used:] = 0
    weight[:used] = torch.eye(len(weight))[:used, : weight.shape[1]]
    weight[used:] *= 0.3
    bias.zero_()
    out, bias = _linear(transformer, f"{prefix}proj_out")
    bias.zero_()
    width = out.shape[1]
    out.zero_()
    # The norm before it divides by the root mean square over the width.
    out[:used, :used] = torch.eye(used) * (used / width) ** 0.5


def _linear(transformer: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    layer = transformer.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer.weight, layer.bias
