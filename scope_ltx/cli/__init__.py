"""The `scope-ltx` command: serve, generate, loras, inspect, quantize, download, doctor.

Every command imports what it needs when it runs. A mistake of the user's ends with one message and status 2.
"""

from __future__ import annotations

import click

from scope_ltx import __version__
from scope_ltx.backend import LibraryBackend
from scope_ltx.cli.downloading import download
from scope_ltx.cli.files import doctor, inspect, loras, quantize
from scope_ltx.cli.generating import generate, serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scope-ltx")
@click.pass_context
def main(context: click.Context) -> None:
    """Real-time LTX-2.3: joint audio and video, chunk after chunk."""
    if context.obj is None:
        context.obj = LibraryBackend()


for command in (serve, generate, download, loras, inspect, quantize, doctor):
    main.add_command(command)
