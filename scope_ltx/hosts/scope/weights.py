"""One loaded model for all instances that want the same one, for as long as there is such an instance.

The host makes a new instance for every change of a parameter, and drops the old one first. So a model that took
long to load is kept for a moment after its last instance has gone: a new one takes it over, and otherwise, or as
soon as anybody else takes device memory, it goes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait

from scope_ltx.errors import GenerationCancelled
from scope_ltx.request import Chunk, ChunkRequest, Generator
from scope_streaming.clock import Clock

logger = logging.getLogger(__name__)

KEPT_S = 2.0
"""From the old instance's end to the new one's beginning the host collects garbage and empties caches: some tenths
of a second."""
WORTH_S = 3.0
"""What was loaded faster than that goes at once."""
POLL_S = 0.05
OTHERS_NBYTES = 32 * 2**20
"""So much more device memory in use than before means that another pipeline is being loaded."""


class _Loaded:
    """A generator and who holds it. Requests of several holders take turns."""

    def __init__(self, generator: Generator, load_s: float) -> None:
        self.generator: Generator | None = generator
        self.load_s = load_s
        self.holders = 0
        self.wanted = threading.Event()
        self._turn = threading.Lock()
        self._pending: set[Future[Chunk]] = set()

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        with self._turn:
            if request.cancel.is_set() or self.generator is None:
                raise GenerationCancelled("the session ended before its chunk was begun")
            chunk = self.generator.submit(request)
            self._pending.add(chunk)
        chunk.add_done_callback(self._pending.discard)
        return chunk

    def settle(self) -> None:
        """Wait until nothing is being finished any more."""
        wait(tuple(self._pending))

    def close(self) -> None:
        with self._turn:
            self.settle()
            generator, self.generator = self.generator, None
        if generator is not None:
            generator.close()


class Lease:
    """One holder's right to a loaded model; a `Generator` whose `close` gives it back. Thread-safe."""

    def __init__(self, loaded: _Loaded, shared: SharedWeights) -> None:
        self._loaded = loaded
        self._shared = shared
        self._released = threading.Lock()

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        """Waits while another holder's request is served. Raises GenerationCancelled, and as the generator."""
        return self._loaded.submit(request)

    def another(self) -> Lease:
        """A second right to the same model, while this one is held."""
        return self._shared.another(self._loaded)

    def close(self) -> None:
        """Once; the last holder's frees the model's memory."""
        if self._released.acquire(blocking=False):
            self._shared.given_back(self._loaded)


class SharedWeights:
    """Loads a model, or shares one that is loaded. Holds no model that nobody holds, but for a moment."""

    def __init__(
        self,
        clock: Clock,
        in_use: Callable[[], int] = lambda: 0,
        emptied: Callable[[], None] = lambda: None,
        kept_s: float = KEPT_S,
        worth_s: float = WORTH_S,
    ) -> None:
        """`in_use` is the device memory that this process has allocated; `emptied` is called when a model is gone,
        to give cached memory back to the device."""
        self._clock = clock
        self._in_use = in_use
        self._emptied = emptied
        self._kept_s = kept_s
        self._worth_s = worth_s
        self._loading = threading.Lock()
        # Reentrant: an instance may be collected, and so give its lease back, at any allocation.
        self._lock, self._dropping = threading.RLock(), threading.RLock()
        self._all: dict[Hashable, _Loaded] = {}

    def take(self, key: Hashable, load: Callable[[], Generator]) -> Lease:
        """A lease of the model of `key`, which holds all that decides how it is loaded. Raises as `load`."""
        with self._loading:
            loaded = self._find(key)
            if loaded is None:
                self._drop_kept()
                with self._dropping:  # what is on its way out shall be out
                    pass
                started_s = self._clock.now()
                generator = load()
                loaded = _Loaded(generator, self._clock.now() - started_s)
                loaded.holders = 1
                with self._lock:
                    self._all[key] = loaded
            return Lease(loaded, self)

    def another(self, loaded: _Loaded) -> Lease:
        with self._lock:
            loaded.holders += 1
        return Lease(loaded, self)

    def _find(self, key: Hashable) -> _Loaded | None:
        with self._lock:
            loaded = self._all.get(key)
            if loaded is None:
                return None
            loaded.holders += 1
            loaded.wanted.set()
            return loaded if loaded.generator is not None else None

    def given_back(self, loaded: _Loaded) -> None:
        with self._lock:
            loaded.holders -= 1
            if loaded.holders:
                return
            loaded.wanted.clear()
        if self._kept_s > 0 and loaded.load_s >= self._worth_s:
            threading.Thread(target=self._keep, args=(loaded,), name="scope-ltx-kept", daemon=True).start()
        else:
            self._drop(loaded)

    def _keep(self, loaded: _Loaded) -> None:
        """For a moment, unless it is taken over or memory is wanted."""
        until_s, allowed = self._clock.now() + self._kept_s, self._in_use() + OTHERS_NBYTES
        while self._clock.now() < until_s and self._in_use() <= allowed:
            if self._clock.wait(loaded.wanted, POLL_S):
                return
        self._drop(loaded)

    def _drop_kept(self) -> None:
        with self._lock:
            unheld = [loaded for loaded in self._all.values() if not loaded.holders]
        for loaded in unheld:
            loaded.wanted.set()
            self._drop(loaded)

    def _drop(self, loaded: _Loaded) -> None:
        with self._dropping:
            with self._lock:
                if loaded.holders:
                    return
                self._all = {key: one for key, one in self._all.items() if one is not loaded}
            loaded.close()
            self._emptied()
