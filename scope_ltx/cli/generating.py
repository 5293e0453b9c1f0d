"""`serve` and `generate`: what runs the model."""

# ruff: noqa: PLC0415 - imports wait until a command needs them
from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from scope_ltx.backend import SMALL, Backend
from scope_ltx.cli.hosting import host_options, read_host
from scope_ltx.cli.options import (
    config_options,
    engine_options,
    log_options,
    model_options,
    prompt_option,
    read_config,
    read_engine,
    user_errors,
)

REAL_PROMPT = "Waves roll onto a beach at dusk, warm light on wet sand, the sound of slow surf."
TOY_PROMPT = "a large red circle bounces steadily and below it a medium blue star stays still on a navy background"
"""In the words of the small model's world (scope_ltx/models/small/weights/README.md): it knows no beach."""


@click.command()
@model_options
@engine_options
@config_options
@log_options
@host_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@prompt_option(help="What to show and sound like first. Default: something that the model can draw.")
@click.pass_obj
def serve(
    backend: Backend,
    /,
    *,
    model: str,
    device: str,
    config_file: Path | None,
    assignments: tuple[str, ...],
    log_format: Any,
    log_level: str,
    host: str,
    port: int,
    prompt: str | None,
    vram_budget_gb: float | None,
    pageable: bool,
    acceleration: Any,
    **access: Any,
) -> None:
    """Stream to a browser until interrupted."""
    backend.start_logging(log_format, log_level)
    config = read_config(config_file, assignments)
    engine = read_engine(vram_budget_gb, pageable, acceleration)
    options = read_host(host, **access)
    for note in config.adjustments:
        click.echo(f"note: {note}", err=True)
    with user_errors(OSError):
        directory = backend.model_directory(model)
    with user_errors(ValueError):
        backend.check_device(device)
    with user_errors(OSError):
        backend.serve(
            directory,
            config,
            prompt or (TOY_PROMPT if model == SMALL else REAL_PROMPT),
            host=host,
            port=port,
            device=device,
            engine=engine,
            options=options,
        )


@click.command()
@model_options
@engine_options
@config_options
@prompt_option(required=True, help="What to show and sound like.")
@click.option("--chunks", default=1, show_default=True, type=click.IntRange(1), help="Chunks to generate.")
@click.option("--seed", type=int, help="The base seed. The same command gives the same clip.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .mp4 to write.")
@click.option("--dump-npz", type=click.Path(path_type=Path), help="Also write frames and samples unencoded.")
@click.pass_obj
def generate(
    backend: Backend,
    /,
    *,
    model: str,
    device: str,
    config_file: Path | None,
    assignments: tuple[str, ...],
    prompt: str,
    chunks: int,
    seed: int | None,
    output: Path,
    dump_npz: Path | None,
    **engine: Any,
) -> None:
    """Generate a clip as an MP4 file (H.264 and AAC)."""
    options = read_engine(**engine)
    config = read_config(config_file, assignments, **({} if seed is None else {"base_seed": seed}))
    from scope_ltx.generate import Destination, generate_clip

    with user_errors(ValueError):
        destination = Destination.checked(output, dump_npz)
    with user_errors(OSError):
        directory = backend.model_directory(model)
    with user_errors(ValueError):
        backend.check_device(device)
    with user_errors(OSError, ValueError, *backend.memory_errors()):
        pipeline = backend.load_pipeline(directory, device, options, config)
    with ExitStack() as stack:
        stack.enter_context(user_errors(OSError, *backend.memory_errors()))
        stack.enter_context(closing(pipeline))
        source = backend.open_session(pipeline, config, prompt)
        stack.callback(source.close_sources)
        click.echo(generate_clip(source, config, chunks, destination))
