"""Runs a live host in a process of its own: prints its URL, ends on a signal."""

from __future__ import annotations

import sys

from fastapi import FastAPI

from scope_ltx.hosts.live.http.server import http_server
from scope_ltx.hosts.live.serve import bind, url_of


def serve_here(app: FastAPI) -> None:
    listener = bind("127.0.0.1", 0)
    server = http_server(app)
    sys.stdout.write(url_of(listener) + "\n")
    sys.stdout.flush()
    server.run(sockets=[listener])
