"""Which self-attentions a perturbed pass switches off (spatio-temporal guidance).

diffusers' block hands one value, `all_perturbed`, to both of its self-attentions, whose processors ask whether
it is true. Ours hands down the name of what is perturbed, and the audio attention's processor reads it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

Perturbed: TypeAlias = Literal["both", "video"]
"""Self-attention that returns its values: of picture and sound, or of the picture alone."""

RotaryTable: TypeAlias = tuple[Tensor, Tensor]


class SparedProcessor:
    """The processor of an attention, but "video" does not perturb it."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        query_rotary_emb: RotaryTable | None = None,
        key_rotary_emb: RotaryTable | None = None,
        perturbation_mask: Tensor | None = None,
        all_perturbed: Perturbed | bool | None = None,
    ) -> Tensor:
        result: Tensor = self._processor(
            attn,
            hidden_states,
            encoder_hidden_states,
            attention_mask,
            query_rotary_emb,
            key_rotary_emb,
            perturbation_mask,
            False if all_perturbed == "video" else all_perturbed,
        )
        return result


def let_sound_be_spared(transformer: nn.Module) -> None:
    """Take over the processor of every block's audio self-attention."""
    for block in transformer.get_submodule("transformer_blocks").children():
        attention: Any = block.get_submodule("audio_attn1")
        if not isinstance(attention.processor, SparedProcessor):
            attention.set_processor(SparedProcessor(attention.processor))
