"""What comes in the body of a request: read within bounds of size and time, or refused."""

from __future__ import annotations

import asyncio
import json
import math
from http import HTTPStatus
from typing import Any

from fastapi import Request

from scope_ltx.hosts.live.http.problems import BadFieldsError, FieldProblem, ProblemError

MAX_JSON_BYTES = 64 * 1024
BODY_S = 10.0
"""For bodies of at most 256 KiB: 200 kbit/s would do."""


def require_media_type(request: Request, expected: str) -> None:
    """Raises ProblemError 415 unless the body is declared as `expected`, whatever its parameters."""
    got = request.headers.get("content-type", "")
    if got.partition(";")[0].strip().lower() != expected:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the body must be sent as Content-Type: {expected}, got {got or 'none'}",
            {"Accept": expected},
        )


async def read_body(request: Request, limit_nbytes: int) -> bytes:
    """The whole body. Raises ProblemError 413 as soon as it is longer than `limit_nbytes`, 408 when it takes more
    than BODY_S."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > limit_nbytes:
                    raise ProblemError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have at most {limit_nbytes} bytes"
                    )
    except TimeoutError as error:
        detail = f"the body was not there after {BODY_S:g} s: send it again"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from error
    return bytes(body)


async def read_json_object(request: Request) -> dict[str, Any]:
    """The JSON object in the body. Raises ProblemError 400, 408, 413 or 415, BadFieldsError for another value."""
    require_media_type(request, "application/json")
    body = await read_body(request, MAX_JSON_BYTES)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadFieldsError([FieldProblem(loc=["body"], msg=f"expected a JSON object, got {_json_type(value)}")])
    return value


def json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """What a route that reads its body itself tells in OpenAPI. Definitions are put where they are named."""
    definitions = schema.get("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in node]
        if not isinstance(node, dict):
            return node
        named = definitions.get(node.get("$ref", "").removeprefix("#/$defs/"), {})
        return {key: inlined(value) for key, value in {**named, **node}.items() if key not in ("$defs", "$ref")}

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined(schema)}}}}


def _json_type(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is not finite"
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
