"""The parameters over HTTP: what there are, what they are now, and changes to them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.control.allowed_paths import AllowedPaths
from scope_ltx.hosts.live.http.bodies import json_body, read_json_object
from scope_ltx.hosts.live.http.problems import BadFieldsError, ProblemError, refusals
from scope_ltx.hosts.live.stream.live_stream import LiveStream


class Updated(BaseModel):
    """All parameters after a change, and what was snapped of it, as sentences."""

    parameters: LTX2Config
    adjustments: tuple[str, ...]


def parameters_router(stream: LiveStream, paths: AllowedPaths) -> APIRouter:
    """GET /api/schema, GET and PATCH /api/parameters. `paths`: which files a change may name."""
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
        responses=refusals(400, 408, 409, 413, 415, 422),
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
