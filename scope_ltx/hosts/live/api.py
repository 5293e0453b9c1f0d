"""The live host as an ASGI application: control API, WHEP, health and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError

from scope_ltx import __version__
from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.loras_api import loras_router
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
from scope_ltx.hosts.live.stream import LiveStream, StreamState
from scope_ltx.hosts.live.viewers import MAX_VIEWERS, Viewers
from scope_ltx.hosts.live.whep import whep_router
from scope_ltx.request import Generator
from scope_streaming.clock import Clock

PAGE = Path(__file__).parent / "page"
_CODEC_NAMES = {"H264": "H.264", "VP8": "VP8"}


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


class Status(BaseModel):
    """`chunk` and `prompt` are on air, null before the first. `bitrate` is bits per second of one viewer."""

    state: StreamState
    chunk: int | None
    real_time_factor: float | None
    buffer_s: float
    stalls: int
    stall_s: float
    viewers: int
    video_codec: str | None
    bitrate: int
    prompt: str | None
    notes: tuple[str, ...]
    last_error: str | None
    model: str
    uptime_s: float


class Health(BaseModel):
    status: str


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
) -> FastAPI:
    """The application. It answers at once; `start` loads the model on the generation thread meanwhile.

    `nonce` makes this run's random seeds its own, `model` is the name that the page shows, `models` the directory
    in which LoRAs are looked for. Raises ValueError for an empty prompt.
    """
    stream = LiveStream(start, config, prompt, clock, nonce)
    viewers = Viewers(stream.broadcaster, max_viewers=max_viewers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stream.open()
        try:
            yield
        finally:
            await viewers.close()
            await stream.close()

    app = FastAPI(title="scope-ltx live", version=__version__, lifespan=lifespan)
    app.add_exception_handler(ProblemError, answer_problem)
    app.add_exception_handler(BadFieldsError, answer_bad_fields)
    app.include_router(_parameter_router(stream))
    app.include_router(prompt_router(stream))
    app.include_router(loras_router(models))
    app.include_router(_status_router(stream, viewers, model))
    app.include_router(whep_router(stream, viewers))
    app.mount("/", PageFiles(directory=PAGE, html=True), name="page")
    return app


def _parameter_router(stream: LiveStream) -> APIRouter:
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
        changes = await read_json_object(request)
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


def _status_router(stream: LiveStream, viewers: Viewers, model: str) -> APIRouter:
    router = APIRouter(tags=["status"])

    @router.get("/api/status")
    async def status() -> Status:
        """How the stream is doing; cheap enough to ask for every second."""
        report = stream.broadcaster.report
        codecs = [_CODEC_NAMES[codec] for codec in report.codecs]
        return Status(
            state=stream.state,
            chunk=report.segment,
            real_time_factor=stream.real_time_factor,
            buffer_s=stream.buffer_s,
            stalls=report.stalls,
            stall_s=report.stall_s,
            viewers=len(viewers),
            video_codec=", ".join(codecs) or None,
            bitrate=report.bitrate,
            prompt=None if report.segment is None else stream.session.prompt_of(report.segment),
            notes=stream.session.last_notes,
            last_error=stream.last_error,
            model=model,
            uptime_s=stream.uptime_s,
        )

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process answers."""
        return Health(status="alive")

    @router.get("/readyz", responses=refusals(503))
    async def readyz() -> Health:
        """A viewer would see something: at least one chunk was made."""
        if not stream.broadcaster.started:
            detail = stream.last_error or "no chunk was made yet"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "2"})
        return Health(status="ready")

    return router
