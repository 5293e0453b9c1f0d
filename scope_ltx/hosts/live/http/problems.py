"""Refusals over HTTP. Everything but bad field values is `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

PROBLEM_JSON = "application/problem+json"
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
    """The body of a 422 about fields."""

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
    """What a route that refuses with these statuses tells in OpenAPI; a 422 is about fields."""
    return {**problems(*statuses), **({422: {"model": FieldProblems}} if 422 in statuses else {})}


def problems(*statuses: int) -> Responses:
    """The same for a route without fields, all of whose refusals are problems."""
    return {status: {"model": ProblemBody, "content": {PROBLEM_JSON: {}}} for status in statuses}


def problem_response(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal as it is sent, for middleware, which no exception handler stands around."""
    body = ProblemBody(title=status.phrase, status=status, detail=detail)
    return _json_response(body, status, PROBLEM_JSON, headers or {})


def _json_response(body: BaseModel, status: int, media_type: str, headers: Mapping[str, str]) -> Response:
    """ASCII JSON: a field name that came in may hold a lone surrogate, which UTF-8 cannot carry back."""
    return Response(json.dumps(body.model_dump(mode="python")), status, dict(headers), media_type)


async def answer_problem(_: Request, error: Exception) -> Response:
    """Exception handler for `ProblemError`."""
    if not isinstance(error, ProblemError):
        raise TypeError(f"expected a ProblemError, got {type(error).__name__}")
    return problem_response(error.status, error.detail, error.headers)


async def answer_bad_fields(_: Request, error: Exception) -> Response:
    """Exception handler for `BadFieldsError`."""
    if not isinstance(error, BadFieldsError):
        raise TypeError(f"expected BadFieldsError, got {type(error).__name__}")
    return _json_response(FieldProblems(detail=list(error.problems)), 422, "application/json", {})


def _sentence(problem: ErrorDetails) -> str:
    return "there is no such parameter" if problem["type"] == "extra_forbidden" else problem["msg"]
