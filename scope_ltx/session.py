"""One live stream: which parameters and prompt govern the next chunk, and where that chunk lies in time."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from scope_ltx.config import LTX2Config
from scope_ltx.errors import GenerationCancelled
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats, Generator
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import Timeline, exact_frame_rate

Made = TypeVar("Made")
Placed = TypeVar("Placed")

MAX_PROMPT_CHARACTERS = 10_000
REMEMBERED_PROMPTS = 8
"""Prompts kept by segment index. Between generation and the screen lie at most three segments."""


def chunk_seed(base_seed: int, index: int, randomize: bool, nonce: str) -> int:
    """Seed of chunk `index`: `base_seed` itself, or 63 bits of SHA-256 over base seed, index and nonce.

    The same arguments give the same seed on every machine, so a stream can be made again from its nonce.
    """
    if not randomize:
        return base_seed
    digest = hashlib.sha256(f"{base_seed}:{index}:{nonce}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def checked_prompt(prompt: str) -> str:
    """`prompt` stripped. Raises ValueError when it is empty, too long or no valid text."""
    text = prompt.strip()
    if not text:
        raise ValueError("the prompt is empty: describe what the stream should show and sound like")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"the prompt has {len(text)} characters, at most {MAX_PROMPT_CHARACTERS} are taken")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the prompt is no valid text at character {error.start}: a lone surrogate") from error
    return text


class Session:
    """Thread-safe. Any thread changes parameters; one thread, the generation thread, makes segments.

    A change applies to the next chunk that starts. `nonce` sets one run's random seeds apart from another's.
    """

    def __init__(self, generator: Generator, config: LTX2Config, prompt: str, nonce: str = "") -> None:
        self._generator = generator
        self._config = config
        self._prompt = checked_prompt(prompt)
        self._nonce = nonce
        self._lock = threading.Lock()
        self._index = 0
        self._begun = 0
        self._timeline: Timeline | None = None
        self._cancel: threading.Event | None = None
        self._closed = False
        self._notes: tuple[str, ...] = ()
        self._stats: ChunkStats | None = None
        self._prompts: deque[tuple[int, str]] = deque(maxlen=REMEMBERED_PROMPTS)

    @property
    def config(self) -> LTX2Config:
        with self._lock:
            return self._config

    @property
    def prompt(self) -> str:
        """Of the next chunk that starts."""
        with self._lock:
            return self._prompt

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
        prompt = checked_prompt(text)
        with self._lock:
            self._prompt = prompt
        return prompt

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

        Raises GenerationCancelled after `cancel` or `close`, and whatever the generator raises, here or in the
        future; there also ValueError when the generator's sound is not as long as its picture. A chunk that
        failed leaves no gap.
        """
        request = self._request()
        try:
            chunk = self._generator.submit(request)
        except BaseException:
            with self._lock:
                self._begun -= 1
            raise
        return _then(chunk, lambda made: self._placed(made, request))

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

    def _request(self) -> ChunkRequest:
        with self._lock:
            if self._closed:
                raise GenerationCancelled("the session is closed")
            config = self._config
            seed = chunk_seed(config.base_seed, self._begun, config.randomize_seed, self._nonce)
            request = ChunkRequest(config, self._prompt, seed)
            self._cancel = request.cancel
            self._begun += 1
            return request

    def _placed(self, made: Future[Chunk], request: ChunkRequest) -> Segment:
        """Raises what making the chunk has raised."""
        with self._lock:
            chunk = made.result()
            if self._timeline is None:
                self._timeline = Timeline(chunk.sample_rate)
            times = self._timeline.peek(len(chunk.frames), exact_frame_rate(request.config.frame_rate))
            if chunk.sample_rate != times.sample_rate or chunk.samples.shape[-1] != times.samples:
                raise ValueError(
                    f"the generator made {chunk.samples.shape[-1]} samples at {chunk.sample_rate} Hz; "
                    f"{len(chunk.frames)} frames at {request.config.frame_rate:g} fps need {times.samples} "
                    f"at {times.sample_rate} Hz"
                )
            segment = Segment(self._index, chunk.frames, chunk.samples, times)
            self._timeline.commit(times)
            self._prompts.append((self._index, request.prompt))
            self._index += 1
            self._notes = tuple(dict.fromkeys((*request.config.adjustments, *chunk.notes)))
            self._stats = chunk.stats
            return segment


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
