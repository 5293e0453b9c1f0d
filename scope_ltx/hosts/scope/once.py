"""Pictures for one chunk alone: the host's first_frame_image and last_frame_image, which come once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace

from scope_ltx.inputs import PinnedImage
from scope_ltx.media_in.recompress import PIN_CRF, prepare_pin
from scope_ltx.request import Chunk, ChunkRequest, Generator


class OncePinned:
    """A generator whose next chunk also shows the latched pictures, in place of others on the same frames.

    A picture is used up by the chunk that is made with it, also when it cannot be read: that is reported, and the
    chunk made without it.
    """

    def __init__(self, generator: Generator, report: Callable[[str], None]) -> None:
        self._generator = generator
        self._report = report
        self._lock = threading.Lock()
        self._latched: dict[str, str] = {}
        self._changes: Counter[str] = Counter()

    def latch(self, pictures: Mapping[str, str | None]) -> None:
        """{"first_frame_image" or "last_frame_image": path, or None to take it back}."""
        with self._lock:
            for name, path in pictures.items():
                self._changes[name] += 1
                self._latched.pop(name, None)
                if path is not None:
                    self._latched[name] = path

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        with self._lock:
            taken, self._latched = self._latched, {}
            changes = self._changes.copy()
        if not taken:
            return self._generator.submit(request)
        request = self._with(request, taken)
        try:
            chunk = self._generator.submit(request)
        except BaseException:
            self._put_back(taken, changes)
            raise

        def finished(made: Future[Chunk]) -> None:
            if made.exception() is not None:
                self._put_back(taken, changes)

        chunk.add_done_callback(finished)
        return chunk

    def _put_back(self, taken: Mapping[str, str], changes: Counter[str]) -> None:
        """For the next try, where no other has come since, and it was not taken back."""
        with self._lock:
            for name, path in taken.items():
                if self._changes[name] == changes[name]:
                    self._latched[name] = path

    def close(self) -> None:
        self._generator.close()

    def _with(self, request: ChunkRequest, pictures: Mapping[str, str]) -> ChunkRequest:
        config, inputs = request.config, request.inputs
        pins = {pin.frame_idx: pin for pin in inputs.pins}
        for name, path in pictures.items():
            place = 0 if name == "first_frame_image" else config.num_frames - 1
            if place == 0 and inputs.tail is not None:
                self._report(f"{name}: the chunk goes on from the one before (continuity extend), it is left out")
                continue
            try:
                pixels = prepare_pin(path, config.height, config.width, config.image_fit, PIN_CRF)
            except (OSError, ValueError) as error:
                self._report(f"{name}: {error}")
                continue
            pins[place] = PinnedImage(pixels, place, config.i2v_strength)
        return replace(request, inputs=replace(inputs, pins=tuple(pins[place] for place in sorted(pins))))
