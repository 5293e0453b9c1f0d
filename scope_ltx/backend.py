"""What the commands need from the rest of the product: one seam, so that they can be tested with fakes.

The real one imports its parts when they are used: `scope-ltx --help` must not wait for torch.
"""

# ruff: noqa: PLC0415 - imports wait until a command needs them
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scope_ltx.config import LTX2Config
    from scope_ltx.doctor import DeviceReport
    from scope_ltx.engine import EngineOptions
    from scope_ltx.hosts.live.operations.logs import LogForm
    from scope_ltx.hosts.live.options import HostOptions
    from scope_ltx.request import ChunkStats, Generator
    from scope_streaming.media.segment import Segment

SMALL = "small"
"""The name of the model that is built on first use instead of downloaded."""


class SegmentSource(Protocol):
    """A stream: `scope_ltx.session.Session`, or a fake."""

    def next_segment(self) -> Segment:
        """Generate the next segment; blocks for the whole chunk."""

    @property
    def last_notes(self) -> tuple[str, ...]:
        """Sentences for the user about the last segment."""

    @property
    def last_stats(self) -> ChunkStats | None:
        """How long the last segment took."""

    def close_sources(self) -> None:
        """Close the files that it reads from. Nothing is generated any more."""


class Backend(Protocol):
    """All but `probe` raise: ScopeLtxError for a model that cannot be used, ValueError for a bad device."""

    def probe(self, device: str) -> DeviceReport | str: ...

    def check_device(self, device: str) -> None: ...

    def start_logging(self, form: LogForm, level: str) -> None:
        """Log from `level` on to standard error."""

    def model_directory(self, model: str) -> Path: ...

    def memory_errors(self) -> tuple[type[Exception], ...]:
        """What a model that does not fit raises; the text is fit for a user."""

    def load_pipeline(self, directory: Path, device: str, engine: EngineOptions, first: LTX2Config) -> Generator:
        """`first` is what will be asked of it first."""

    def open_session(self, generator: Generator, config: LTX2Config, prompt: str) -> SegmentSource: ...

    def serve(
        self,
        directory: Path,
        config: LTX2Config,
        prompt: str,
        *,
        host: str,
        port: int,
        device: str,
        engine: EngineOptions,
        options: HostOptions,
    ) -> None: ...


class LibraryBackend:
    """The product's own parts."""

    def probe(self, device: str) -> DeviceReport | str:
        from scope_ltx.doctor import probe_device

        return probe_device(device)

    def start_logging(self, form: LogForm, level: str) -> None:
        from scope_ltx.hosts.live.operations.logs import configure_logging

        configure_logging(form, level)

    def check_device(self, device: str) -> None:
        """Only a device that may be absent is worth the seconds that importing torch takes."""
        if device not in ("auto", "cpu"):
            from scope_ltx.pipeline import resolve_device

            resolve_device(device)

    def model_directory(self, model: str) -> Path:
        """The directory of a complete model; the small one is written first if it is not there yet."""
        if model == SMALL:
            import platformdirs

            from scope_ltx.models.small import ensure_small_model

            return ensure_small_model(Path(platformdirs.user_cache_dir("scope-ltx")))
        from scope_ltx.manifest import ModelFiles
        from scope_ltx.model_directory import model_directory

        directory = model_directory(Path(model))
        ModelFiles.in_directory(directory)
        return directory

    def memory_errors(self) -> tuple[type[Exception], ...]:
        from scope_streaming.weights.host import PinningError
        from scope_streaming.weights.plan import BudgetError

        return BudgetError, PinningError

    def load_pipeline(self, directory: Path, device: str, engine: EngineOptions, first: LTX2Config) -> Generator:
        from scope_ltx.freed_memory import own_memory
        from scope_ltx.pipeline import load_pipeline, resolve_device

        own_memory(resolve_device(device).type)
        return load_pipeline(directory, device, engine, first)

    def open_session(self, generator: Generator, config: LTX2Config, prompt: str) -> SegmentSource:
        """A stream that depends on its arguments only: the same ones give the same segments."""
        from scope_ltx.session import Session

        return Session(generator, config, prompt, nonce="")

    def serve(
        self,
        directory: Path,
        config: LTX2Config,
        prompt: str,
        *,
        host: str,
        port: int,
        device: str,
        engine: EngineOptions,
        options: HostOptions,
    ) -> None:
        from scope_ltx.freed_memory import own_memory
        from scope_ltx.hosts.live.serve import run_server
        from scope_ltx.pipeline import resolve_device

        own_memory(resolve_device(device).type)
        run_server(directory, config, prompt, host, port, device, engine, options)
