"""Which model an instance runs, and how it is loaded: on a stream of its own, so that the host's is never busy.

The model's libraries are imported when one is loaded: the host registers every plugin at every start, and a
library that cannot be imported shall not take the pipeline off its list.
"""

# ruff: noqa: PLC0415 - imports wait until a model is loaded
from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import platformdirs
import torch

from scope_ltx.config import LTX2Config
from scope_ltx.engine import DEFAULT_ENGINE
from scope_ltx.hosts.scope.options import LoadOptions
from scope_ltx.manifest import ModelFiles, load_manifest, survey
from scope_ltx.model_directory import model_directory
from scope_ltx.models.small import ensure_small_model
from scope_ltx.request import Chunk, ChunkRequest, Generator
from scope_streaming.weights.background import BackgroundThread
from scope_streaming.weights.streams import own_stream

SMALL = "small"


def find_model(model: str | None, models_dir: Path) -> Path:
    """The directory of a complete model. Raises CheckpointError that lists what is missing, with the command that
    downloads it."""
    if model == SMALL:
        return ensure_small_model(Path(platformdirs.user_cache_dir("scope-ltx")))
    hosts = models_dir / load_manifest().plugin.scope.models_directory
    directory = hosts if model is None else model_directory(Path(model).expanduser())
    ModelFiles.in_directory(directory)
    return directory


def identity_of(directory: Path, options: LoadOptions) -> Hashable:
    """What decides the loaded model: files by path, size and time, the device, and how it is run."""
    files = tuple((file.path, file.nbytes, file.path.stat().st_mtime_ns) for file in survey(directory))
    upsampler = directory / load_manifest().upsampler.path
    return (files, upsampler.is_file(), options.device, options.engine)


def model_loader() -> Callable[[Path, LoadOptions, LTX2Config], Generator]:
    """How a process loads its models: a function of the directory, the options and what is asked first, which
    raises as `load_pipeline`. The models take turns at compiling, also when one has gone while it was compiled."""
    return partial(_load, BackgroundThread())


def _load(background: BackgroundThread, directory: Path, options: LoadOptions, first: LTX2Config) -> Generator:
    from scope_ltx.pipeline import hold_to_budget, load_pipeline, resolve_device

    device = resolve_device(options.device)
    lane = _Lane(device)

    def closed() -> None:
        # The host's next pipeline runs in this process, too, and shall have the whole device.
        hold_to_budget(device, DEFAULT_ENGINE)

    try:
        with lane.entered():
            pipeline = load_pipeline(directory, options.device, options.engine, first, background)
    except BaseException:
        closed()
        raise
    return _OnLane(pipeline, lane, closed)


def device_nbytes() -> int:
    """Device memory that this process's tensors take."""
    return torch.cuda.memory_allocated() if _uses_cuda() else 0


def empty_caches() -> None:
    """Give memory that nobody uses back to the device."""
    if _uses_cuda():
        torch.cuda.empty_cache()


class _Lane:
    """A CUDA stream for everything that a generator does; nothing on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._stream = own_stream(device, self)

    def entered(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)


class _OnLane:
    """A generator on a stream of its own.

    The host's threads use the device's default stream: to bring an input frame to the CPU there would wait for
    every kernel of the chunk that is being made.
    """

    def __init__(self, generator: Generator, lane: _Lane, closed: Callable[[], None]) -> None:
        self._generator = generator
        self._lane = lane
        self._closed = closed

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        with self._lane.entered():
            return self._generator.submit(request)

    def close(self) -> None:
        try:
            with self._lane.entered():
                self._generator.close()
        finally:
            self._closed()


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
