"""The pipeline class that the host registers: what it gets and gives, in the host's own types."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.scope.config import build_config_class
from scope_ltx.hosts.scope.host_api import HostApi
from scope_ltx.hosts.scope.options import LoadOptions, load_values
from scope_ltx.hosts.scope.reports import Reports
from scope_ltx.hosts.scope.slices import SLICE_FRAMES
from scope_ltx.hosts.scope.stream import JOIN_S, HandedOut, Status, Stream
from scope_ltx.hosts.scope.weights import SharedWeights
from scope_ltx.hosts.scope.worker import StartWorker
from scope_ltx.request import Generator
from scope_ltx.sampling.geometry import SAMPLE_RATE
from scope_streaming.clock import Clock
from scope_streaming.media.timeline import TICKS_PER_SECOND

logger = logging.getLogger(__name__)

VIDEO_CLOCK = 90_000
"""Of RTP. A frame at 24, 25, 30, 50 or 60 fps is a whole number of its ticks."""

CLOSE_S = 2 * JOIN_S
WAITED_FOR = ("scope-ltx-", "decode", "compiler", "weights-")
"""How the names of threads begin without which a model cannot be closed."""


@dataclass(frozen=True)
class Parts:
    """What a pipeline class works with, for all its instances."""

    clock: Clock
    workers: StartWorker
    weights: SharedWeights
    find: Callable[[str | None, Path], Path]
    identity: Callable[[Path, LoadOptions], Hashable]
    load: Callable[[Path, LoadOptions, LTX2Config], Generator]


def build_pipeline_class(host: HostApi, parts: Parts) -> type[Any]:
    """A subclass of the host's Pipeline. Nothing but the host holds its instances."""
    config_class = build_config_class(host)

    class LTX2Pipeline(host.pipeline):  # type: ignore[misc, name-defined]
        """LTX-2.3 in Scope. `status` tells how generation is going; the host itself does not show it."""

        @classmethod
        def get_config_class(cls) -> type[Any]:
            return config_class

        def __init__(self, /, **kwargs: Any) -> None:
            """Loads the model, or takes over one that is loaded. Raises CheckpointError that names the missing
            files and the command that downloads them, and what loading raises."""
            super().__init__()
            reports = Reports(logger)
            config, options = load_values(kwargs, reports.once)
            directory = parts.find(options.model, host.models_dir())
            lease = parts.weights.take(
                parts.identity(directory, options), lambda: parts.load(directory, options, config)
            )
            self.config = config
            self._stream = Stream(lease, config, parts.clock, parts.workers, reports)
            weakref.finalize(self, _close, self._stream)

        def prepare(self, /, **kwargs: Any) -> Any:
            """In video mode small batches: the host waits for them, and picks them evenly from what has come.
            Never raises."""
            try:
                wanted = bool(kwargs.get("video")) and self._stream.wants_input(kwargs)
            except Exception as error:
                self._stream.failed("input could not be passed on", error)
                wanted = False
            return host.requirements(input_size=SLICE_FRAMES) if wanted else None

        def __call__(self, /, **kwargs: Any) -> dict[str, Any]:
            """A slice when it is due, else nothing: the host then calls again in 10 ms. Never raises."""
            try:
                handed_out = self._stream.call(kwargs)
                return {} if handed_out is None else _output(handed_out, host)
            except Exception as error:
                self._stream.failed("a slice could not be handed out", error)
                return {}

        @property
        def status(self) -> Status:
            """How generation is going, with the error that it last met."""
            return self._stream.status

        @property
        def loaded_lora_adapters(self) -> list[dict[str, Any]]:
            """The LoRAs of the next chunk, in the host's form."""
            choices = self._stream.config.loras
            return [
                {"path": lora.path, "scale": 1.0 if lora.strength is None else lora.strength} for lora in choices
            ]

    return LTX2Pipeline


def _output(handed_out: HandedOut, host: HostApi) -> dict[str, Any]:
    piece, placed = handed_out.piece, handed_out.placed
    base = Fraction(1, VIDEO_CLOCK)
    per_tick = TICKS_PER_SECOND // VIDEO_CLOCK
    output = {
        "video": torch.from_numpy(piece.frames),
        "video_timestamps": [host.timestamp(pts=tick // per_tick, time_base=base) for tick in placed.frame_ticks],
        "frame_rate": round(TICKS_PER_SECOND * len(piece.offsets) / piece.ticks, 3),
    }
    samples = piece.samples[:, placed.skipped_samples :]
    if samples.shape[1]:
        # Without timestamps: with them, the host's sound would jump back after every stall.
        output["audio"] = torch.from_numpy(np.ascontiguousarray(samples))
        output["audio_sample_rate"] = SAMPLE_RATE
    return output


def _close(stream: Stream) -> None:
    """When an instance has gone. The last reference may go on any thread, also on one that closing waits for: the
    collector runs wherever an object is made."""
    closing = threading.Thread(target=stream.close, name="scope-ltx-close", daemon=True)
    try:
        closing.start()
    except RuntimeError:  # at the end of the process, when no thread can be started any more
        stream.close()
        return
    if not threading.current_thread().name.startswith(WAITED_FOR):
        # The host builds the next instance right away: the memory shall be free by then.
        closing.join(CLOSE_S)
