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
from scope_ltx.hosts.live.problems import (
    BadFieldsError,
    FieldProblem,
    FieldProblems,
    ProblemBody,
    ProblemError,
    answer_bad_fields,
    answer_problem,
    read_json_object,
)
from scope_ltx.hosts.live.stream import LiveStream, StreamState
from scope_ltx.hosts.live.viewers import MAX_VIEWERS, Viewers
from scope_ltx.hosts.live.whep import whep_router
from scope_ltx.request import Generator
from scope_ltx.support import unsupported
from scope_streaming.clock import Clock

PAGE = Path(__file__).parent / "page"
_PROBLEM = {"model": ProblemBody, "content": {"application/problem+json": {}}}
_REFUSED: dict[int | str, dict[str, Any]] = {
    **dict.fromkeys((400, 413, 415), _PROBLEM),
    422: {"model": FieldProblems},
}
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


class Prompt(BaseModel):
    prompt: str


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
    max_viewers: int = MAX_VIEWERS,
) -> FastAPI:
    """The application. It answers at once; `start` loads the model on the generation thread meanwhile.

    `nonce` makes this run's random seeds its own, `model` is the name that the page shows. Raises ValueError
    for an empty prompt.
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
    app.include_router(_prompt_router(stream))
    app.include_router(_status_router(stream, viewers, model))
    app.include_router(whep_router(stream, viewers))
    app.mount("/", PageFiles(directory=PAGE, html=True), name="page")
    return app


def _parameter_router(stream: LiveStream) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["control"])
    session = stream.session

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
        responses={**_REFUSED, 409: _PROBLEM},
        openapi_extra=_json_body(LTX2Config.model_json_schema()),
    )
    async def update(request: Request) -> Updated:
        """Change some parameters, all or none. They apply to the next chunk that starts."""
        changes = await read_json_object(request)
        before = session.config
        try:
            wanted = before.updated(**changes)
            fixed = [
                name for name in LTX2Config.parameters("load") if getattr(wanted, name) != getattr(before, name)
            ]
            if fixed:
                raise ProblemError(
                    HTTPStatus.CONFLICT,
                    f"{', '.join(fixed)} can only be set at start: restart with the new value",
                )
            problems = unsupported(wanted)
            if problems:
                raise BadFieldsError(
                    [FieldProblem(loc=["body", name], msg=text) for name, text in problems.items()]
                )
            config = session.update(**changes)
        except ValidationError as error:
            raise BadFieldsError.of(error) from error
        stream.retry()
        return Updated(parameters=config, adjustments=config.adjustments)

    return router


def _prompt_router(stream: LiveStream) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["control"])
    session = stream.session

    @router.get("/prompt")
    async def prompt() -> Prompt:
        """The prompt of the next chunk that starts."""
        return Prompt(prompt=session.prompt)

    @router.post("/prompt", responses=_REFUSED, openapi_extra=_json_body(Prompt.model_json_schema()))
    async def set_prompt(request: Request) -> Prompt:
        """Change the prompt for the next chunk that starts."""
        body = await read_json_object(request)
        for name in sorted(body.keys() - {"prompt"}):
            raise BadFieldsError([FieldProblem(loc=["body", name], msg="there is no such field: send prompt")])
        text = body.get("prompt")
        if not isinstance(text, str):
            raise BadFieldsError([FieldProblem(loc=["body", "prompt"], msg="prompt must be a string")])
        try:
            prompt = session.set_prompt(text)
        except ValueError as error:
            raise BadFieldsError([FieldProblem(loc=["body", "prompt"], msg=str(error))]) from error
        stream.retry()
        return Prompt(prompt=prompt)

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

    @router.get("/readyz", responses={503: _PROBLEM})
    async def readyz() -> Health:
        """A viewer would see something: at least one chunk was made."""
        if not stream.broadcaster.started:
            detail = stream.last_error or "no chunk was made yet"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "2"})
        return Health(status="ready")

    return router


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
