"""The `scope-ltx` command: serve, generate, doctor, inspect.

Every command imports what it needs when it runs. A mistake of the user's ends with one message and status 2.
"""

# ruff: noqa: PLC0415 - imports wait until a command needs them
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scope_ltx import __version__
from scope_ltx.backend import SMALL, Backend, LibraryBackend
from scope_ltx.errors import ScopeLtxError

if TYPE_CHECKING:
    from scope_ltx.config import LTX2Config
    from scope_ltx.engine import EngineOptions

DEFAULT_PROMPT = "Waves roll onto a beach at dusk, warm light on wet sand, the sound of slow surf."

Command = TypeVar("Command", bound=Callable[..., Any])


class UserError(click.ClickException):
    """Prints "Error: ..." and exits with 2, like a wrong option does."""

    exit_code = 2


@contextmanager
def user_errors(*also: type[Exception]) -> Iterator[None]:
    """Turn ScopeLtxError and `also`, whose text is fit for a user, into a UserError; others pass."""
    kinds: tuple[type[Exception], ...] = (ScopeLtxError, *also)
    try:
        yield
    except kinds as error:
        raise UserError(_text_of(error)) from error


def _text_of(error: Exception) -> str:
    """An OSError without its number, which says nothing to a user."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def model_options(command: Command) -> Command:
    """--model and --device, the same for every command that has them."""
    model = click.option(
        "--model",
        default=SMALL,
        show_default=True,
        metavar="small|DIR",
        help=f"'{SMALL}' (built on first use), or a directory with the published model files.",
    )
    device = click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]",
        help="auto takes the first CUDA device, else the CPU.",
    )
    return model(device(command))


def engine_options(command: Command) -> Command:
    """How the model is run: memory and acceleration."""
    budget = click.option(
        "--vram-budget-gb",
        type=float,
        metavar="GIB",
        help="Device memory to use, in GiB; the rest of the model is streamed. Default: what is free.",
    )
    pageable = click.option(
        "--pageable", is_flag=True, help="Do not lock host memory: for hosts that forbid it. Copies are slower."
    )
    acceleration = click.option(
        "--acceleration",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "off", "graphs", "compile"]),
        help="CUDA graphs, and compiled blocks that take over when they are ready.",
    )
    return budget(pageable(acceleration(command)))


def read_engine(vram_budget_gb: float | None, pageable: bool, acceleration: Any) -> EngineOptions:
    """Raises UserError for a budget that makes no sense."""
    from scope_ltx.engine import EngineOptions

    with user_errors(ValueError):
        return EngineOptions(vram_budget_gb, pageable, acceleration)


def config_options(command: Command) -> Command:
    """--config and --set, the same for every command that generates."""
    file = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="Parameters as a .toml or .json file.",
    )
    assignment = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="NAME=VALUE",
        help="One parameter, over the file's: --set num_steps=4. Repeatable.",
    )
    return file(assignment(command))


def prompt_option(**settings: Any) -> Callable[[Command], Command]:
    """--prompt, refused when a stream would refuse it."""

    def check(_context: click.Context, _option: click.Parameter, value: str) -> str:
        from scope_ltx.session import checked_prompt

        try:
            return checked_prompt(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return click.option("--prompt", callback=check, **settings)


def read_config(config_file: Path | None, assignments: tuple[str, ...], **fixed: Any) -> LTX2Config:
    """The configuration of a command. Raises UserError naming the file and the field."""
    from scope_ltx.config_file import load_config, parse_assignment
    from scope_ltx.support import refuse_unsupported

    with user_errors(ValueError):
        overrides = dict(parse_assignment(text) for text in assignments)
        config = load_config(config_file, {**overrides, **fixed})
        refuse_unsupported(config)
    return config


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scope-ltx")
@click.pass_context
def main(context: click.Context) -> None:
    """Real-time LTX-2.3: joint audio and video, chunk after chunk."""
    if context.obj is None:
        context.obj = LibraryBackend()


@main.command()
@model_options
@engine_options
@config_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@prompt_option(default=DEFAULT_PROMPT, show_default=True, help="What to show and sound like first.")
@click.pass_obj
def serve(
    backend: Backend,
    /,
    *,
    model: str,
    device: str,
    config_file: Path | None,
    assignments: tuple[str, ...],
    host: str,
    port: int,
    prompt: str,
    **engine: Any,
) -> None:
    """Stream to a browser until interrupted."""
    config = read_config(config_file, assignments)
    options = read_engine(**engine)
    for note in config.adjustments:
        click.echo(f"note: {note}", err=True)
    with user_errors(OSError):
        directory = backend.model_directory(model)
    with user_errors(ValueError):
        backend.check_device(device)
    with user_errors(OSError):
        backend.serve(directory, config, prompt, host=host, port=port, device=device, engine=options)


@main.command()
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
    with user_errors(OSError, *backend.memory_errors()), closing(pipeline):
        source = backend.open_session(pipeline, config, prompt)
        click.echo(generate_clip(source, config, chunks, destination))


@main.command()
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def doctor(backend: Backend, *, model: str, device: str, as_json: bool) -> None:
    """Check the device, the libraries and the model files. Status 1 when something is wrong."""
    from scope_ltx.doctor import examine

    report = examine(_examined(backend, model), backend.probe(device))
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else report.as_text())
    if report.problems:
        raise SystemExit(1)


def _examined(backend: Backend, model: str) -> Path | str:
    """The directory to look at, complete or not; a sentence when the small model cannot be written."""
    if model != SMALL:
        return Path(model)
    try:
        return backend.model_directory(model)
    except (ScopeLtxError, OSError) as error:
        return f"the small model cannot be written: {_text_of(error)}"


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(file: Path, *, as_json: bool) -> None:
    """Tell what a .safetensors FILE is, from its header."""
    from scope_ltx.inspect_file import inspect_file

    with user_errors():
        report = inspect_file(file)
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else report.as_text())
