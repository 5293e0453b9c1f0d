"""Refusals over HTTP. Everything but bad field values is `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_JSON_BYTES = 64 * 1024
BODY_S = 10.0
"""For bodies of at most 256 KiB: 200 kbit/s would do."""
Responses = dict[int | str, dict[str, Any]]


class ProblemBody(BaseModel):
    """RFC 9457: `title` names the status, `detail` says what happened and what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class FieldProblem(BaseModel):
    """`loc` starts with "body" and ends with the field; `msg` is a sentence about it."""

    loc: list[str | int]
    msg: str


class FieldProblems(BaseModel):
    """The body of every 422."""

    detail: list[FieldProblem]


class ProblemError(Exception):
    """Raised by a handler to refuse a request. `headers` go out with the answer."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


class BadFieldsError(Exception):
    """Raised by a handler to refuse field values: 422."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(problem.msg for problem in problems))
        self.problems = tuple(problems)

    @classmethod
    def of(cls, error: ValidationError) -> BadFieldsError:
        """Leaves the input itself out: NaN, megabytes or invalid text, none of which JSON carries."""
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        return cls([FieldProblem(loc=["body", *problem["loc"]], msg=_sentence(problem)) for problem in problems])


def refusals(*statuses: int) -> Responses:
    """What a route that refuses with these statuses tells in OpenAPI."""
    problem = {"model": ProblemBody, "content": {"application/problem+json": {}}}
    return {status: {"model": FieldProblems} if status == 422 else problem for status in statuses}


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


def json_response(body: BaseModel, status: int, media_type: str, headers: Mapping[str, str]) -> Response:
    """ASCII JSON: a field name that came in may hold a lone surrogate, which UTF-8 cannot carry back."""
    return Response(json.dumps(body.model_dump(mode="python")), status, dict(headers), media_type)


async def answer_problem(_: Request, error: Exception) -> Response:
    """Exception handler for `ProblemError`."""
    if not isinstance(error, ProblemError):
        raise TypeError(f"expected a ProblemError, got {type(error).__name__}")
    body = ProblemBody(title=error.status.phrase, status=error.status, detail=error.detail)
    return json_response(body, error.status, "application/problem+json", error.headers)


async def answer_bad_fields(_: Request, error: Exception) -> Response:
    """Exception handler for `BadFieldsError`."""
    if not isinstance(error, BadFieldsError):
        raise TypeError(f"expected BadFieldsError, got {type(error).__name__}")
    return json_response(FieldProblems(detail=list(error.problems)), 422, "application/json", {})


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
    """The JSON object in the body. Raises ProblemError 415, 413 or 400, BadFieldsError when it is no object."""
    require_media_type(request, "application/json")
    body = await read_body(request, MAX_JSON_BYTES)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadFieldsError([FieldProblem(loc=["body"], msg=f"expected a JSON object, got {_json_type(value)}")])
    return value


def _sentence(problem: ErrorDetails) -> str:
    return "there is no such parameter" if problem["type"] == "extra_forbidden" else problem["msg"]


def _json_type(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is not finite"
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
