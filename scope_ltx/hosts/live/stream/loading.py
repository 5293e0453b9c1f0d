"""Loads the model where it will be used, and tells apart that there is none from a chunk that has failed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from scope_ltx.errors import GenerationCancelled, ScopeLtxError
from scope_ltx.request import Chunk, ChunkRequest, Generator


class ModelLoadError(ScopeLtxError):
    """The model could not be loaded, so there will be no stream."""


class LoadingGenerator:
    """Loads the real generator on its first use, so the thread that will own the device also loads it."""

    def __init__(self, start: Callable[[], Generator]) -> None:
        self._start = start
        self._generator: Generator | None = None

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        """Raises ModelLoadError once for every reason why there is no model, else what the generator raises."""
        if self._generator is None:
            try:
                self._generator = self._start()
            except Exception as error:
                raise ModelLoadError(str(error) or type(error).__name__) from error
            if request.cancel.is_set():
                raise GenerationCancelled("stopped while the model was loading")
        return self._generator.submit(request)

    def close(self) -> None:
        if self._generator is not None:
            self._generator.close()
