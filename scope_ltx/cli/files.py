"""`doctor`, `inspect`, `loras` and `quantize`: what looks at files and writes them."""

# ruff: noqa: PLC0415 - imports wait until a command needs them
from __future__ import annotations

import json
from pathlib import Path

import click

from scope_ltx.backend import SMALL, Backend
from scope_ltx.cli.options import UserError, model_options, text_of, user_errors
from scope_ltx.errors import ScopeLtxError


@click.command()
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
        from scope_ltx.model_directory import model_directory

        return model_directory(Path(model))
    try:
        return backend.model_directory(model)
    except (ScopeLtxError, OSError) as error:
        return f"the small model cannot be written: {text_of(error)}"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(file: Path, *, as_json: bool) -> None:
    """Tell what a .safetensors FILE is, from its header."""
    from scope_ltx.inspect_file import inspect_file

    with user_errors():
        report = inspect_file(file)
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else report.as_text())


@click.command()
@click.argument("name", required=False)
@click.option("--model", metavar="small|DIR", help="Mark the files that are below this model directory.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every known field.")
@click.pass_obj
def loras(backend: Backend, *, name: str | None, model: str | None, as_json: bool) -> None:
    """List the LoRAs of the catalog, or all that is known of the one called NAME (an id or a file)."""
    from scope_ltx.catalog import find_files, load_catalog, lora_card, lora_table

    models = None if model is None else _directory(backend, model)
    catalog = load_catalog()
    with user_errors(ValueError):
        chosen = catalog.loras if name is None else (catalog.find(name),)
    if as_json:
        found = {} if models is None else find_files(chosen, models)
        facts = [{**lora.model_dump(mode="json"), "present": _shown(found.get(lora.id))} for lora in chosen]
        click.echo(json.dumps(facts if name is None else facts[0], indent=2))
    else:
        click.echo("\n".join(lora_table(chosen, models) if name is None else lora_card(chosen[0], models)))


def _directory(backend: Backend, model: str) -> Path:
    """A model directory, whether or not all files are there. Raises UserError."""
    if model == SMALL:
        with user_errors(OSError):
            return backend.model_directory(model)
    if not Path(model).is_dir():
        raise UserError(f"{model} is no directory: give --model a directory, or `{SMALL}`")
    return Path(model)


def _shown(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _blocks(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """ "0,1,46,47" or "none"."""
    if value is None:
        return None
    parts = [] if value.strip() == "none" else value.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"expected block numbers such as 0,1,46,47, or none, got {value!r}")
    return tuple(int(part) for part in parts)


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("directory", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--keep-blocks",
    callback=_blocks,
    metavar="0,1,...|none",
    help="Blocks that stay in bfloat16. Default: the first two and the last two.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where weights are quantized."
)
@click.pass_obj
def quantize(
    backend: Backend,
    /,
    *,
    source: Path,
    directory: Path,
    keep_blocks: tuple[int, ...] | None,
    overwrite: bool,
    device: str,
) -> None:
    """Write a bfloat16 checkpoint IN as split FP8 files into the model directory OUT.

    IN is a complete checkpoint of Lightricks (dev or distilled), or a transformer file.
    """
    with user_errors(ValueError):
        backend.check_device(device)
    from scope_ltx.cli.quantizing import quantize_files
    from scope_ltx.pipeline import resolve_device

    with user_errors(ValueError, OSError):
        report = quantize_files(source, directory, keep_blocks, overwrite, resolve_device(device))
    click.echo(report.as_text())
