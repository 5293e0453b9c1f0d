"""The HTTP server around the application: how long a connection may say nothing, how many there may be."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

LAST_ANSWERS_S = 0.3
"""Open requests get this long at shutdown. Then an upload or a download is cut off: with the stream's own stop it
stays below two seconds."""
GRACE_S = 1
"""A handler that goes on although nobody listens any more is cancelled after this."""
HEADERS_S = 10.0
"""A connection on which a request's headers take longer is closed. A browser opens one ahead and uses it soon."""
MAX_CONNECTIONS = 256
"""With eight viewers and a page each some fifty are used; a process may have 1024 files open by default."""


def http_server(
    app: ASGIApp, *, headers_s: float = HEADERS_S, max_connections: int = MAX_CONNECTIONS
) -> uvicorn.Server:
    """A server that is not running yet. It logs through the program's own logging."""
    config = uvicorn.Config(
        app,
        http=deadline_protocol(headers_s),
        ws="none",
        log_config=None,
        access_log=False,
        limit_concurrency=max_connections,
        timeout_graceful_shutdown=GRACE_S,
    )
    return uvicorn.Server(config)


def deadline_protocol(headers_s: float) -> type[H11Protocol]:
    """uvicorn's protocol with an end to two things that it waits for without one: a request's headers, and at
    shutdown an answer."""

    class DeadlineProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def shutdown(self) -> None:
            super().shutdown()
            self._unwatch()
            self._deadline = self.loop.call_later(LAST_ANSWERS_S, self.transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Headers that come byte by byte get no more time than others. What runs has all the time it needs."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._unwatch()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(headers_s, self.transport.close)

        def _unwatch(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return DeadlineProtocol
