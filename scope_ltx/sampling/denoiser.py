"""The driver over diffusers' LTX-2 transformer: what does not change in a chunk is prepared once.

diffusers' own `forward` rebuilds the RoPE tables in float64 and embeds every timestep at every step; here
that is done in `prepare`, and `velocities` runs the blocks *block-major*: each block serves every pass before
the next block, so a streamed block is copied once per step however many passes there are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.errors import GenerationCancelled
from scope_ltx.models.feed_forward import make_feed_forward_chunked
from scope_ltx.models.text import TextContext
from scope_ltx.sampling.modulation import ModalityModulation, Modulation, build_modulation

RotaryTable = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Pass:
    """One evaluation of the transformer within a step.

    perturbed_blocks: there self-attention returns its values (spatio-temporal guidance).
    isolated: picture and sound do not attend to each other (modality guidance).
    """

    context: TextContext
    perturbed_blocks: frozenset[int] = frozenset()
    isolated: bool = False


@dataclass(frozen=True)
class Velocity:
    """What the transformer predicts: noise minus clean, float32, (1, T, C) for each modality."""

    video: Tensor
    audio: Tensor


@dataclass(frozen=True)
class Prepared:
    """Everything of a chunk that its steps share."""

    passes: tuple[Pass, ...]
    modulation: Modulation
    rotary: dict[str, RotaryTable]


class Denoiser:
    """Runs the transformer. `blocks` is walked once per step, in order: resident, or streamed from the host.

    Takes over the video feed-forward of each block so that it can run in parts (`ffn_chunk_size`).
    """

    def __init__(self, transformer: nn.Module, blocks: Iterable[nn.Module] | None = None) -> None:
        self._model: Any = transformer
        self._feed_forwards = make_feed_forward_chunked(transformer)
        self._blocks: Iterable[Any] = self._model.transformer_blocks if blocks is None else blocks
        self._dtype: torch.dtype = self._model.proj_in.weight.dtype

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
        for layer in self._feed_forwards:
            layer.chunk_size = ffn_chunk_size
        model = self._model
        return Prepared(
            passes=tuple(passes),
            modulation=build_modulation(model, video, audio, sigmas, self._dtype),
            rotary={
                "video_rotary_emb": model.rope(video.coords),
                "audio_rotary_emb": model.audio_rope(audio.coords),
                # Across modalities only time is shared, so the cross tables see the first axis alone.
                "ca_video_rotary_emb": model.cross_attn_rope(video.coords[:, :1]),
                "ca_audio_rotary_emb": model.cross_attn_audio_rope(audio.coords[:, :1]),
            },
        )

    def velocities(
        self, prepared: Prepared, video: Tensor, audio: Tensor, step: int, cancel: threading.Event
    ) -> list[Velocity]:
        """One prediction per pass for latents (1, T, C). Raises GenerationCancelled between blocks."""
        model = self._model
        shared = {**prepared.rotary, **_block_modulation(prepared.modulation, step)}
        start = (model.proj_in(video.to(self._dtype)), model.audio_proj_in(audio.to(self._dtype)))
        states = [start for _ in prepared.passes]
        for index, block in enumerate(self._blocks):
            if cancel.is_set():
                raise GenerationCancelled(f"the chunk was cancelled in denoising step {step + 1}")
            for which, one in enumerate(prepared.passes):
                states[which] = block(
                    *states[which],
                    encoder_hidden_states=one.context.video,
                    audio_encoder_hidden_states=one.context.audio,
                    use_a2v_cross_attention=not one.isolated,
                    use_v2a_cross_attention=not one.isolated,
                    all_perturbed=index in one.perturbed_blocks,
                    **shared,
                )
        return [self._head(state, prepared.modulation, step) for state in states]

    def _head(self, state: tuple[Tensor, Tensor], modulation: Modulation, step: int) -> Velocity:
        model = self._model

        def project(hidden: Tensor, norm: Any, table: Tensor, one: ModalityModulation, out: Any) -> Tensor:
            shift, scale = (table[None, None] + one.per_token(one.output, step)[:, :, None]).unbind(2)
            prediction: Tensor = out(norm(hidden) * (1 + scale) + shift)
            return prediction.float()

        return Velocity(
            video=project(state[0], model.norm_out, model.scale_shift_table, modulation.video, model.proj_out),
            audio=project(
                state[1],
                model.audio_norm_out,
                model.audio_scale_shift_table,
                modulation.audio,
                model.audio_proj_out,
            ),
        )


def _block_modulation(modulation: Modulation, step: int) -> dict[str, Tensor]:
    """The step's modulations under the argument names of diffusers' block."""
    video, audio = modulation.video, modulation.audio
    row = slice(step, step + 1)
    return {
        "temb": video.per_token(video.tokens, step),
        "temb_audio": audio.per_token(audio.tokens, step),
        "temb_ca_scale_shift": video.per_token(video.cross, step),
        "temb_ca_audio_scale_shift": audio.per_token(audio.cross, step),
        "temb_ca_gate": video.gate[row],
        "temb_ca_audio_gate": audio.gate[row],
        "temb_prompt": video.prompt[row],
        "temb_prompt_audio": audio.prompt[row],
    }
