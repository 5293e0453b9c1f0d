"""One chunk: a validated request in, frames and samples out.

    prompt -> text context (cached) -> noise as token sequences -> denoise -> decode picture and sound

Belongs to one thread at a time: the generation thread owns the device.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from scope_ltx.conditioning.sequence import TokenSequence
from scope_ltx.config import LTX2Config
from scope_ltx.engine import DEFAULT_ENGINE, Acceleration, EngineOptions
from scope_ltx.errors import UnsupportedError
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.components import Components, load_components
from scope_ltx.models.decode import AudioDecoder, VideoDecoder
from scope_ltx.models.placement import Placement
from scope_ltx.models.text import PromptEncoder, TextContext
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_ltx.sampling.acceleration import BlockForms, CompiledForms, PlainForm, inductor
from scope_ltx.sampling.denoiser import Denoiser
from scope_ltx.sampling.geometry import SAMPLE_RATE, ChunkGeometry, headroom_nbytes
from scope_ltx.sampling.loop import denoise
from scope_ltx.sampling.schedules import resolve_schedule
from scope_ltx.sampling.workspace import Pass
from scope_streaming.clock import Clock, SystemClock
from scope_streaming.weights.graphs import BlockRunner, EagerRunner, GraphRunner
from scope_streaming.weights.streamer import ResidentWalk

OUT_OF_MEMORY_GROWTH = 1.5
"""How much more is left to activations after running out: two blocks' worth at the default size."""


@dataclass(frozen=True)
class Latents:
    """Denoised tokens of one chunk, float32: video (1, Tv, 128), audio (1, Ta, 128)."""

    video: Tensor
    audio: Tensor


class Pipeline:
    """Generates chunks with a loaded model. Stateless between chunks except for the prompt cache."""

    def __init__(self, components: Components, clock: Clock) -> None:
        """Gives the model's blocks their places. Raises BudgetError, PinningError."""
        self._device = components.device
        self._clock = clock
        self._components = components
        self._headroom_nbytes = headroom_nbytes(ChunkGeometry.of(LTX2Config()))
        self._placement = components.place(self._headroom_nbytes)
        self._prompts = PromptEncoder(components.tokenizer, components.text_encoder, components.connectors)
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="block-compiler")
        new_runner, forms = engine_for(self._device, components.engine.acceleration, self._compiler)
        self._denoiser = Denoiser(components.transformer, self._placement.walk, new_runner(), forms)
        self._video_decoder = VideoDecoder(components.video_vae, new_runner())
        self._audio_decoder = AudioDecoder(components.audio_vae, components.vocoder, new_runner())

    @property
    def placement(self) -> Placement:
        """Where the model's weights are now."""
        return self._placement

    def close(self) -> None:
        """Give up the model, so that its memory is freed even while a host still holds this object."""
        self._compiler.shutdown(cancel_futures=True)
        self._placement.close()
        del self._components, self._placement, self._prompts, self._denoiser
        del self._video_decoder, self._audio_decoder

    @torch.inference_mode()
    def generate(self, request: ChunkRequest) -> Chunk:
        """Frames and samples of `request`; the same request gives the same bytes on the same device.

        A request that needs more memory than the last ones, or that runs out of it, moves blocks of the model
        off the device first; running out is tried again once, and told in the chunk's notes.

        Raises UnsupportedError for a mode this pipeline does not have, GenerationCancelled when asked to stop,
        BudgetError for a request that the memory budget cannot hold.
        """
        _refuse_unsupported(request.config)
        needed = headroom_nbytes(ChunkGeometry.of(request.config))
        if needed > self._headroom_nbytes:
            self._make_room(needed)
        try:
            return self._generate(request)
        except torch.OutOfMemoryError:
            before = len(self._placement.plan.streamed)
            self._make_room(int(self._headroom_nbytes * OUT_OF_MEMORY_GROWTH))
            note = (
                f"the device ran out of memory: {len(self._placement.plan.streamed) - before} more of the model's "
                "blocks are streamed now, which is slower. Lower the size or the number of frames to avoid it."
            )
            chunk = self._generate(request)
            return replace(chunk, notes=(*chunk.notes, note))

    def _generate(self, request: ChunkRequest) -> Chunk:
        config = request.config
        schedule = resolve_schedule(config)
        geometry = ChunkGeometry.of(config)

        started = self._clock.now()
        context = self.encode(request.prompt)
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
        self._finish_device_work()
        denoised = self._clock.now()
        frames, samples = self.decode(latents, geometry)
        decoded = self._clock.now()

        stats = ChunkStats(
            text_s=encoded - started,
            denoise_s=denoised - encoded,
            decode_s=decoded - denoised,
            steps=len(schedule.sigmas) - 1,
            engine=self._denoiser.engine,
        )
        notes = config.adjustments + ((schedule.note,) if schedule.note else ())
        return Chunk(frames.numpy(), samples.numpy(), SAMPLE_RATE, stats, notes)

    def _make_room(self, headroom: int) -> None:
        """Place the blocks anew with more memory left for activations: a few seconds, read from the files."""
        self._placement.close()
        self._denoiser.use(ResidentWalk([]))
        self._video_decoder.forget()
        self._audio_decoder.forget()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self._placement = self._components.place(headroom)
        self._headroom_nbytes = headroom
        self._denoiser.use(self._placement.walk)

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

    def decode(self, latents: Latents, geometry: ChunkGeometry) -> tuple[Tensor, Tensor]:
        """(F, H, W, 3) uint8 and (2, N) float32, both on the CPU."""
        frames = self._video_decoder.decode(
            latents.video, geometry.latent_frames, geometry.latent_height, geometry.latent_width
        )
        samples = self._audio_decoder.decode(latents.audio, geometry.samples)
        return self._to_host(frames), self._to_host(samples)

    def _to_host(self, media: Tensor) -> Tensor:
        """Into page-locked memory where there is a device: 48 MB of frames take 1 ms, not 40."""
        if self._device.type != "cuda":
            return media
        host = torch.empty(media.shape, dtype=media.dtype, pin_memory=True)
        host.copy_(media, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return host

    def _finish_device_work(self) -> None:
        """Only so that the stages' times are true; once per chunk, outside the loop."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def load_pipeline(model_dir: Path, device: str, engine: EngineOptions = DEFAULT_ENGINE) -> Pipeline:
    """Load the published split files below `model_dir`; `device` is auto, cpu or cuda[:N].

    Raises CheckpointError naming the file and the keys, ValueError for a device that is not there, BudgetError
    for a budget that cannot hold the model's slots, PinningError.
    """
    files = ModelFiles.in_directory(model_dir)
    return Pipeline(load_components(files, resolve_device(device), engine), SystemClock())


def engine_for(
    device: torch.device, acceleration: Acceleration, compiler: Executor
) -> tuple[Callable[[], BlockRunner], BlockForms]:
    """How kernels are run on `device`: runners, one for each part that changes its sizes by itself, and the
    form of the blocks. Raises ValueError for an acceleration that the device does not have."""
    if device.type != "cuda":
        if acceleration not in ("auto", "off"):
            raise ValueError(f"acceleration {acceleration!r} needs a CUDA device, not {device.type}: use 'off'")
        return EagerRunner, PlainForm()
    if acceleration == "off":
        return EagerRunner, PlainForm()
    can_compile = importlib.util.find_spec("triton") is not None
    if acceleration == "compile" and not can_compile:
        raise ValueError("acceleration 'compile' needs the triton package: install it, or use 'graphs'")
    if acceleration == "graphs" or not can_compile:
        return partial(GraphRunner, device), PlainForm()
    forms = CompiledForms(compiler, inductor)
    return partial(GraphRunner, device, lambda: not forms.busy), forms


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


def _refuse_unsupported(config: LTX2Config) -> None:
    if config.i2v_image is not None and config.i2v_strength > 0:
        raise UnsupportedError("i2v_image is not supported by this version: clear it, or set i2v_strength to 0")
    if config.audio_input is not None:
        raise UnsupportedError("audio_input is not supported by this version: clear it")
