"""Runs the live host: binds, says where, loads the model meanwhile, and goes away cleanly on a signal."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import click
import uvicorn

from scope_ltx.config import LTX2Config
from scope_ltx.engine import DEFAULT_ENGINE, EngineOptions
from scope_ltx.hosts.live.api import create_app
from scope_ltx.request import Generator
from scope_streaming.clock import SystemClock

GRACE_S = 1
"""Open requests get this long at shutdown; with the stream's own stop it stays below two seconds."""


def run_server(
    model_dir: Path,
    config: LTX2Config,
    prompt: str,
    host: str,
    port: int,
    device: str,
    engine: EngineOptions = DEFAULT_ENGINE,
    announce: Callable[[str], None] = click.echo,
) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets the URL once, as soon as the port answers.

    Port 0 takes a free one. Raises OSError when the address cannot be bound, ValueError for an empty prompt.
    """

    def start() -> Generator:
        # Imported on the generation thread: torch takes seconds, and the page should answer at once.
        from scope_ltx.pipeline import load_pipeline  # noqa: PLC0415

        return load_pipeline(model_dir, device, engine, config)

    app = create_app(start, config, prompt, clock=SystemClock(), nonce=secrets.token_hex(8), model=model_dir.name)
    with bind(host, port) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=GRACE_S)
        )
        announce(url_of(listener))
        # uvicorn raises the signal again when it is done: Ctrl-C is the ordinary end here, not an error.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError that names the address and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot listen on {host} port {port}: {error.strerror}. Choose another with --port"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"
