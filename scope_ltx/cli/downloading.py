"""`download`: fetches model files from the Hugging Face hub."""

# ruff: noqa: PLC0415 - imports wait until a command needs them
from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scope_ltx.backend import SMALL
from scope_ltx.cli.options import UserError, user_errors

if TYPE_CHECKING:
    from scope_ltx.download.wanted import Wanted
    from scope_ltx.manifest import Manifest


class Terminal:
    """Lines on stdout, progress bars on stderr where that is a terminal."""

    def line(self, text: str) -> None:
        click.echo(text)

    @contextmanager
    def hashing(self, name: str, nbytes: int) -> Iterator[Callable[[int], None]]:
        label = f"checking {Path(name).name}"
        with click.progressbar(length=nbytes, label=label, file=sys.stderr) as bar:
            yield bar.update


def _revisions(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """ "owner/name=commit", repeated."""
    found = {}
    for value in values:
        repo, equals, revision = value.partition("=")
        if not (repo.count("/") == 1 and equals and revision):
            raise click.BadParameter(f"expected OWNER/NAME=REVISION, got {value!r}")
        found[repo] = revision
    return found


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Model directory to fill. Default: where the Scope host keeps its files, shared with it.",
)
@click.option("--two-stage", is_flag=True, help="Also the latent upsampler that two_stage needs.")
@click.option("--control", is_flag=True, help="Also the models that draw depth maps and poses.")
@click.option("--lora", "loras", multiple=True, metavar="NAME", help="Also this LoRA, an id of `scope-ltx loras`.")
@click.option(
    "--lora-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where LoRAs go. Default: loras/ in the model directory. The Scope app lists those in models/lora.",
)
@click.option("--only-loras", is_flag=True, help="The LoRAs alone, not the model.")
@click.option("--dry-run", is_flag=True, help="Tell what would be fetched, and fetch nothing.")
@click.option("--verify", is_flag=True, help="Check the files that are there against their checksums.")
@click.option("--replace", is_flag=True, help="Fetch again what is there with another size or checksum.")
@click.option("--accept-changed", is_flag=True, help="Fetch what the hub has with other content than published.")
@click.option(
    "--revision",
    "revisions",
    multiple=True,
    callback=_revisions,
    metavar="REPO=REVISION",
    help="A commit, tag or branch of a repository. Default: the commit that the first download recorded.",
)
@click.option("--endpoint", metavar="URL", help="Another hub, such as a mirror. Default: HF_ENDPOINT.")
def download(
    *,
    model: Path | None,
    two_stage: bool,
    control: bool,
    loras: tuple[str, ...],
    lora_dir: Path | None,
    only_loras: bool,
    dry_run: bool,
    verify: bool,
    replace: bool,
    accept_changed: bool,
    revisions: dict[str, str],
    endpoint: str | None,
) -> None:
    """Fetch the model files from Hugging Face.

    42.6 GB for the model. What is there already is kept, what was interrupted goes on, and every file is checked
    before it is put in place.
    """
    from scope_ltx.download.hub import HuggingFaceHub
    from scope_ltx.download.run import Options, run_download
    from scope_ltx.manifest import load_manifest
    from scope_ltx.model_directory import host_model_directory, model_directory

    if model == Path(SMALL):
        raise UserError(
            f"the model {SMALL!r} is built on first use. To fill a directory of that name, give its whole path"
        )
    manifest = load_manifest()
    options = Options(dry_run, verify, replace, accept_changed, revisions)
    with user_errors(ValueError, OSError):
        default = host_model_directory(os.environ)
        directory = default if model in (None, default.parent) else model_directory(model or default)
        wanted = _wanted(manifest, directory, two_stage, control, loras, lora_dir, only_loras)
        click.echo(f"model files below {directory}")
        try:
            run_download(manifest, wanted, HuggingFaceHub(endpoint), Terminal(), options)
        except KeyboardInterrupt:
            click.echo("stopped: the same command goes on where it was", err=True)
            raise
    if not dry_run and not only_loras:
        click.echo(f"ready: scope-ltx serve --model {shlex.quote(str(directory))}")


def _wanted(
    manifest: Manifest,
    directory: Path,
    two_stage: bool,
    control: bool,
    loras: tuple[str, ...],
    lora_dir: Path | None,
    only_loras: bool,
) -> list[Wanted]:
    from scope_ltx.download.wanted import control_files, lora_files, model_files, upsampler_file

    if only_loras and (two_stage or control or not loras):
        raise UserError("--only-loras needs at least one --lora, and neither --two-stage nor --control")
    return [
        *([] if only_loras else model_files(manifest, directory)),
        *([upsampler_file(manifest, directory)] if two_stage else []),
        *(control_files(manifest.control_models, directory) if control else []),
        *lora_files(manifest, loras, directory, lora_dir),
    ]
