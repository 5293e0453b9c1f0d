"""The live host as an ASGI application: its parts, and how they are wired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from scope_ltx import __version__
from scope_ltx.catalog import load_catalog
from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.control.allowed_paths import AllowedPaths, named_paths
from scope_ltx.hosts.live.control.loras_api import loras_router
from scope_ltx.hosts.live.control.parameters_api import parameters_router
from scope_ltx.hosts.live.control.prompt_api import prompt_router
from scope_ltx.hosts.live.http.access import AccessGuard, AccessPolicy
from scope_ltx.hosts.live.http.front_door import BasePath, FrontDoor, HasPlace
from scope_ltx.hosts.live.http.problems import BadFieldsError, ProblemError, answer_bad_fields, answer_problem
from scope_ltx.hosts.live.operations.chunk_log import ChunkLog
from scope_ltx.hosts.live.operations.metrics import ChunkMetrics, metrics_router
from scope_ltx.hosts.live.operations.status_api import status_router
from scope_ltx.hosts.live.options import MAX_VIEWERS
from scope_ltx.hosts.live.page_files import PAGE, PageFiles, page_paths
from scope_ltx.hosts.live.recording.api import recording_router
from scope_ltx.hosts.live.recording.recorder import Recorder
from scope_ltx.hosts.live.stream.live_stream import LiveStream
from scope_ltx.hosts.live.uploads.api import uploads_router
from scope_ltx.hosts.live.uploads.store import UploadStore
from scope_ltx.hosts.live.webrtc.ingest import Ingest
from scope_ltx.hosts.live.webrtc.viewers import Viewers
from scope_ltx.hosts.live.webrtc.whep import whep_router
from scope_ltx.hosts.live.webrtc.whip import whip_router
from scope_ltx.request import Generator
from scope_streaming.clock import Clock

ANYBODY = AccessPolicy()


def create_app(
    start: Callable[[], Generator],
    config: LTX2Config,
    prompt: str,
    *,
    clock: Clock,
    nonce: str,
    model: str,
    models: Path | None = None,
    max_viewers: int = MAX_VIEWERS,
    uploads: Path | None = None,
    recordings: Path | None = None,
    media: Sequence[Path] = (),
    access: AccessPolicy = ANYBODY,
    base_path: str = "",
) -> FastAPI:
    """The application. It answers at once; `start` loads the model on the generation thread meanwhile.

    `nonce` makes this run's random seeds its own, `model` is the name that the page shows, `models` the directory
    in which LoRAs are looked for. `uploads` and `recordings` are directories of its own (None: it takes none);
    requests may name files there, below `media` and among the LoRAs. `base_path`: see `front_door`. Raises
    ValueError for an empty prompt.
    """
    # What a list tells may be sent back from anywhere: no path in it depends on where the server was started.
    models = models.resolve() if models else None
    metrics = ChunkMetrics()
    stream = LiveStream(start, config, prompt, clock, nonce, (metrics, ChunkLog()))
    viewers = Viewers(stream.broadcaster, max_viewers=max_viewers)
    ingest = Ingest(stream.session, lambda: (stream.session.config.height, stream.session.config.width))
    store = UploadStore(uploads, lambda: named_paths(stream.session.config)) if uploads else None
    recorder = Recorder(stream.broadcaster, recordings) if recordings else None
    paths = AllowedPaths(uploads, models, media, load_catalog(), config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stream.open()
        try:
            yield
        finally:
            # Together: each waits for a thread of its own, and any of those may not answer.
            ending = [viewers.close(), stream.close()]
            await asyncio.gather(*ending, *([recorder.close()] if recorder else []))

    places = {"/": _always, "/whip": lambda: ingest.has_place, "/whep": lambda: len(viewers) < max_viewers}
    app = _bare_app(lifespan, access, base_path, places)
    app.include_router(parameters_router(stream, paths))
    app.include_router(prompt_router(stream))
    app.include_router(loras_router(models))
    app.include_router(status_router(stream, viewers, ingest, recorder, model, uploads=store is not None))
    if store is not None:
        app.include_router(uploads_router(store))
    if recorder is not None:
        app.include_router(recording_router(recorder))
    app.include_router(metrics_router(metrics, stream, viewers, model))
    app.include_router(whep_router(stream, viewers))
    app.include_router(whip_router(ingest))
    app.mount("/", PageFiles(directory=PAGE, html=True), name="page")
    return app


def _bare_app(
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    access: AccessPolicy,
    base_path: str,
    places: Mapping[str, HasPlace],
) -> FastAPI:
    """What comes before the routes, and the form of refusals."""
    # Its own pages of documentation load their scripts from elsewhere.
    app = FastAPI(title="scope-ltx live", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    # The last one added is the first to see a request.
    app.add_middleware(FrontDoor, base=base_path, places=places)
    app.add_middleware(AccessGuard, policy=access, open_files=page_paths())
    app.add_middleware(BasePath, base=base_path)
    app.add_exception_handler(ProblemError, answer_problem)
    app.add_exception_handler(BadFieldsError, answer_bad_fields)
    return app


def _always() -> bool:
    return True
