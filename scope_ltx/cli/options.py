"""Options that several commands share, and how a user's mistake becomes one message and status 2."""

# ruff: noqa: PLC0415 - imports wait until a command needs them
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scope_ltx.backend import SMALL
from scope_ltx.errors import ScopeLtxError

if TYPE_CHECKING:
    from scope_ltx.config import LTX2Config
    from scope_ltx.engine import EngineOptions

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
        raise UserError(text_of(error)) from error


def text_of(error: Exception) -> str:
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


def _options_from_file(context: click.Context, option: click.Parameter, value: Path | None) -> Path | None:
    """The file's table for this command gives what the command line does not."""
    from scope_ltx.config_file import SERVE, read_serving

    if value is None or context.command.name != SERVE:
        return value
    with user_errors(ValueError):
        given = read_serving(value)
    known = {parameter.name for parameter in context.command.params} - {option.name, "assignments"}
    if unknown := sorted(given.keys() - known):
        raise UserError(f"{value}: [{SERVE}] has no {', '.join(unknown)}: it may have {', '.join(sorted(known))}")
    context.default_map = given
    return value


def log_options(command: Command) -> Command:
    """--log-format and --log-level, for what runs for long."""
    form = click.option(
        "--log-format",
        default="text",
        show_default=True,
        type=click.Choice(["text", "json"]),
        help="json: one object per line, one line per chunk.",
    )
    level = click.option(
        "--log-level",
        default="warning",
        show_default=True,
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="info has one line per chunk.",
    )
    return form(level(command))


def config_options(command: Command) -> Command:
    """--config and --set, the same for every command that generates."""
    file = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        is_eager=True,
        callback=_options_from_file,
        help="Parameters as a .toml or .json file. Its table [serve] holds options of that command.",
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

    def check(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        from scope_ltx.prompt_mix import checked_prompt

        try:
            return checked_prompt(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return click.option("--prompt", callback=check, **settings)


def read_config(config_file: Path | None, assignments: tuple[str, ...], **fixed: Any) -> LTX2Config:
    """The configuration of a command. Raises UserError naming the file and the field."""
    from scope_ltx.config_file import load_config, parse_assignment

    with user_errors(ValueError):
        overrides = dict(parse_assignment(text) for text in assignments)
        return load_config(config_file, {**overrides, **fixed})
