"""The last stage of a chunk: latents -> frames and samples on the host, beside the next chunk's denoising.

Denoising leaves a device many small gaps (its 7,000 kernels a step include the sound's, which are tiny), and a
decode on a stream of its own fills them. That needs a decode which only replays captured kernels: it allocates
nothing, so it cannot run out of memory, and nothing is captured beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from scope_ltx.models.decode import AudioDecoder, Grid, Latents, VideoDecoder
from scope_streaming.weights.streams import own_stream

T = TypeVar("T")


class DecodeStage:
    """One decode at a time, on the caller's thread or on its own. All but `decode` belongs to
    the thread that owns the device."""

    def __init__(
        self, video: VideoDecoder, audio: AudioDecoder, device: torch.device, *, pinned: bool = True
    ) -> None:
        """`pinned`: frames and samples reach the host through page-locked memory, on a CUDA device."""
        self._video = video
        self._audio = audio
        self._device = device
        self._stream = own_stream(device, self)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._pinned = pinned and self._stream is not None
        self._idle = threading.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """A decode is under way beside the caller's work."""
        return not self._idle.is_set()

    def start(
        self, work: Callable[[bool], T], grid: Grid, audio_tokens: int | None, *, may_overlap: bool = True
    ) -> Future[T]:
        """Run `work`, which decodes latents of these sizes (None: no sound): on this stage's thread where that
        captures and allocates nothing, and may be; else at once, and then raise what it raises. `work` is told
        whether it runs beside the caller."""
        self.wait()
        self._audio.settle()
        if self._stream is not None:
            # What was made for the decoders on the caller's stream.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        captured = self._video.replays(grid) and (audio_tokens is None or self._audio.replays(audio_tokens))
        if may_overlap and captured:
            return self._beside(work)
        finished: Future[T] = Future()
        finished.set_result(work(False))
        return finished

    def _beside(self, work: Callable[[bool], T]) -> Future[T]:
        self._idle.clear()
        try:
            future = self._worker.submit(work, True)
        except RuntimeError:  # no thread can be started
            self._idle.set()
            raise
        # Behind the work and whatever waits for its end, so that chunks are placed in their order.
        self._worker.submit(self._idle.set)
        return future

    @torch.inference_mode()
    def decode(self, latents: Latents, grid: Grid, samples: int | None) -> tuple[Tensor, Tensor | None]:
        """(F, H, W, 3) uint8 and (2, N) float32, both on the CPU and the caller's own; no sound where none is
        asked for. N is at least `samples`: whole latents sound up to 40 ms longer. Waits for them; the latents
        must be finished.

        Raises ValueError when the audio latents are too few for `samples`.
        """
        with torch.cuda.stream(self._stream):
            frames = self._to_host(self._video.decode(latents.video, grid))
            waveform = None if samples is None else self._to_host(self._audio.decode(latents.audio))
            if self._stream is not None:
                self._stream.synchronize()
        if waveform is None or samples is None:
            return frames, None
        if waveform.shape[1] < samples:
            tokens = latents.audio.shape[1]
            raise ValueError(f"{tokens} audio latents give {waveform.shape[1]} samples, {samples} needed")
        return frames, waveform

    def wait(self) -> None:
        """Until nothing is being decoded."""
        self._idle.wait()

    def forget(self) -> None:
        """Give up places and captured kernels."""
        self.wait()
        self._video.forget()
        self._audio.forget()

    def close(self) -> None:
        self.forget()
        self._worker.shutdown()

    def _to_host(self, media: Tensor) -> Tensor:
        """Into page-locked memory where it may: 48 MB of frames take 1 ms, not 40."""
        host = torch.empty(media.shape, dtype=media.dtype, pin_memory=self._pinned)
        return host.copy_(media, non_blocking=True)
