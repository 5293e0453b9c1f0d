"""One chunk: a validated request in, frames and samples out.

    prompt -> text context (cached) -> noise as token sequences -> denoise -> decode picture and sound

Belongs to one thread at a time, the generation thread. Only a chunk's decode may run beside it, on a thread and
a stream of its own, while the next chunk denoises.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.config import LTX2Config
from scope_ltx.engine import DEFAULT_ENGINE, GIB, EngineOptions
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.decode import AudioDecoder, Latents, VideoDecoder
from scope_ltx.models.decode_stage import DecodeStage
from scope_ltx.models.kernels import kernels_for
from scope_ltx.models.memory import ModelMemory
from scope_ltx.models.placement import Placement
from scope_ltx.models.text import PromptEncoder, TextContext
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import SAMPLE_RATE, ChunkGeometry
from scope_ltx.sampling.loop import denoise
from scope_ltx.sampling.schedules import resolve_schedule
from scope_ltx.sampling.workspace import Pass
from scope_ltx.support import refuse_unsupported
from scope_streaming.clock import Clock, SystemClock
from scope_streaming.weights.compiled import BackgroundThread
from scope_streaming.weights.streamer import NoWalk

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Denoised:
    """One chunk between its two halves. `notes` are for the user."""

    latents: Latents
    geometry: ChunkGeometry
    text_s: float
    denoise_s: float
    steps: int
    engine: str
    notes: tuple[str, ...]


class Pipeline:
    """Generates chunks with a loaded model. Stateless between chunks except for the prompt cache."""

    def __init__(self, components: Components, clock: Clock, first: LTX2Config | None = None) -> None:
        """Gives the model's blocks their places, with room for requests like `first` (None: the default).

        Raises BudgetError, PinningError, ValueError for an acceleration that the device does not have.
        """
        self._device = components.device
        self._clock = clock
        self._last: ChunkGeometry | None = None
        self._background = BackgroundThread()
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
        self._memory = ModelMemory(components, ChunkGeometry.of(first or LTX2Config()), self._moved)
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
        del self._memory, self._prompts, self._denoiser, self._decode

    def generate(self, request: ChunkRequest) -> Chunk:
        """`submit`, and wait for the chunk."""
        return self.submit(request).result()

    @torch.inference_mode()
    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        """Frames and samples of `request`; the same request gives the same bytes on the same device. Returns
        once the device is free for the next request.

        A request that needs more memory than the last ones, or that runs out of it, moves blocks of the model
        off the device first; running out is tried again once, and told in the chunk's notes.

        Raises UnsupportedError for a mode this pipeline does not have, GenerationCancelled when asked to stop,
        BudgetError for a request that the memory budget cannot hold.
        """
        refuse_unsupported(request.config)
        geometry = ChunkGeometry.of(request.config)
        if self._last is not None:
            # Only now, because its decode ran beside whatever came after it.
            self._memory.learn(self._last)
        self._last = None
        self._memory.fit(geometry)
        try:
            started = self._start(request)
        except torch.OutOfMemoryError as error:
            logger.warning("%s", error)
        else:
            self._last = geometry
            return started
        # Outside the except clause: the exception's traceback holds on to the tensors that did not fit.
        before = len(self.placement.plan.streamed)
        self._memory.grow()
        note = (
            f"the device ran out of memory: {len(self.placement.plan.streamed) - before} more of the model's "
            "blocks are streamed now, which is slower. Lower the size or the number of frames to avoid it."
        )
        return self._start(request, note)

    def _start(self, request: ChunkRequest, *notes: str) -> Future[Chunk]:
        denoised = self._denoise(request, notes)
        geometry = denoised.geometry
        # While blocks are compiled the device shall run dry now and then: with decodes beside chunks that followed
        # each other without a gap, an H200 took 95 to 150 s to compile, with gaps 59 s.
        return self._decode.start(
            partial(self._decoded, denoised),
            geometry.grid,
            geometry.audio_tokens,
            may_overlap=not self._background.busy,
        )

    def _denoise(self, request: ChunkRequest, notes: tuple[str, ...]) -> Denoised:
        config = request.config
        schedule = resolve_schedule(config)
        geometry = ChunkGeometry.of(config)

        started = self._clock.now()
        context = self.encode(request.prompt)
        # A new prompt has gone through the same slots.
        self.placement.walk.prefetch()
        encoded = self._clock.now()
        video, audio = self.noise(geometry, request.seed)
        latents = Latents(
            *denoise(
                self._denoiser,
                video,
                audio,
                [Pass(context)],
                schedule.sigmas,
                ffn_chunk_size=config.ffn_chunk_size,
                cancel=request.cancel,
            )
        )
        if self._device.type == "cuda":
            # Once per chunk, outside the loop: the decode reads the latents on another stream.
            torch.cuda.current_stream(self._device).synchronize()
        return Denoised(
            latents,
            geometry,
            text_s=encoded - started,
            denoise_s=self._clock.now() - encoded,
            steps=len(schedule.sigmas) - 1,
            engine=self._denoiser.engine,
            notes=(*config.adjustments, *((schedule.note,) if schedule.note else ()), *notes),
        )

    def _decoded(self, denoised: Denoised, beside: bool) -> Chunk:
        started = self._clock.now()
        frames, samples = self.decode(denoised.latents, denoised.geometry)
        stats = ChunkStats(
            text_s=denoised.text_s,
            denoise_s=denoised.denoise_s,
            decode_s=self._clock.now() - started,
            steps=denoised.steps,
            engine=denoised.engine,
            overlapped=beside,
        )
        return Chunk(frames.numpy(), samples.numpy(), SAMPLE_RATE, stats, denoised.notes)

    def decode(self, latents: Latents, geometry: ChunkGeometry) -> tuple[Tensor, Tensor]:
        """(F, H, W, 3) uint8 and (2, N) float32, both on the CPU."""
        return self._decode.decode(latents, geometry.grid, geometry.samples)

    def _moved(self, placement: Placement | None) -> None:
        """The blocks' addresses are about to change (None), or have changed."""
        if placement is None:
            self._decode.forget()
            self._denoiser.use(NoWalk())
        else:
            self._denoiser.use(placement.walk)

    @torch.inference_mode()
    def encode(self, prompt: str) -> TextContext:
        return self._prompts.encode(prompt)

    def noise(self, geometry: ChunkGeometry, seed: int) -> tuple[TokenSequence, TokenSequence]:
        """Pure noise in token layout, video drawn first, on the CPU: one seed is one noise on every device."""
        generator = torch.Generator("cpu").manual_seed(seed)
        video, audio = (
            torch.randn(1, tokens, 128, generator=generator).to(self._device)
            for tokens in (geometry.video_tokens, geometry.audio_tokens)
        )
        video_coords = self._denoiser.video_coords(
            geometry.latent_frames, geometry.latent_height, geometry.latent_width, float(geometry.frame_rate)
        )
        audio_coords = self._denoiser.audio_coords(geometry.audio_tokens)
        return TokenSequence(video, video_coords), TokenSequence(audio, audio_coords)


def load_pipeline(
    model_dir: Path, device: str, engine: EngineOptions = DEFAULT_ENGINE, first: LTX2Config | None = None
) -> Pipeline:
    """Load the published split files below `model_dir`; `device` is auto, cpu or cuda[:N], `first` what
    will be asked of it first.

    Raises CheckpointError naming the file and the keys, ValueError for a device that is not there, BudgetError
    for a budget that cannot hold the model's slots, PinningError.
    """
    files, where = ModelFiles.in_directory(model_dir), resolve_device(device)
    hold_to_budget(where, engine)
    return Pipeline(load_components(files, where, engine), SystemClock(), first)


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
