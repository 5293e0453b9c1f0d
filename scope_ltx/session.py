"""One live stream: which parameters and prompt govern the next chunk, and where that chunk lies in time."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from scope_ltx.config import LTX2Config
from scope_ltx.errors import GenerationCancelled, NotFiniteError
from scope_ltx.inputs import Pixels, Samples
from scope_ltx.prompt_mix import Transition, checked_mix, described
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats, Generator, WeightedPrompt
from scope_ltx.sampling.geometry import SAMPLE_RATE
from scope_ltx.sources import ChunkSources, Taken
from scope_ltx.splice import Cut, Kept
from scope_streaming.clock import Clock, SystemClock
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import Timeline, segment_samples

Made = TypeVar("Made")
Placed = TypeVar("Placed")

REMEMBERED_PROMPTS = 256
"""Prompts kept by segment index: more than there can be between generation and the screen. A segment may be one
frame at 120 fps. Of those the broadcast takes 1 s ahead, encodes another 0.2 s, and may be 0.25 s late: 174. One
more is on air, one was taken when the second was nearly full, and the hand-off holds two."""


def chunk_seed(base_seed: int, index: int, randomize: bool, nonce: str) -> int:
    """Seed of chunk `index`: `base_seed` itself, or 63 bits of SHA-256 over base seed, index and nonce.

    The same arguments give the same seed on every machine, so a stream can be made again from its nonce.
    """
    if not randomize:
        return base_seed
    digest = hashlib.sha256(f"{base_seed}:{index}:{nonce}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class _Begun:
    """A chunk that is being made."""

    request: ChunkRequest
    cut: Cut
    kept: Kept | None
    taken: Taken


class Session:
    """Thread-safe. Any thread changes parameters and pushes live input; one thread, the generation thread, makes
    segments.

    A change applies to the next chunk that starts. `nonce` sets one run's random seeds apart from another's.
    """

    def __init__(
        self,
        generator: Generator,
        config: LTX2Config,
        prompt: str,
        nonce: str = "",
        clock: Clock | None = None,
        *,
        live_input: bool = False,
    ) -> None:
        """`clock` times live input; None: the system's. `live_input`: pictures may be pushed at any time, so that
        a LoRA that looks at them is no error while there are none (`ChunkInputs`)."""
        self._generator = generator
        self._config = config
        self._prompts_ahead = Transition(checked_mix([WeightedPrompt(prompt)]))
        self._nonce = nonce
        self._sources = ChunkSources(clock or SystemClock(), live_input=live_input)
        self._lock = threading.Lock()
        self._index = 0
        self._begun = 0
        self._timeline: Timeline | None = None
        self._cancel: threading.Event | None = None
        self._closed = False
        self._finishing: Future[Segment] | None = None
        self._newest: _Begun | None = None
        self._lost: _Begun | None = None
        self._kept: Kept | None = None
        self._notes: tuple[str, ...] = ()
        self._stats: ChunkStats | None = None
        self._prompts: deque[tuple[int, str]] = deque(maxlen=REMEMBERED_PROMPTS)

    @property
    def config(self) -> LTX2Config:
        with self._lock:
            return self._config

    @property
    def prompt(self) -> str:
        """What the chunks to come head for: the prompt, or several with their shares."""
        with self._lock:
            return described(self._prompts_ahead.end)

    @property
    def last_notes(self) -> tuple[str, ...]:
        """What was decided for the user about the newest chunk: snapped sizes, a schedule fallback."""
        with self._lock:
            return self._notes

    @property
    def last_stats(self) -> ChunkStats | None:
        with self._lock:
            return self._stats

    def update(self, /, **changes: object) -> LTX2Config:
        """Change parameters, all or none. Raises pydantic's ValidationError naming the field."""
        with self._lock:
            self._config = self._config.updated(**changes)
            return self._config

    def set_prompt(self, text: str) -> str:
        """Returns the prompt as it will be used. Raises ValueError as `checked_prompt`."""
        return self.set_prompts([WeightedPrompt(text)])

    def set_prompts(self, prompts: Sequence[WeightedPrompt], transition_chunks: int = 0) -> str:
        """Blend several prompts by weight, on any scale; get there over so many chunks, the last of which is all
        theirs (0: the next chunk). Returns them as they will be used. Raises ValueError as `checked_mix`."""
        mix = checked_mix(prompts)
        with self._lock:
            self._prompts_ahead.turn(mix, transition_chunks)
        return described(mix)

    def push_frame(self, frame: Pixels, at_s: float | None = None) -> None:
        """A live reference frame: see `ChunkSources.push_frame`."""
        self._sources.push_frame(frame, at_s)

    @property
    def live(self) -> bool:
        """Pushed frames are the reference of the next chunk."""
        return self._sources.live

    def push_audio(self, samples: Samples, timestamp: int | None = None) -> None:
        """Live driving sound: see `ChunkSources.push_audio`."""
        self._sources.push_audio(samples, timestamp)

    def prompt_of(self, index: int) -> str | None:
        """The prompt that segment `index` was made from; None when that is long ago or still to come."""
        with self._lock:
            return next((prompt for made, prompt in self._prompts if made == index), None)

    def next_segment(self) -> Segment:
        """`begin_segment`, and wait for it."""
        return self.begin_segment().result()

    def begin_segment(self) -> Future[Segment]:
        """Make the next chunk and place it on the timeline. Generation thread only; blocks until the next one
        may be begun.

        Raises GenerationCancelled after `cancel` or `close`, TrackEnded when a driving track that is to stop has
        ended, what the sources and the generator raise, here or in the
        future; there also ValueError when the generator's sound is not as long as its picture. A chunk that
        failed leaves no gap.
        """
        self._take_back_lost()
        begun = self._begin()
        try:
            chunk = self._generator.submit(begun.request)
        except BaseException:
            with self._lock:
                self._begun -= 1
                self._prompts_ahead.back()
            raise
        begun.taken.commit()
        self._newest = begun
        self._finishing = _then(chunk, lambda made: self._placed(made, begun))
        return self._finishing

    def cancel(self) -> None:
        """Give up the chunk that is being made, if any; the next one starts as usual."""
        with self._lock:
            if self._cancel is not None:
                self._cancel.set()

    def close(self) -> None:
        """Give up the chunk that is being made and refuse every further one."""
        with self._lock:
            self._closed = True
        self.cancel()

    def close_sources(self) -> None:
        """Close files and live inputs: when the generation thread has ended."""
        self._sources.close()

    def _begin(self) -> _Begun:
        """Decide the next chunk and prepare its inputs."""
        with self._lock:
            if self._closed:
                raise GenerationCancelled("the session is closed")
            config = self._config
        kept = self._to_go_on_from(config)
        cut = Cut.of(config, continues=kept is not None, driven=self._sources.drives(config))
        taken = self._sources.take(config, cut, kept)
        with self._lock:
            seed = chunk_seed(config.base_seed, self._begun, config.randomize_seed, self._nonce)
            mix = self._prompts_ahead.next()
            request = ChunkRequest(config, described(mix), seed, taken.inputs, mix if len(mix) > 1 else ())
            self._cancel = request.cancel
            if self._closed:
                request.cancel.set()
            self._begun += 1
        return _Begun(request, cut, kept, taken)

    def _to_go_on_from(self, config: LTX2Config) -> Kept | None:
        """What the chunk before has left, where the next one shall go on from it and can. Waits for that chunk."""
        if config.continuity == "cut":
            return None
        if self._finishing is not None:
            wait([self._finishing])
        with self._lock:
            return self._kept if self._kept is not None and self._kept.fits(config) else None

    def _placed(self, made: Future[Chunk], begun: _Begun) -> Segment:
        """Raises what making the chunk has raised."""
        try:
            return self._place(made.result(), begun)
        except BaseException:
            with self._lock:
                self._prompts_ahead.back()
                self._lost = begun
            raise

    def _take_back_lost(self) -> None:
        """What a chunk that failed late had taken of song and reference, if no other was begun meanwhile."""
        with self._lock:
            lost, self._lost = self._lost, None
        if lost is not None and lost is self._newest:
            lost.taken.take_back()

    def _place(self, chunk: Chunk, begun: _Begun) -> Segment:
        request, cut = begun.request, begun.cut
        with self._lock:
            self._require_whole(chunk, cut)
            if self._timeline is None:
                self._timeline = Timeline(chunk.sample_rate)
            frames, samples = cut.shown(chunk.frames, chunk.samples, begun.kept)
            times = self._timeline.peek(len(frames), cut.rate)
            segment = Segment(self._index, frames, samples, times)
            self._timeline.commit(times)
            self._kept = cut.kept(chunk.frames, chunk.samples, chunk.surplus)
            self._prompts.append((self._index, request.prompt))
            self._index += 1
            self._notes = tuple(dict.fromkeys((*request.config.adjustments, *begun.taken.notes, *chunk.notes)))
            self._stats = chunk.stats
            return segment

    def _require_whole(self, chunk: Chunk, cut: Cut) -> None:
        """Raises ValueError for a chunk whose sound is not as long as its picture, NotFiniteError for one
        that is no sound."""
        needed = cut.samples if cut.driven else segment_samples(len(chunk.frames), cut.rate, SAMPLE_RATE)
        found = chunk.samples.shape[-1]
        if chunk.sample_rate != SAMPLE_RATE or found != needed:
            raise ValueError(
                f"the generator made {found} samples at {chunk.sample_rate} Hz; {len(chunk.frames)} frames at "
                f"{float(cut.rate):g} fps need {needed} at {SAMPLE_RATE} Hz"
            )
        if not np.isfinite(chunk.samples).all():
            raise NotFiniteError("sound")


def _then(source: Future[Made], step: Callable[[Future[Made]], Placed]) -> Future[Placed]:
    """The future of `step(source)`, taken once `source` is done by the thread that finishes it."""
    outcome: Future[Placed] = Future()

    def finish(done: Future[Made]) -> None:
        try:
            outcome.set_result(step(done))
        except BaseException as error:
            outcome.set_exception(error)

    source.add_done_callback(finish)
    return outcome
