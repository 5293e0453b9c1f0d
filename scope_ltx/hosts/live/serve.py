"""Runs the live host: binds, says where, loads the model meanwhile, and goes away cleanly on a signal."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import click
import platformdirs

from scope_ltx.config import LTX2Config
from scope_ltx.engine import DEFAULT_ENGINE, EngineOptions
from scope_ltx.hosts.live.app import create_app
from scope_ltx.hosts.live.http.access import AccessPolicy
from scope_ltx.hosts.live.http.server import http_server
from scope_ltx.hosts.live.operations.garbage import keep_all_there_is
from scope_ltx.hosts.live.options import DEFAULT_HOST, HostOptions
from scope_ltx.request import Generator
from scope_streaming.clock import SystemClock

NAME = "scope-ltx"
"""Of this program's directories among the user's."""


def run_server(
    model_dir: Path,
    config: LTX2Config,
    prompt: str,
    host: str,
    port: int,
    device: str,
    engine: EngineOptions = DEFAULT_ENGINE,
    options: HostOptions = DEFAULT_HOST,
    announce: Callable[[str], None] = click.echo,
) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets the URL once, as soon as the port answers.

    Port 0 takes a free one. Raises OSError when the address cannot be bound, ValueError for an empty prompt and
    for a host that needs a token and has none.
    """

    def start() -> Generator:
        # Imported on the generation thread: torch takes seconds, and the page should answer at once.
        from scope_ltx.pipeline import load_pipeline  # noqa: PLC0415

        pipeline = load_pipeline(model_dir, device, engine, config)
        keep_all_there_is()
        return pipeline

    app = create_app(
        start,
        config,
        prompt,
        clock=SystemClock(),
        nonce=secrets.token_hex(8),
        model=model_dir.name,
        models=model_dir,
        max_viewers=options.max_viewers,
        uploads=options.upload_dir or platformdirs.user_cache_path(NAME) / "uploads",
        recordings=options.record_dir or platformdirs.user_videos_path() / NAME,
        media=options.media_dirs,
        access=AccessPolicy.of(host, options.token, options.origins),
        base_path=options.base_path,
    )
    with bind(host, port) as listener:
        server = http_server(app)
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
