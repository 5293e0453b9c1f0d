"""One chunk: a validated request in, frames and samples out.

    LoRAs merged -> prompt to text context (cached) -> inputs and noise to token sequences -> denoise, in one stage
    or two -> decode picture and sound

Belongs to one thread at a time, the generation thread. Only a chunk's decode may run beside it, on a thread and
a stream of its own, while the next chunk denoises.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from scope_ltx.conditioning.chunk import GuideScales, SequenceBuilder, demand_of
from scope_ltx.conditioning.stages import StagePlan, plan_stages
from scope_ltx.config import LTX2Config
from scope_ltx.control.frames import FrameFunction
from scope_ltx.control.groups import ControlGroup, build_control
from scope_ltx.engine import DEFAULT_ENGINE, GIB, EngineOptions
from scope_ltx.errors import GenerationCancelled, OutOfMemory, UnsupportedError
from scope_ltx.lora.loras import LoraSet
from scope_ltx.manifest import ModelFiles, load_manifest
from scope_ltx.models.adapters import LoraAdapter, Selection
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.decode import AudioDecoder, Latents, VideoDecoder
from scope_ltx.models.decode_stage import DecodeStage
from scope_ltx.models.encoders import InputEncoder
from scope_ltx.models.finite import finite_flags, require_finite
from scope_ltx.models.kernels import kernels_for
from scope_ltx.models.memory import ModelMemory
from scope_ltx.models.placement import Placement
from scope_ltx.models.text import PromptEncoder, TextContext, blended
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import SAMPLE_RATE, ChunkGeometry
from scope_ltx.sampling.guidance import NO_GUIDANCE, Guidance, guidance_of
from scope_ltx.sampling.headroom import Demand
from scope_ltx.sampling.loop import denoise
from scope_streaming.clock import Clock, SystemClock
from scope_streaming.weights.background import BackgroundThread
from scope_streaming.weights.streamer import NoWalk

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What is decided about a chunk before the device is asked for anything."""

    request: ChunkRequest
    stages: StagePlan
    loras: Selection
    guidance: Guidance

    @property
    def scales(self) -> GuideScales:
        return GuideScales(self.loras.downscale, self.loras.temporal_scale)

    @property
    def demand(self) -> Demand:
        return demand_of(self.request.config, self.request.inputs, self.scales, self.guidance.count)


@dataclass(frozen=True)
class Denoised:
    """One chunk between its two halves. `notes` are for the user."""

    request: ChunkRequest
    latents: Latents
    geometry: ChunkGeometry
    text_s: float
    denoise_s: float
    steps: int
    engine: str
    copied_nbytes: int
    notes: tuple[str, ...]


class Pipeline:
    """Generates chunks with a loaded model. Stateless between chunks except for what it keeps to be quick: encoded
    prompts and inputs, merged LoRAs."""

    def __init__(
        self,
        components: Components,
        clock: Clock,
        first: LTX2Config | None = None,
        background: BackgroundThread | None = None,
    ) -> None:
        """Gives the model's blocks their places, with room for requests like `first` (None: the default). Compiles
        in the `background` (None: one of its own), which all pipelines of a process are to share.

        Raises BudgetError, PinningError, ValueError for an acceleration that the device does not have.
        """
        self._components = components
        self._device = components.device
        self._clock = clock
        self._last: Demand | None = None
        self._background = background or BackgroundThread()
        kernels = kernels_for(
            self._device, components.engine.acceleration, self._background, lambda: self._decode.busy
        )
        new_runner = kernels.new_runner
        self._decode = DecodeStage(
            VideoDecoder(components.video_vae, new_runner()),
            AudioDecoder(components.audio_vae, components.vocoder, new_runner(), kernels.activations),
            self._device,
            pinned=not components.engine.pageable,
        )
        self._prompts = PromptEncoder(components.tokenizer, components.text_encoder, components.connectors)
        self._inputs = InputEncoder(components, self._control)
        self._loras = LoraAdapter(components)
        self._memory = ModelMemory(components, Demand.of(ChunkGeometry.of(first or LTX2Config())), self._moved)
        self._denoiser = Denoiser(components.transformer, self.placement.walk, new_runner(), kernels.blocks)

    @property
    def placement(self) -> Placement:
        """Where the model's weights are now."""
        return self._memory.placement

    @property
    def compiling(self) -> bool:
        """Faster kernels are being made in the background; a later chunk takes them."""
        return self._background.busy

    def close(self) -> None:
        """Give up the model, so that its memory is freed even while a host still holds this object. What is being
        compiled is left to itself."""
        self._decode.close()
        self._memory.close()
        del self._memory, self._prompts, self._inputs, self._loras, self._denoiser, self._decode, self._components

    def generate(self, request: ChunkRequest) -> Chunk:
        """`submit`, and wait for the chunk."""
        return self.submit(request).result()

    @torch.inference_mode()
    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        """Frames and samples of `request`. The same request gives the same bytes on the same CPU, and the same
        picture on the same GPU, where samples may differ by 1e-7. Returns once the device is free for the next
        request.

        A request that needs more memory than the last ones, or that runs out of it, moves blocks of the model
        off the device first; running out is tried again once, and told in the chunk's notes.

        Raises UnsupportedError for LoRAs, inputs and sizes that do not fit each other, LoraError and
        CheckpointError for files, ValueError for inputs of the wrong form, GenerationCancelled when asked to stop,
        BudgetError for a request that the memory budget cannot hold, OutOfMemory when the second try ran out of
        it, NotFiniteError when the model made NaN.
        """
        prepared = self._prepare(request)
        if self._last is not None:
            # Only now, because its decode ran beside whatever came after it.
            self._memory.learn(self._last)
        self._last = None
        self._memory.fit(prepared.demand)
        try:
            started = self._start(prepared)
        except torch.OutOfMemoryError as error:
            logger.warning("%s", error)
        else:
            self._last = prepared.demand
            return started
        # Outside the except clause: the exception's traceback holds on to the tensors that did not fit.
        before = len(self.placement.plan.streamed)
        self._memory.grow()
        note = (
            f"the device ran out of memory: {len(self.placement.plan.streamed) - before} more of the model's "
            "blocks are streamed now, which is slower. Lower the size or the number of frames to avoid it."
        )
        try:
            return self._start(prepared, note)
        except torch.OutOfMemoryError as error:
            config = request.config
            raise OutOfMemory(
                f"the device ran out of memory twice at {config.width}x{config.height}x{config.num_frames}, even "
                "with more of the model streamed: lower the size or num_frames, or give the program less memory "
                "to start with (--vram-budget-gb) if another one shares the device"
            ) from error

    def _prepare(self, request: ChunkRequest) -> Prepared:
        config, inputs = request.config, request.inputs
        given = inputs.reference is not None
        selection = self._loras.select(config, reference=given, camera=inputs.camera_may_come)
        if given and not selection.looks:
            request = replace(request, inputs=replace(inputs, reference=None))
        upsampler = self._components.upsampler
        if upsampler is not None and not config.two_stage:
            upsampler.rest()
        if config.two_stage and upsampler is None:
            raise UnsupportedError(
                "two_stage needs the latent upsampler, and the model directory has none: "
                f"add {load_manifest().upsampler.path}, or switch two_stage off"
            )
        guidance = guidance_of(config, voice=inputs.voice is not None)
        return Prepared(request, plan_stages(config), selection, guidance)

    def _start(self, prepared: Prepared, *notes: str) -> Future[Chunk]:
        denoised = self._denoise(prepared, notes)
        geometry = denoised.geometry
        # While blocks are compiled the device shall run dry now and then: with decodes beside chunks that followed
        # each other without a gap, an H200 took 95 to 150 s to compile, with gaps 59 s.
        return self._decode.start(
            partial(self._decoded, denoised),
            geometry.grid,
            None if prepared.request.inputs.driving else geometry.audio_tokens,
            may_overlap=not self._background.busy,
        )

    def _denoise(self, prepared: Prepared, notes: tuple[str, ...]) -> Denoised:
        request, config = prepared.request, prepared.request.config
        started, copied = self._clock.now(), self.placement.copied_nbytes
        notes = (*notes, *self._merge(prepared.loras.loras, "LoRAs"))
        context = self._context(request)
        negative = self._prompts.encode(config.negative_prompt) if prepared.guidance.needs_negative else None
        # A new prompt has gone through the same slots.
        self.placement.walk.prefetch()
        encoded = self._clock.now()
        latents, merged = self._denoised_latents(prepared, context, negative)
        finite = finite_flags(latents)
        if self._device.type == "cuda":
            # Once per chunk, outside the loop: the decode reads the latents on another stream.
            torch.cuda.current_stream(self._device).synchronize()
        if request.cancel.is_set():
            raise GenerationCancelled("the chunk was cancelled before it was decoded")
        require_finite(finite)
        schedule = (prepared.stages.note,) if prepared.stages.note else ()
        texts = [one.text for one in request.mix] or [request.prompt]
        prompts = [note for text in texts for note in prepared.loras.prompt_notes(text)]
        return Denoised(
            request,
            latents,
            prepared.stages.stages[-1].geometry,
            text_s=encoded - started,
            denoise_s=self._clock.now() - encoded,
            steps=prepared.stages.steps,
            engine=self._denoiser.engine,
            copied_nbytes=self.placement.copied_nbytes - copied,
            notes=(*config.adjustments, *schedule, *prepared.loras.notes, *prompts, *notes, *merged),
        )

    def _denoised_latents(
        self, prepared: Prepared, context: TextContext, negative: TextContext | None
    ) -> tuple[Latents, tuple[str, ...]]:
        """The last stage's latents; sentences about what had to be done between the stages."""
        request, config = prepared.request, prepared.request.config
        builder = SequenceBuilder(
            config, request.inputs, prepared.scales, request.seed, self._inputs, self._denoiser, self._device
        )
        notes: tuple[str, ...] = ()
        made: tuple[Tensor, Tensor] | None = None
        for stage, before in zip(prepared.stages.stages, (None, *prepared.stages.stages), strict=False):
            if made is not None and before is not None:
                made = (self._upsampled(made[0], before.geometry), made[1])
                notes = self._merge(prepared.loras.refining, "LoRAs of the second stage")
                # The same one, unless a LoRA of the text path came or went.
                context = self._context(request)
                self.placement.walk.prefetch()
            video, audio = builder.sequences(stage, made)
            guidance = NO_GUIDANCE if stage.refines else prepared.guidance
            plan = guidance.plan(context, video, audio, negative)
            made = denoise(
                self._denoiser,
                video,
                audio,
                plan.passes,
                stage.sigmas,
                combine=plan.combine,
                ffn_chunk_size=config.ffn_chunk_size,
                cancel=request.cancel,
            )
        assert made is not None
        return Latents(*made), notes

    def _upsampled(self, video: Tensor, geometry: ChunkGeometry) -> Tensor:
        assert self._components.upsampler is not None
        return self._components.upsampler.upsample(video, geometry.grid)

    def _merge(self, loras: LoraSet, what: str) -> tuple[str, ...]:
        """Make the weights those with the LoRAs merged; a sentence when that took any work."""
        applied = self._loras.apply(loras, self.placement)
        if applied.text_changed:
            self._prompts.forget()
        if not applied.layers:
            return ()
        return (f"{what}: {applied.layers} layers merged in {applied.seconds:.1f} s",)

    def _context(self, request: ChunkRequest) -> TextContext:
        if not request.mix:
            return self._prompts.encode(request.prompt)
        return blended([(self._prompts.encode(one.text), one.weight) for one in request.mix])

    def _decoded(self, denoised: Denoised, beside: bool) -> Chunk:
        started = self._clock.now()
        driving, geometry = denoised.request.inputs.driving, denoised.geometry
        frames, samples = self._decode.decode(
            denoised.latents, geometry.grid, None if driving else geometry.samples
        )
        stats = ChunkStats(
            text_s=denoised.text_s,
            denoise_s=denoised.denoise_s,
            decode_s=self._clock.now() - started,
            steps=denoised.steps,
            engine=denoised.engine,
            overlapped=beside,
            copied_nbytes=denoised.copied_nbytes,
            device_nbytes=self._device_nbytes(),
            pinned_nbytes=self.placement.pinned_nbytes,
        )
        if driving:
            return Chunk(frames.numpy(), driving.output, SAMPLE_RATE, stats, denoised.notes)
        heard = cast(Tensor, samples).numpy()
        sound, surplus = (part.copy() for part in np.split(heard, [geometry.samples], axis=1))
        return Chunk(frames.numpy(), sound, SAMPLE_RATE, stats, denoised.notes, surplus)

    def _device_nbytes(self) -> int:
        """What the allocator holds; on the CPU what the blocks take."""
        if self._device.type == "cuda":
            return torch.cuda.memory_reserved(self._device)
        return self.placement.plan.device_nbytes

    def _control(self, group: ControlGroup) -> FrameFunction:
        models = self._components.directory
        return build_control(group, manifest=load_manifest(), models=models, device=self._device)

    def _moved(self, placement: Placement | None) -> None:
        """The blocks' addresses are about to change (None), or have changed."""
        if placement is None:
            self._decode.forget()
            # A LoRA whose file has gone is taken out by the move, and prompts may have been encoded with it.
            self._prompts.forget()
            self._denoiser.use(NoWalk())
        else:
            self._denoiser.use(placement.walk)


def load_pipeline(
    model_dir: Path,
    device: str,
    engine: EngineOptions = DEFAULT_ENGINE,
    first: LTX2Config | None = None,
    background: BackgroundThread | None = None,
) -> Pipeline:
    """Load the published split files below `model_dir`; `device` is auto, cpu or cuda[:N], `first` what
    will be asked of it first, `background` as for `Pipeline`.

    Raises CheckpointError naming the file and the keys, ValueError for a device that is not there, BudgetError
    for a budget that cannot hold the model's slots, PinningError.
    """
    files, where = ModelFiles.in_directory(model_dir), resolve_device(device)
    hold_to_budget(where, engine)
    return Pipeline(load_components(files, where, engine), SystemClock(), first, background)


def hold_to_budget(device: torch.device, engine: EngineOptions) -> None:
    """Make a stated budget a limit of this process's allocator: what is cached is given back before it is
    exceeded, and other programs keep the rest of the device."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        total = torch.cuda.get_device_properties(index).total_memory
        budget = total if engine.vram_budget_gb is None else engine.vram_budget_gb * GIB
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), index)


def resolve_device(name: str) -> torch.device:
    """auto: the first CUDA device, else the CPU. Raises ValueError for one that does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu or cuda[:N], got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ValueError(f"device {name!r} is not there: PyTorch {torch.__version__} sees {found} CUDA devices")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda[:N], got {name!r}")
    return device
