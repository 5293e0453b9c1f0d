"""One of several servers behind a front door: which addresses are its own, and where newcomers are sent.

    /pods/scope-ltx-0/...   this server, called by its base path
    /whip, /whep, /         a newcomer, whom the door sent here: 307 to the same below the base path, or 503 when
                            the place is taken, for the door to ask another server
    /pods/scope-ltx-1/...   another server, which the door did not find: 503

What a server answers with then carries its name, in Location, too, so no balancer needs to remember anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from scope_ltx.hosts.live.http.problems import problem_response

RETRY_AFTER_S = 5
_BASE = re.compile(r"(/[A-Za-z0-9._~-]+)+")

HasPlace = Callable[[], bool]


def checked_base_path(text: str) -> str:
    """Raises ValueError for anything but "" and "/name/name"."""
    if text and not _BASE.fullmatch(text):
        raise ValueError(f'a base path looks like "/pods/scope-ltx-0", without a slash at its end, got {text!r}')
    return text


class BasePath:
    """ASGI middleware around everything: what is below `base` is this application's, as if it were at the root."""

    def __init__(self, app: ASGIApp, base: str) -> None:
        self._app = app
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._base and str(scope["path"]).startswith(self._base + "/"):
            scope["root_path"] = self._base
        await self._app(scope, receive, send)


class FrontDoor:
    """ASGI middleware behind the access checks. `places`: paths at which newcomers come, and whether there is a
    place for one more."""

    def __init__(self, app: ASGIApp, base: str, places: Mapping[str, HasPlace]) -> None:
        self._app = app
        self._base = base
        self._parent = base.rpartition("/")[0] + "/"
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None
        if scope["type"] == "http" and self._base and not scope.get("root_path"):
            answer = self._answer(str(scope["path"]), str(scope["method"]))
        await (answer or self._app)(scope, receive, send)

    def _answer(self, path: str, method: str) -> Response | None:
        if path == self._base:
            return RedirectResponse(self._base + "/", HTTPStatus.TEMPORARY_REDIRECT)
        if path in self._places and method != "OPTIONS":
            if not self._places[path]():
                return _unavailable("all places here are taken: try again")
            return RedirectResponse(self._base + path, HTTPStatus.TEMPORARY_REDIRECT)
        if self._parent != "/" and path.startswith(self._parent):
            return _unavailable(f"this is {self._base}, and the server that was asked for is not there: try again")
        return None


def _unavailable(detail: str) -> Response:
    return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(RETRY_AFTER_S)})
