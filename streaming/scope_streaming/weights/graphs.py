"""Running a block's kernels: one launch at a time, or as one captured CUDA graph.

Launched one by one, the kernels of a block take longer to launch than to run: at 2,040 tokens an H200 idles
two thirds of the time. A graph launches them together. It is bound to addresses, which is why a streamed block
never changes its slot and why its inputs and outputs stay in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Protocol

import torch

from scope_streaming.weights.streams import streams_of

logger = logging.getLogger(__name__)

Launch = Callable[[], None]
"""Queues a block's kernels. Reads and writes only tensors that live longer than the runner, at fixed addresses."""


class BlockRunner(Protocol):
    @property
    def name(self) -> str:
        """For people."""

    def run(self, key: Hashable, launch: Launch, *, warm: bool = False) -> None:
        """Do what `launch` does. The same key means the same kernels on the same addresses; of a tuple, the first
        element is its group.

        `warm`: these kernels have run before, outside this runner.
        """

    def replays(self, key: Hashable) -> bool:
        """`run` of this key only replays: it allocates nothing and captures nothing."""

    def forget(self, group: Hashable = None) -> None:
        """The addresses or the kernels have changed: keep nothing that was captured, of this group or at all."""


class EagerRunner:
    """Launches every time."""

    name = "launched"

    def run(self, key: Hashable, launch: Launch, *, warm: bool = False) -> None:
        launch()

    def replays(self, key: Hashable) -> bool:
        return False

    def forget(self, group: Hashable = None) -> None:
        pass


class GraphRunner:
    """Captures each key once, after one ordinary run of it, and replays it from then on.

    All graphs share one memory pool: they run in turn and leave nothing in it, so it is as large as the
    largest. What cannot be captured, for instance because it makes the host wait, is launched every time; the
    reason is logged once, and `name` tells.
    """

    def __init__(self, device: torch.device, may_capture: Callable[[], bool] = lambda: True) -> None:
        """`may_capture` is False while another thread may free device memory, which would spoil a capture."""
        self._device = device
        self._may_capture = may_capture
        self._streams = streams_of(device)
        self._stream = self._streams.lend(self)
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._warm: set[Hashable] = set()
        self._refused: set[Hashable] = set()
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def name(self) -> str:
        return "launched and graphs" if self._refused else "graphs"

    def run(self, key: Hashable, launch: Launch, *, warm: bool = False) -> None:
        if key not in self._graphs and (warm or key in self._warm) and self._may_capture():
            self._try_capture(key, launch)
        graph = self._graphs.get(key)
        if graph is not None:
            graph.replay()
        else:
            # The first run lets libraries set themselves up, which must not happen inside a capture.
            self._warm.add(key)
            launch()

    def replays(self, key: Hashable) -> bool:
        return key in self._graphs

    def forget(self, group: Hashable = None) -> None:
        if group is None:
            self._graphs.clear()
            self._warm.clear()
            self._refused.clear()
        else:
            self._graphs = {key: graph for key, graph in self._graphs.items() if _group_of(key) != group}
            self._warm = {key for key in self._warm if _group_of(key) != group}
            self._refused = {key for key in self._refused if _group_of(key) != group}
        if not self._graphs:
            self._pool = torch.cuda.graph_pool_handle()

    def _try_capture(self, key: Hashable, launch: Launch) -> None:
        if key in self._refused:
            return
        try:
            self._graphs[key] = self._capture(key, launch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            logger.exception("%s cannot be captured: its kernels are launched one by one", key)
            self._refused.add(key)
            # PyTorch leaves the broken capture's pool open to that stream; another capture there would fail too.
            self._streams.spoil(self._stream)
            self._stream, self._pool = self._streams.lend(self), torch.cuda.graph_pool_handle()

    def _capture(self, key: Hashable, launch: Launch) -> torch.cuda.CUDAGraph:
        if not any(_group_of(other) == _group_of(key) for other in self._graphs):
            # Inside a capture nothing that is cached can be given back: under a tight budget it would run out.
            torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            # Other threads may allocate meanwhile: only this thread's calls are checked.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                launch()
            except BaseException:
                # A capture that is broken off fails to end; what broke it is what counts.
                with suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return graph


def _group_of(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) else key
