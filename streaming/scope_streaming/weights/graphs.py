"""Running a block's kernels: one launch at a time, or as one captured CUDA graph.

Launched one by one, the kernels of a block take longer to launch than to run: at 2,040 tokens an H200 idles
two thirds of the time. A graph launches them together. It is bound to addresses, which is why a streamed block
never changes its slot and why its inputs and outputs stay in place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

import torch

Launch = Callable[[], None]
"""Queues a block's kernels. Reads and writes only tensors that live longer than the runner, at fixed addresses."""


class BlockRunner(Protocol):
    def run(self, key: Hashable, launch: Launch) -> None:
        """Do what `launch` does. The same key means the same kernels on the same addresses."""

    def forget(self) -> None:
        """The addresses have changed: keep nothing that was captured."""


class EagerRunner:
    """Launches every time."""

    def run(self, key: Hashable, launch: Launch) -> None:
        launch()

    def forget(self) -> None:
        pass


class GraphRunner:
    """Captures each key once, after one ordinary run of it, and replays it from then on.

    All graphs share one memory pool: they run in turn and leave nothing in it, so it is as large as the
    largest. Raises what capturing raises, for instance when `launch` makes the host wait.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, key: Hashable, launch: Launch) -> None:
        if key not in self._graphs:
            # The first run lets libraries set themselves up, which must not happen inside a capture.
            self._graphs[key] = None
            launch()
            return
        graph = self._graphs[key]
        if graph is None:
            graph = self._graphs[key] = self._capture(launch)
        graph.replay()

    def forget(self) -> None:
        self._graphs.clear()
        self._pool = torch.cuda.graph_pool_handle()

    def _capture(self, launch: Launch) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            # Other threads may allocate meanwhile: only this thread's calls are checked.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                launch()
            finally:
                graph.capture_end()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return graph
