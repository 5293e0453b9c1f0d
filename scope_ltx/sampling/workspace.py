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

RotaryTable: TypeAlias = tuple[Tensor, Tensor]
BlockArguments: TypeAlias = dict[str, Tensor | RotaryTable]
"""What every block and pass of a step share, under the argument names of diffusers' block."""


@dataclass(frozen=True)
class Pass:
    """One evaluation of the transformer within a step.

    perturbed_blocks: there self-attention returns its values (spatio-temporal guidance).
    isolated: picture and sound do not attend to each other (modality guidance).
    """

    context: TextContext
    perturbed_blocks: frozenset[int] = frozenset()
    isolated: bool = False

    @property
    def kind(self) -> tuple[frozenset[int], bool]:
        """What decides its kernels: everything but the text."""
        return (self.perturbed_blocks, self.isolated)


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
    perturbed: bool,
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
        all_perturbed=perturbed,
        **shared,
    )
    return result


CallBlock = Callable[
    [Any, Tensor, Tensor, tuple[Tensor, Tensor], bool, bool, BlockArguments], tuple[Tensor, Tensor]
]


class StepWorkspace:
    """Fixed places for one shape of work: token and step counts, kinds of passes, spread of modulations."""

    def __init__(
        self,
        model: Any,
        video: Tensor,
        audio: Tensor,
        passes: Sequence[Pass],
        rotary: dict[str, RotaryTable],
        modulation: Modulation,
    ) -> None:
        """`video` and `audio` are latents (1, T, C): only shapes are taken from any argument but `model`."""
        self._model = model
        self._latents = (torch.empty_like(video), torch.empty_like(audio))
        self._step = torch.zeros(1, dtype=torch.int64, device=video.device)
        self._kinds = [one.kind for one in passes]
        self._contexts = [
            (torch.empty_like(one.context.video), torch.empty_like(one.context.audio)) for one in passes
        ]
        self._rotary = {name: (torch.empty_like(c), torch.empty_like(s)) for name, (c, s) in rotary.items()}
        self._tables = {name: _empty_table(table) for name, table in modulation.blocks.items()}
        self._heads = [_empty_table(table) for table in modulation.heads]
        rows = {name: torch.empty_like(table.row(self._step)) for name, table in modulation.blocks.items()}
        self._arguments: BlockArguments = {**self._rotary, **rows}
        self._rows = rows
        self._states = [(self._project_in(video, audio)) for _ in passes]
        self._velocities = [Velocity(torch.empty_like(video), torch.empty_like(audio)) for _ in passes]

    def load(self, passes: Sequence[Pass], rotary: dict[str, RotaryTable], modulation: Modulation) -> None:
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
            state[1].copy_(audio)

    def launch_blocks(self, run: Sequence[tuple[int, Any]], call: CallBlock) -> None:
        """The numbered blocks in order, each for every pass."""
        for index, block in run:
            for state, context, (perturbed_blocks, isolated) in zip(
                self._states, self._contexts, self._kinds, strict=True
            ):
                video, audio = call(block, *state, context, isolated, index in perturbed_blocks, self._arguments)
                state[0].copy_(video)
                state[1].copy_(audio)

    def rehearsal(self, blocks: Sequence[tuple[int, Any]]) -> Callable[[CallBlock], None]:
        """Runs these blocks on copies of the tensors as they are now: another thread may call it."""
        states = [(video.clone(), audio.clone()) for video, audio in self._states]
        contexts = [(video.clone(), audio.clone()) for video, audio in self._contexts]
        arguments: BlockArguments = {
            name: value.clone() if isinstance(value, Tensor) else (value[0].clone(), value[1].clone())
            for name, value in self._arguments.items()
        }

        def rehearse(call: CallBlock) -> None:
            for index, block in blocks:
                for state, context, (perturbed, isolated) in zip(states, contexts, self._kinds, strict=True):
                    call(block, *state, context, isolated, index in perturbed, arguments)

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
                place.copy_(project(norm(state[which]) * (1 + scale) + shift))

    @property
    def velocities(self) -> list[Velocity]:
        """Each pass's prediction; overwritten by the next step."""
        return self._velocities

    def _project_in(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        model = self._model
        dtype = model.proj_in.weight.dtype
        return model.proj_in(video.to(dtype)), model.audio_proj_in(audio.to(dtype))


def _empty_table(table: ModulationTable) -> ModulationTable:
    index = table.level_of_token
    return ModulationTable(torch.empty_like(table.values), None if index is None else torch.empty_like(index))


def _copy_table(place: ModulationTable, table: ModulationTable) -> None:
    place.values.copy_(table.values)
    if place.level_of_token is not None and table.level_of_token is not None:
        place.level_of_token.copy_(table.level_of_token)
