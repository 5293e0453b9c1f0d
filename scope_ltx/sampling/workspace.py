"""The tensors that a step reads and writes, at addresses that never change.

The same three launches serve eager, compiled and graph-replayed work: `launch_start` (modulations of the
step, input projections), `launch_blocks` (hidden states of every pass, replaced in place) and `launch_heads`
(predictions). Replacing in place costs one copy of the states per block: 17 MB, 8 us on an H200.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from scope_ltx.models.text import TextContext
from scope_ltx.sampling.modulation import Modulation, ModulationTable
from scope_ltx.sampling.perturbation import Perturbed

RotaryTable: TypeAlias = tuple[Tensor, Tensor]
BlockArguments: TypeAlias = dict[str, Tensor | RotaryTable]
"""What every block and pass of a step share, under the argument names of diffusers' block."""

STEP_ROWS = 8
LEVEL_ROWS = 4
"""Modulation tables hold a multiple of so many steps and mask levels, so that another number of steps or another
strength needs no other places and no other graphs. 8 steps by 4 levels are 5 MB at full size."""

ATTENTION_BIAS = "self_attention_mask"
BIAS_ALIGNMENT = 16
"""Rows of the attention bias are a multiple of so many elements apart, as the attention kernels like it: 1.68 ms
instead of 2.20 ms at 4,087 tokens on an H200 (1.28 ms without a bias)."""

_PER_AUDIO_TOKEN = ("temb_audio", "temb_ca_audio_scale_shift", "audio_rotary_emb", "ca_audio_rotary_emb")


@dataclass(frozen=True)
class Pass:
    """One evaluation of the transformer within a step.

    perturbed_blocks: there self-attention returns its values (spatio-temporal guidance), in `perturbed`.
    isolated: picture and sound do not attend to each other (modality guidance).
    audio_tokens: only so many audio tokens take part, from the first (identity guidance); None: all.
    """

    context: TextContext
    perturbed_blocks: frozenset[int] = frozenset()
    isolated: bool = False
    audio_tokens: int | None = None
    perturbed: Perturbed = "both"

    @property
    def kind(self) -> PassKind:
        """What decides its kernels: everything but the text."""
        return PassKind(self.perturbed_blocks, self.isolated, self.audio_tokens, self.perturbed)


@dataclass(frozen=True)
class PassKind:
    perturbed_blocks: frozenset[int]
    isolated: bool
    audio_tokens: int | None
    perturbed: Perturbed

    def perturbs(self, block: int) -> Perturbed | None:
        return self.perturbed if block in self.perturbed_blocks else None


@dataclass(frozen=True)
class Velocity:
    """What the transformer predicts: noise minus clean, float32, (1, T, C) for each modality."""

    video: Tensor
    audio: Tensor


def call_block(
    block: Any,
    video: Tensor,
    audio: Tensor,
    context: tuple[Tensor, Tensor],
    isolated: bool,
    perturbed: Perturbed | None,
    shared: BlockArguments,
) -> tuple[Tensor, Tensor]:
    """One block of diffusers' LTX-2 transformer on both modalities, (1, T, D) each."""
    result: tuple[Tensor, Tensor] = block(
        video,
        audio,
        encoder_hidden_states=context[0],
        audio_encoder_hidden_states=context[1],
        use_a2v_cross_attention=not isolated,
        use_v2a_cross_attention=not isolated,
        all_perturbed=perturbed or False,
        **shared,
    )
    return result


CallBlock = Callable[
    [Any, Tensor, Tensor, tuple[Tensor, Tensor], bool, Perturbed | None, BlockArguments], tuple[Tensor, Tensor]
]


class StepWorkspace:
    """Fixed places for one shape of work: token counts, kinds of passes, capacities and spread of modulations."""

    def __init__(
        self,
        model: Any,
        video: Tensor,
        audio: Tensor,
        passes: Sequence[Pass],
        rotary: dict[str, RotaryTable],
        modulation: Modulation,
        bias: Tensor | None = None,
    ) -> None:
        """`video` and `audio` are latents (1, T, C), `bias` (T, T) for video's self-attention: only shapes are
        taken from any argument but `model`."""
        self._model = model
        self._latents = (_place_for(video), _place_for(audio))
        self._step = torch.zeros(1, dtype=torch.int64, device=video.device)
        self._kinds = [one.kind for one in passes]
        self._contexts = [(_place_for(one.context.video), _place_for(one.context.audio)) for one in passes]
        self._rotary = {name: (_place_for(c), _place_for(s)) for name, (c, s) in rotary.items()}
        self._tables = {name: _empty_table(table) for name, table in modulation.blocks.items()}
        self._heads = [_empty_table(table) for table in modulation.heads]
        self._rows = {name: _place_for(table.row(self._step)) for name, table in modulation.blocks.items()}
        self._shared: BlockArguments = {**self._rotary, **self._rows}
        if bias is not None:
            self._shared[ATTENTION_BIAS] = bias.new_empty(bias.shape[0], _up_to(bias.shape[1], BIAS_ALIGNMENT))
        self._arguments = [self._arguments_of(kind, self._shared) for kind in self._kinds]
        parts = [(self._latents[0], self._latents[1][:, : kind.audio_tokens]) for kind in self._kinds]
        self._states = [self._project_in(*part) for part in parts]
        self._velocities = [Velocity(_place_for(part[0]), _place_for(part[1])) for part in parts]

    def load(
        self,
        passes: Sequence[Pass],
        rotary: dict[str, RotaryTable],
        modulation: Modulation,
        bias: Tensor | None = None,
    ) -> None:
        """Copy in what a whole chunk shares."""
        for place, one in zip(self._contexts, passes, strict=True):
            place[0].copy_(one.context.video)
            place[1].copy_(one.context.audio)
        for name, (cosine, sine) in rotary.items():
            self._rotary[name][0].copy_(cosine)
            self._rotary[name][1].copy_(sine)
        for name, table in modulation.blocks.items():
            _copy_table(self._tables[name], table)
        for head, table in zip(self._heads, modulation.heads, strict=True):
            _copy_table(head, table)
        biases = self._shared.get(ATTENTION_BIAS)
        if bias is not None and isinstance(biases, Tensor):
            biases[:, : bias.shape[1]].copy_(bias)

    def set_step(self, step: int, video: Tensor, audio: Tensor) -> None:
        """Latents (1, T, C) that step number `step` starts from."""
        self._step.fill_(step)
        self._latents[0].copy_(video)
        self._latents[1].copy_(audio)

    def launch_start(self) -> None:
        for name, place in self._rows.items():
            place.copy_(self._tables[name].row(self._step))
        video, audio = self._project_in(*self._latents)
        for state in self._states:
            state[0].copy_(video)
            state[1].copy_(audio[:, : state[1].shape[1]])

    def launch_blocks(self, run: Sequence[tuple[int, Any]], call: CallBlock) -> None:
        """The numbered blocks in order, each for every pass."""
        for index, block in run:
            for state, context, kind, arguments in zip(
                self._states, self._contexts, self._kinds, self._arguments, strict=True
            ):
                video, audio = call(block, *state, context, kind.isolated, kind.perturbs(index), arguments)
                state[0].copy_(video)
                state[1].copy_(audio)

    def rehearsal(self, blocks: Sequence[tuple[int, Any]]) -> Callable[[CallBlock], None]:
        """Runs these blocks on copies of the tensors as they are now, once in every way that a pass runs some
        block: another thread may call it."""
        states = [(video.clone(), audio.clone()) for video, audio in self._states]
        contexts = [(video.clone(), audio.clone()) for video, audio in self._contexts]
        shared: BlockArguments = {
            name: value.clone() if isinstance(value, Tensor) else (value[0].clone(), value[1].clone())
            for name, value in self._shared.items()
        }
        arguments = [self._arguments_of(kind, shared) for kind in self._kinds]

        def rehearse(call: CallBlock) -> None:
            for _, block in blocks:
                for state, context, kind, its in zip(states, contexts, self._kinds, arguments, strict=True):
                    call(block, *state, context, kind.isolated, None, its)
                    if kind.perturbed_blocks:
                        call(block, *state, context, kind.isolated, kind.perturbed, its)

        return rehearse

    def launch_heads(self) -> None:
        model = self._model
        parts = (
            (model.norm_out, model.scale_shift_table, model.proj_out),
            (model.audio_norm_out, model.audio_scale_shift_table, model.audio_proj_out),
        )
        for head, (norm, table, project), which in zip(self._heads, parts, (0, 1), strict=True):
            shift, scale = (table[None, None] + head.row(self._step)[:, :, None]).unbind(2)
            for state, velocity in zip(self._states, self._velocities, strict=True):
                place = velocity.audio if which else velocity.video
                tokens = place.shape[1]
                place.copy_(project(norm(state[which]) * (1 + scale[:, :tokens]) + shift[:, :tokens]))

    @property
    def velocities(self) -> list[Velocity]:
        """Each pass's prediction; overwritten by the next step."""
        return self._velocities

    def _arguments_of(self, kind: PassKind, shared: BlockArguments) -> BlockArguments:
        """Views of what passes share, for the tokens that take part in one."""
        arguments = dict(shared)
        bias = shared.get(ATTENTION_BIAS)
        if isinstance(bias, Tensor):
            # One matrix seen by every head: diffusers would copy a (1, T, T) one for each, 1.2 GB at 4,080 tokens.
            tokens, heads = bias.shape[0], self._model.config.num_attention_heads
            arguments[ATTENTION_BIAS] = bias[:, :tokens].expand(heads, tokens, tokens)
        if kind.audio_tokens is not None:
            for name in _PER_AUDIO_TOKEN:
                value = shared[name]
                if isinstance(value, Tensor):
                    arguments[name] = value[:, : kind.audio_tokens]
                else:
                    arguments[name] = (value[0][:, :, : kind.audio_tokens], value[1][:, :, : kind.audio_tokens])
        return arguments

    def _project_in(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        model = self._model
        dtype = model.proj_in.weight.dtype
        return model.proj_in(video.to(dtype)), model.audio_proj_in(audio.to(dtype))


def capacity(table: ModulationTable) -> tuple[int, int]:
    """Rows that a workspace has for a table: steps and levels."""
    steps, levels = table.values.shape[:2]
    return _up_to(steps, STEP_ROWS), levels if table.level_of_token is None else _up_to(levels, LEVEL_ROWS)


def _place_for(tensor: Tensor) -> Tensor:
    """In order of its dimensions, whatever strides the first chunk of a shape comes with: latents from the
    upsampler are transposed, and matrix products of transposed inputs round otherwise on a CUDA device."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _up_to(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _empty_table(table: ModulationTable) -> ModulationTable:
    index = table.level_of_token
    values = table.values.new_zeros(*capacity(table), table.values.shape[2])
    return ModulationTable(values, None if index is None else torch.empty_like(index))


def _copy_table(place: ModulationTable, table: ModulationTable) -> None:
    steps, levels = table.values.shape[:2]
    place.values[:steps, :levels].copy_(table.values)
    if place.level_of_token is not None and table.level_of_token is not None:
        place.level_of_token.copy_(table.level_of_token)
