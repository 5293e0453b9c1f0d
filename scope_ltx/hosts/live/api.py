"""The live host as an ASGI application: control API, WHEP, health and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError

from scope_ltx import __version__
from scope_ltx.catalog import load_catalog
from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.access import AccessGuard, AccessPolicy
from scope_ltx.hosts.live.allowed_paths import AllowedPaths, named_paths
from scope_ltx.hosts.live.chunk_log import ChunkLog
from scope_ltx.hosts.live.front_door import BasePath, FrontDoor, HasPlace
from scope_ltx.hosts.live.ingest import Ingest
from scope_ltx.hosts.live.loras_api import loras_router
from scope_ltx.hosts.live.metrics import ChunkMetrics, metrics_router
from scope_ltx.hosts.live.options import MAX_VIEWERS
from scope_ltx.hosts.live.problems import (
    BadFieldsError,
    ProblemError,
    answer_bad_fields,
    answer_problem,
    json_body,
    read_json_object,
    refusals,
)
from scope_ltx.hosts.live.prompt_api import prompt_router
from scope_ltx.hosts.live.recording import Recorder
from scope_ltx.hosts.live.recording_api import recording_router
from scope_ltx.hosts.live.status_api import status_router
from scope_ltx.hosts.live.stream import LiveStream
from scope_ltx.hosts.live.uploads import UploadStore
from scope_ltx.hosts.live.uploads_api import uploads_router
from scope_ltx.hosts.live.viewers import Viewers
from scope_ltx.hosts.live.whep import whep_router
from scope_ltx.hosts.live.whip import whip_router
from scope_ltx.request import Generator
from scope_streaming.clock import Clock

PAGE = Path(__file__).parent / "page"
ANYBODY = AccessPolicy()


class PageFiles(StaticFiles):
    """The page, checked for a newer version at every load: modules of two versions do not fit together."""

    async def get_response(self, path: str, scope: MutableMapping[str, Any]) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        # Windows may have another type for .js in its registry, and no browser runs a module of that.
        if path.endswith(".js") and response.status_code == HTTPStatus.OK:
            response.headers["Content-Type"] = "text/javascript; charset=utf-8"
        return response


class Updated(BaseModel):
    """All parameters after a change, and what was snapped of it, as sentences."""

    parameters: LTX2Config
    adjustments: tuple[str, ...]


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
            if recorder is not None:
                await recorder.close()
            await viewers.close()
            await stream.close()

    places = {"/": _always, "/whip": lambda: ingest.has_place, "/whep": lambda: len(viewers) < max_viewers}
    app = _bare_app(lifespan, access, base_path, places)
    app.include_router(_parameter_router(stream, paths))
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


def page_paths() -> list[str]:
    """The page's own files, as a browser asks for them."""
    return ["/", *(f"/{path.relative_to(PAGE).as_posix()}" for path in PAGE.rglob("*") if path.is_file())]


def _parameter_router(stream: LiveStream, paths: AllowedPaths) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["control"])
    session = stream.session
    load_parameters = LTX2Config.parameters("load")

    @router.get("/schema")
    async def schema() -> dict[str, Any]:
        """The JSON schema of the parameters; "ltx" of each says how to show it and when it can change."""
        return LTX2Config.model_json_schema()

    @router.get("/parameters")
    async def parameters() -> LTX2Config:
        """The parameters of the next chunk that starts."""
        return session.config

    @router.patch(
        "/parameters",
        responses=refusals(400, 409, 413, 415, 422),
        openapi_extra=json_body(LTX2Config.model_json_schema()),
    )
    async def update(request: Request) -> Updated:
        """Change some parameters, all or none. They apply to the next chunk that starts."""
        changes, forbidden = paths.checked(await read_json_object(request))
        if forbidden:
            raise BadFieldsError(forbidden)
        held = session.config
        fixed = [name for name in load_parameters if changes.get(name, getattr(held, name)) != getattr(held, name)]
        if fixed:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                f"{', '.join(fixed)} can only be set at start: restart with the new value",
            )
        try:
            config = session.update(**changes)
        except ValidationError as error:
            raise BadFieldsError.of(error) from error
        stream.retry()
        return Updated(parameters=config, adjustments=config.adjustments)

    return router
