"""Options of `serve`: who may use the host, and which directories it reads and writes."""

# ruff: noqa: PLC0415 - imports wait until a command needs them
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scope_ltx.cli.options import Command, UserError, user_errors
from scope_ltx.hosts.live.options import MAX_VIEWERS

if TYPE_CHECKING:
    from scope_ltx.hosts.live.options import HostOptions

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


def host_options(command: Command) -> Command:
    """Access, viewers, and directories."""
    for option in reversed((
        click.option(
            "--token",
            envvar="SCOPE_LTX_TOKEN",
            show_envvar=True,
            help="What every request must carry. Needed where other machines can reach the host.",
        ),
        click.option(
            "--allow-origin",
            "origins",
            multiple=True,
            metavar="ORIGIN",
            help="Let pages of this origin use the host, such as https://studio.example; * for all. Repeatable.",
        ),
        click.option(
            "--max-viewers",
            type=click.IntRange(1, 256),
            default=MAX_VIEWERS,
            show_default=True,
            help="Viewers at a time.",
        ),
        click.option("--upload-dir", type=_DIRECTORY, help="Where uploads go. Default: the user's cache."),
        click.option(
            "--media-dir",
            "media_dirs",
            multiple=True,
            type=_DIRECTORY,
            help="Let requests name files below this directory. Repeatable.",
        ),
        click.option("--record-dir", type=_DIRECTORY, help="Where recordings go. Default: the user's videos."),
        click.option(
            "--base-path",
            default="",
            metavar="/NAME",
            help="Of this server among several behind a front door, such as /pods/one.",
        ),
    )):  # fmt: skip
        command = option(command)
    return command


def read_host(
    host: str,
    token: str | None,
    origins: tuple[str, ...],
    max_viewers: int,
    upload_dir: Path | None,
    media_dirs: tuple[Path, ...],
    record_dir: Path | None,
    base_path: str,
) -> HostOptions:
    """Raises UserError for a host that needs a token and has none, a directory that is not there, a path that is
    no base path."""
    from scope_ltx.hosts.live.http.access import AccessPolicy
    from scope_ltx.hosts.live.http.front_door import checked_base_path
    from scope_ltx.hosts.live.options import HostOptions

    with user_errors(ValueError):
        AccessPolicy.of(host, token, origins)
        checked_base_path(base_path)
    for directory in media_dirs:
        if not directory.is_dir():
            raise UserError(f"--media-dir {directory}: there is no such directory")
    return HostOptions(token, tuple(origins), max_viewers, upload_dir, tuple(media_dirs), record_dir, base_path)
