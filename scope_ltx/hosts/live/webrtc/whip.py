"""WHIP (RFC 9725): a camera or an encoder POSTs an SDP offer, sends, and DELETEs its resource to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from scope_ltx.hosts.live.http.bodies import read_body, require_media_type
from scope_ltx.hosts.live.http.problems import ProblemError, problems
from scope_ltx.hosts.live.webrtc.ingest import Ingest
from scope_ltx.hosts.live.webrtc.offers import MAX_SDP_BYTES, SDP, read_offer
from scope_ltx.hosts.live.webrtc.trickle import SDP_FRAGMENT, read_fragment

_ENDPOINT = {"Allow": "POST, OPTIONS", "Accept-Post": SDP}
_RESOURCE = {"Allow": "PATCH, DELETE, OPTIONS", "Accept-Patch": SDP_FRAGMENT}


def _body(media_type: str) -> dict[str, object]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"type": "string"}}}}}


def whip_router(ingest: Ingest) -> APIRouter:
    """POST and OPTIONS /whip; PATCH, DELETE and OPTIONS /whip/{key}; 405 for other methods. Closes `ingest` at
    the end of the application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await ingest.close()

    router = APIRouter(tags=["whip"], lifespan=lifespan)

    @router.post(
        "/whip",
        status_code=201,
        response_class=Response,
        responses={
            201: {"content": {SDP: {}}, "description": "The SDP answer; Location is the sender's resource."},
            **problems(400, 406, 408, 413, 415, 422, 503),
        },
        openapi_extra=_body(SDP),
    )
    async def publish(request: Request) -> Response:
        """Send live picture and sound: an SDP offer in, an answer with all candidates out."""
        key, etag, answer = await ingest.publish(await read_offer(request))
        headers = {"Location": request.url.path.rstrip("/") + "/" + key, "ETag": f'"{etag}"'}
        return Response(answer, 201, headers | {"Accept-Patch": SDP_FRAGMENT}, media_type=SDP)

    @router.patch(
        "/whip/{key}",
        status_code=204,
        response_class=Response,
        responses=problems(400, 404, 408, 412, 413, 415, 422),
        openapi_extra=_body(SDP_FRAGMENT),
    )
    async def trickle(key: str, request: Request) -> Response:
        """Add candidates to the offer. An ICE restart is not supported."""
        require_media_type(request, SDP_FRAGMENT)
        fragment = read_fragment(await read_body(request, MAX_SDP_BYTES))
        await ingest.trickle(key, fragment, request.headers.get("if-match"))
        return Response(status_code=204)

    @router.delete("/whip/{key}", response_class=Response, responses=problems(404))
    async def leave(key: str) -> Response:
        """Stop sending."""
        if not await ingest.leave(key):
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such sender, or it has left")
        return Response(status_code=200)

    _describe(router)
    return router


def _describe(router: APIRouter) -> None:
    """What each address takes, for OPTIONS and for those who ask with another method."""

    @router.options("/whip", include_in_schema=False)
    async def describe_endpoint() -> Response:
        return Response(status_code=204, headers=_ENDPOINT)

    @router.options("/whip/{key}", include_in_schema=False)
    async def describe_resource(key: str) -> Response:
        return Response(status_code=204, headers=_RESOURCE)

    @router.api_route("/whip", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def refuse_endpoint() -> Response:
        raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "POST an SDP offer to send here", _ENDPOINT)

    @router.api_route("/whip/{key}", methods=["GET", "HEAD", "PUT", "POST"], include_in_schema=False)
    async def refuse_resource(key: str) -> Response:
        raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "a sender can be PATCHed or DELETEd", _RESOURCE)
