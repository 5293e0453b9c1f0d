"""Uploads over HTTP: a file in the body of a POST, and back the path that a parameter is set to."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from scope_ltx.hosts.live.http.problems import refusals
from scope_ltx.hosts.live.uploads.store import Stored, UploadStore

_BODY = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    "required": True,
}


def uploads_router(store: UploadStore) -> APIRouter:
    """POST and GET /api/uploads, DELETE /api/uploads/{name}."""
    router = APIRouter(prefix="/api", tags=["uploads"])

    @router.post(
        "/uploads",
        status_code=HTTPStatus.CREATED,
        responses=refusals(400, 408, 413, 415, 422, 503, 507),
        openapi_extra={"requestBody": _BODY},
    )
    async def upload(request: Request) -> Stored:
        """Send a picture, sound or clip. What it is shows in its first bytes; its name and type are not asked."""
        return await store.add(request.stream())

    @router.get("/uploads")
    async def uploads() -> list[Stored]:
        """What was uploaded and is still there, the newest first."""
        return store.stored()

    @router.delete("/uploads/{name}", status_code=204, response_class=Response, responses=refusals(404, 409))
    async def remove(name: str) -> Response:
        """Delete a file that no parameter names."""
        store.remove(name)
        return Response(status_code=204)

    return router
