"""WHEP: a viewer POSTs an SDP offer and gets an answer, and DELETEs its resource to leave."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scope_ltx.hosts.live.problems import ProblemBody, ProblemError, read_body, require_media_type
from scope_ltx.hosts.live.stream import LiveStream
from scope_ltx.hosts.live.viewers import Viewers

SDP = "application/sdp"
MAX_SDP_BYTES = 256 * 1024
CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Location, Retry-After"}
"""A player on any page may watch. Nothing here changes the stream, and no cookie is looked at."""
_PREFLIGHT = {
    **CORS,
    "Access-Control-Allow-Methods": "POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, If-Match",
    "Access-Control-Max-Age": "86400",
    "Accept-Post": SDP,
}
_PROBLEM = {"model": ProblemBody, "content": {"application/problem+json": {}}}


def whep_router(stream: LiveStream, viewers: Viewers) -> APIRouter:
    """POST /whep, DELETE /whep/{key}, and OPTIONS on both. Candidates are not trickled: PATCH is 405."""
    router = APIRouter(tags=["whep"])

    @router.post(
        "/whep",
        status_code=201,
        response_class=Response,
        responses={
            201: {"content": {SDP: {}}, "description": "The SDP answer; Location is the viewer's resource."},
            **dict.fromkeys((400, 406, 409, 413, 415, 503), _PROBLEM),
        },
        openapi_extra={"requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}}}}},
    )
    async def join(request: Request) -> Response:
        """Watch the stream: an SDP offer in, an answer with all candidates out."""
        try:
            return await _join(request, stream, viewers)
        except ProblemError as problem:
            problem.headers.update(CORS)
            raise

    @router.delete("/whep/{key}", response_class=Response, responses={404: _PROBLEM})
    async def leave(key: str) -> Response:
        """Stop watching."""
        if not await viewers.leave(key):
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such viewer, or it has left", CORS)
        return Response(status_code=200, headers=CORS)

    @router.options("/whep", include_in_schema=False)
    @router.options("/whep/{key}", include_in_schema=False)
    async def preflight() -> Response:
        return Response(status_code=204, headers=_PREFLIGHT)

    @router.patch("/whep/{key}", include_in_schema=False)
    async def trickle(key: str) -> Response:
        detail = "candidates are not trickled here: send an offer that has them all"
        raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, detail, {**CORS, "Allow": "DELETE, OPTIONS"})

    return router


async def _join(request: Request, stream: LiveStream, viewers: Viewers) -> Response:
    require_media_type(request, SDP)
    body = await read_body(request, MAX_SDP_BYTES)
    try:
        offer = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the SDP offer is not UTF-8 text: {error.reason}") from error
    if not stream.broadcaster.started:
        reason = stream.last_error or "the model is loading and there is no picture yet"
        raise ProblemError(HTTPStatus.CONFLICT, f"{reason}: try again", {"Retry-After": "2"})
    key, answer = await viewers.join(offer)
    location = request.url.path.rstrip("/") + "/" + key
    return Response(answer, 201, {**CORS, "Location": location}, media_type=SDP)
