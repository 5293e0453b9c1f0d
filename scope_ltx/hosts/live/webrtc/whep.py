"""WHEP: a viewer POSTs an SDP offer and gets an answer, and DELETEs its resource to leave."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import Response

from scope_ltx.hosts.live.http.problems import ProblemError, problems
from scope_ltx.hosts.live.stream.live_stream import LiveStream
from scope_ltx.hosts.live.webrtc.offers import SDP, read_offer
from scope_ltx.hosts.live.webrtc.viewers import Viewers

_ENDPOINT = {"Allow": "HEAD, POST, OPTIONS", "Accept-Post": SDP}
_RESOURCE = {"Allow": "DELETE, OPTIONS"}


def whep_router(stream: LiveStream, viewers: Viewers) -> APIRouter:
    """POST, HEAD and OPTIONS /whep; DELETE and OPTIONS /whep/{key}; 405 for other methods. Candidates are not
    trickled: an answer has them all, and so must an offer."""
    router = APIRouter(tags=["whep"])

    @router.post(
        "/whep",
        status_code=201,
        response_class=Response,
        responses={
            201: {"content": {SDP: {}}, "description": "The SDP answer; Location is the viewer's resource."},
            **problems(400, 406, 408, 409, 413, 415, 503),
        },
        openapi_extra={"requestBody": {"required": True, "content": {SDP: {"schema": {"type": "string"}}}}},
    )
    async def join(request: Request) -> Response:
        """Watch the stream: an SDP offer in, an answer with all candidates out."""
        offer = await read_offer(request)
        _require_stream(stream)
        key, answer = await viewers.join(offer)
        location = request.url.path.rstrip("/") + "/" + key
        return Response(answer, 201, {"Location": location}, media_type=SDP)

    @router.head("/whep", response_class=Response, responses=problems(409))
    async def look() -> Response:
        """Whether there is a stream to watch: 200, or 409 with the seconds to wait."""
        _require_stream(stream)
        return Response(status_code=200, headers=_ENDPOINT)

    @router.delete("/whep/{key}", response_class=Response, responses=problems(404))
    async def leave(key: str) -> Response:
        """Stop watching."""
        if not await viewers.leave(key):
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such viewer, or it has left")
        return Response(status_code=200)

    @router.options("/whep", include_in_schema=False)
    async def describe_endpoint() -> Response:
        return Response(status_code=204, headers=_ENDPOINT)

    @router.options("/whep/{key}", include_in_schema=False)
    async def describe_resource(key: str) -> Response:
        return Response(status_code=204, headers=_RESOURCE)

    @router.api_route("/whep", methods=["GET", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def refuse_endpoint() -> Response:
        raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "POST an SDP offer to watch", _ENDPOINT)

    @router.api_route("/whep/{key}", methods=["GET", "HEAD", "PUT", "POST", "PATCH"], include_in_schema=False)
    async def refuse_resource(key: str) -> Response:
        detail = "a viewer can only be DELETEd; candidates are not trickled: send an offer that has them all"
        raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, detail, _RESOURCE)

    return router


def _require_stream(stream: LiveStream) -> None:
    """Raises ProblemError 409."""
    if stream.broadcaster.over:
        reason = (stream.last_error or "the stream is over").rstrip(".")
        raise ProblemError(HTTPStatus.CONFLICT, f"{reason}. Start the server again")
    if not stream.broadcaster.playing:
        reason = stream.last_error or "the model is loading and there is no picture yet"
        raise ProblemError(HTTPStatus.CONFLICT, f"{reason}: try again", {"Retry-After": "2"})
