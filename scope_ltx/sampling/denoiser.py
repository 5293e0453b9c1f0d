"""The driver over diffusers' LTX-2 transformer: what does not change in a chunk is prepared once.

diffusers' own `forward` rebuilds the RoPE tables in float64 and embeds every timestep at every step; here
that is done in `prepare`, and `velocities` runs the blocks *block-major*: each block serves every pass before
the next block, so a streamed block is copied once per step however many passes there are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from scope_ltx.conditioning.attention import attention_bias
from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.errors import GenerationCancelled
from scope_ltx.models.feed_forward import make_feed_forward_chunked
from scope_ltx.sampling.modulation import build_modulation
from scope_ltx.sampling.perturbation import let_sound_be_spared
from scope_ltx.sampling.workspace import CallBlock, Pass, StepWorkspace, Velocity, call_block, capacity
from scope_streaming.weights.compiled import Forms, PlainForm
from scope_streaming.weights.graphs import BlockRunner, EagerRunner
from scope_streaming.weights.layout import block_tensors
from scope_streaming.weights.streamer import BlockWalk, ResidentWalk

WORKSPACES = 2
"""Shapes of work whose buffers and graphs are kept: switching between two modes captures nothing anew."""


@dataclass(frozen=True)
class Prepared:
    """What the steps of one chunk share, in its place. `shape` tells kinds of work apart."""

    workspace: StepWorkspace
    shape: Hashable
    call: CallBlock


class Denoiser:
    """Runs the transformer. `walk` is gone over once per step, in order: resident, or streamed from the host.

    Takes over the video feed-forward of each block so that it can run in parts (`ffn_chunk_size`), and the
    processor of its audio self-attention so that perturbing can spare it.
    Belongs to one thread; one chunk at a time.
    """

    def __init__(
        self,
        transformer: nn.Module,
        walk: BlockWalk | None = None,
        runner: BlockRunner | None = None,
        forms: Forms[CallBlock] | None = None,
    ) -> None:
        self._model: Any = transformer
        self._feed_forwards = make_feed_forward_chunked(transformer)
        let_sound_be_spared(transformer)
        blocks = list(transformer.get_submodule("transformer_blocks").children())
        self._walk: BlockWalk = ResidentWalk(blocks) if walk is None else walk
        self._runner = EagerRunner() if runner is None else runner
        self._forms: Forms[CallBlock] = PlainForm(call_block) if forms is None else forms
        self._form = "eager"
        self._form_of: dict[Hashable, str] = {}
        self._blocks = len(blocks)
        self._samples = _one_of_each_kind(blocks)
        self._workspaces: OrderedDict[Hashable, StepWorkspace] = OrderedDict()

    def use(self, walk: BlockWalk) -> None:
        """The blocks' weights have moved: whatever was bound to their old places is given up."""
        self._walk = walk
        self._workspaces.clear()
        self._form_of.clear()
        self._runner.forget()

    def video_coords(self, frames: int, height: int, width: int, frame_rate: float) -> Tensor:
        """(1, 3, frames * height * width, 2) bounds of latent cells in seconds and pixels."""
        device = self._model.proj_in.weight.device
        coords: Tensor = self._model.rope.prepare_video_coords(1, frames, height, width, device, fps=frame_rate)
        return coords

    def audio_coords(self, tokens: int) -> Tensor:
        """(1, 1, tokens, 2) bounds of audio latents in seconds."""
        coords: Tensor = self._model.audio_rope.prepare_audio_coords(1, tokens, self._model.proj_in.weight.device)
        return coords

    def prepare(
        self,
        video: TokenSequence,
        audio: TokenSequence,
        passes: Sequence[Pass],
        sigmas: tuple[float, ...],
        ffn_chunk_size: int | None = None,
    ) -> Prepared:
        """Everything that the steps over `sigmas` share; valid until the next `prepare`.

        Raises ValueError for a pass that perturbs blocks which the model does not have.
        """
        model = self._model
        missing = sorted({index for one in passes for index in one.perturbed_blocks} - set(range(self._blocks)))
        if missing:
            raise ValueError(f"the model's blocks are 0..{self._blocks - 1}, got {missing} to perturb")
        for layer in self._feed_forwards:
            layer.chunk_size = ffn_chunk_size
        modulation = build_modulation(model, video, audio, sigmas, model.proj_in.weight.dtype)
        rotary = {
            "video_rotary_emb": model.rope(video.coords),
            "audio_rotary_emb": model.audio_rope(audio.coords),
            # Across modalities only time is shared, so the cross tables see the first axis alone.
            "ca_video_rotary_emb": model.cross_attn_rope(video.coords[:, :1]),
            "ca_audio_rotary_emb": model.cross_attn_audio_rope(audio.coords[:, :1]),
        }
        bias = attention_bias(video, model.proj_in.weight.dtype)
        shape = (
            video.tokens,
            audio.tokens,
            modulation.layout,
            tuple(capacity(table) for table in modulation.heads),
            tuple(one.kind for one in passes),
            bias is not None,
            ffn_chunk_size,
        )
        workspace = self._workspaces.get(shape)
        if workspace is None:
            if len(self._workspaces) >= WORKSPACES:
                oldest, _ = self._workspaces.popitem(last=False)
                self._runner.forget(oldest)
                self._form_of.pop(oldest, None)
            workspace = StepWorkspace(model, video.latents, audio.latents, passes, rotary, modulation, bias)
            self._workspaces[shape] = workspace
        self._workspaces.move_to_end(shape)
        workspace.load(passes, rotary, modulation, bias)
        form, call = self._forms.form(shape, lambda: workspace.rehearsal(self._samples))
        if self._form_of.setdefault(shape, form) != form:
            self._runner.forget(shape)
            self._form_of[shape] = form
        self._form = form
        return Prepared(workspace, shape, call)

    @property
    def engine(self) -> str:
        """How the blocks ran in the latest chunk, for people."""
        return f"{self._form}, {self._runner.name}"

    def velocities(
        self, prepared: Prepared, video: Tensor, audio: Tensor, step: int, cancel: threading.Event
    ) -> list[Velocity]:
        """One prediction per pass for latents (1, T, C), valid until the next step.

        Raises GenerationCancelled between runs of blocks.
        """
        workspace, shape = prepared.workspace, prepared.shape
        workspace.set_step(step, video, audio)
        self._runner.run((shape, "start"), workspace.launch_start)
        for run in self._walk:
            if cancel.is_set():
                raise GenerationCancelled(f"the chunk was cancelled in denoising step {step + 1}")
            launch = partial(workspace.launch_blocks, run, prepared.call)
            self._runner.run((shape, run[0][0]), launch)
        self._runner.run((shape, "heads"), workspace.launch_heads)
        return workspace.velocities


def _one_of_each_kind(blocks: Sequence[nn.Module]) -> list[tuple[int, nn.Module]]:
    """Blocks are of one kind when their tensors have the same names, shapes and types: FP8 or not, mostly."""
    kinds: dict[Hashable, tuple[int, nn.Module]] = {}
    for index, block in enumerate(blocks):
        kind = tuple((name, tensor.shape, tensor.dtype) for name, tensor in block_tensors(block).items())
        kinds.setdefault(kind, (index, block))
    return list(kinds.values())
