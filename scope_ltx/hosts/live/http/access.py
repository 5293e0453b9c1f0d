"""Who may ask the live host for what: a token, the name it was called by, and pages of other origins.

    with a token       every request but the page's own files and the health checks carries it
    without a token    the host must be called by a loopback name, and a page elsewhere changes nothing

Everything about CORS is decided here: what a route says about other origins does not leave the process.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scope_ltx.hosts.live.http.problems import problem_response

MIN_TOKEN_CHARACTERS = 16
"""64 bits when it is hexadecimal. There is no limit on how often a token may be tried."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""For a supervisor, which should not need the token to see whether the process lives."""
ANY = "*"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_EXPOSED = "Location, Retry-After, Link, WWW-Authenticate"
_METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
_HEADERS = "Authorization, Content-Type, If-Match"
_DAY_S = "86400"


@dataclass(frozen=True)
class AccessPolicy:
    """token: None: none is asked for. hosts: names that a request may call this host by (None: any).
    origins: of pages elsewhere that may use it, as "https://studio.example"; "*" for every page."""

    token: str | None = None
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, host: str, token: str | None, origins: Iterable[str]) -> AccessPolicy:
        """The policy for a server that listens on `host`.

        Raises ValueError without a token where others than this machine can reach it, and for a token or an origin
        that is none.
        """
        if token is None and not is_loopback(host):
            raise ValueError(
                f"on {host} every machine of the network could use this server: give it a token, such as "
                f"--token {secrets.token_urlsafe(24)}"
            )
        if token is not None:
            _check_token(token)
        allowed = frozenset(_checked_origin(origin) for origin in origins)
        # A page can make its own name mean 127.0.0.1 and then read this server as its own (DNS rebinding).
        hosts = None if token is not None else LOOPBACK_NAMES | {host.lower()}
        return cls(token, hosts, allowed)

    def allows(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may use the server that was called by `host`."""
        return ANY in self.origins or origin in self.origins or origin.partition("://")[2] == host

    def knows(self, authorization: str | None) -> bool:
        """Whether an Authorization header carries the token, compared in constant time."""
        scheme, _, given = (authorization or "").partition(" ")
        if self.token is None:
            return True
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.token.encode())
        return same and scheme.lower() == "bearer"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_token(token: str) -> None:
    if len(token) < MIN_TOKEN_CHARACTERS or not _TOKEN.fullmatch(token):
        raise ValueError(
            f"the token must have at least {MIN_TOKEN_CHARACTERS} characters, of letters, digits and ._~+/-, "
            f"such as {secrets.token_urlsafe(24)}"
        )


def _checked_origin(origin: str) -> str:
    if origin != ANY and not re.fullmatch(r"https?://[^/\s]+", origin):
        raise ValueError(f'an origin looks like "https://studio.example", without a path, got {origin!r}')
    return origin.lower()


class AccessGuard:
    """ASGI middleware around everything else. `open_files`: paths that anybody may GET, the page's own."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy, open_files: Sequence[str]) -> None:
        self._app = app
        self._policy = policy
        self._open = OPEN_PATHS | frozenset(open_files)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "").lower()
        allowed = bool(origin) and self._policy.allows(origin, headers.get("host", "").lower())
        answer = self._refusal(scope, headers, origin, allowed)
        if answer is None and allowed and _is_preflight(scope, headers):
            answer = Response(status_code=204)
        await (answer or self._app)(
            scope, receive, self._with_cors(send, origin if allowed else "", scope, headers)
        )

    def _refusal(self, scope: Scope, headers: Headers, origin: str, allowed: bool) -> Response | None:
        policy, method = self._policy, str(scope["method"])
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        name = _host_name(headers.get("host", ""))
        if policy.hosts is not None and name not in policy.hosts:
            detail = f"this server is not called {name or 'nothing'}: use {', '.join(sorted(policy.hosts))}"
            return problem_response(HTTPStatus.MISDIRECTED_REQUEST, detail)
        # A browser's preflight carries no token, and tells nothing.
        if _is_preflight(scope, headers) or (method in ("GET", "HEAD") and path in self._open):
            return None
        if policy.token is not None:
            if policy.knows(headers.get("authorization")):
                return None
            detail = "the token is missing or wrong: send it as Authorization: Bearer TOKEN"
            return problem_response(
                HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": 'Bearer realm="scope-ltx"'}
            )
        if origin and not allowed and method in _CHANGING:
            detail = f"a page of {origin} may not change anything: start the server with --allow-origin {origin}"
            return problem_response(HTTPStatus.FORBIDDEN, detail)
        return None

    def _with_cors(self, send: Send, origin: str, scope: Scope, request: Headers) -> Send:
        preflight = _is_preflight(scope, request)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [key for key in headers if key.lower().startswith("access-control-")]:
                    del headers[name]
                if origin:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = _EXPOSED
                    headers.add_vary_header("Origin")
                if origin and preflight:
                    headers["Access-Control-Allow-Methods"] = _METHODS
                    headers["Access-Control-Allow-Headers"] = _HEADERS
                    headers["Access-Control-Max-Age"] = _DAY_S
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        return sending


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


def _host_name(host: str) -> str:
    """Without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
