"""A whole download: what is there, what the hub has, whether it fits, then the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scope_ltx.download.digest import Digest
from scope_ltx.download.downloader import Downloader, Output
from scope_ltx.download.errors import DownloadError
from scope_ltx.download.hub import Hub
from scope_ltx.download.pins import read_record
from scope_ltx.download.plan import (
    NEWEST,
    Plan,
    ask_hub,
    local_plan,
    refuse_changed,
    refuse_differing,
    refuse_too_large,
)
from scope_ltx.download.report import plan_lines
from scope_ltx.download.wanted import Wanted
from scope_ltx.manifest import Manifest


@dataclass(frozen=True)
class Options:
    """verify: check what is there. replace: fetch again what is not as published. revisions: by repository."""

    dry_run: bool = False
    verify: bool = False
    replace: bool = False
    accept_changed: bool = False
    revisions: Mapping[str, str] = field(default_factory=dict)


def free_nbytes_on_disk(directory: Path) -> int:
    """Free bytes where the directory is, or will be. Raises OSError."""
    above = (directory.absolute(), *directory.absolute().parents)
    return shutil.disk_usage(next(path for path in above if path.exists())).free


def run_download(
    manifest: Manifest,
    wanted: Sequence[Wanted],
    hub: Hub,
    output: Output,
    options: Options,
    free_nbytes: Callable[[Path], int] = free_nbytes_on_disk,
) -> Plan:
    """Show the plan, then carry it out unless it is a dry run. Raises DownloadError and OSError.

    The hub is not asked when everything is there. A repository is held at the first of these that there is: the
    revision in the options, in plugin.toml, the commit that an earlier download recorded, its newest commit.
    """
    downloader = Downloader(hub, output)
    roots = dict.fromkeys(file.root for file in wanted)
    recorded = {repo: commit for root in roots for repo, commit in read_record(root).items()}
    held = {**recorded, **manifest.revisions, **options.revisions}
    damaged: frozenset[Path] = frozenset()
    if options.verify:
        damaged = downloader.find_damaged(wanted, _known_digests(wanted, hub, held))
    plan = local_plan(wanted, replace_differing=options.replace, damaged=damaged)
    try:
        plan = ask_hub(plan, hub, held)
    except DownloadError:
        _show(plan, manifest, output)  # with the published sizes
        raise
    _show(plan, manifest, output)
    refuse_differing(plan)
    refuse_changed(plan, accept_changed=options.accept_changed)
    refuse_too_large(plan, {root: free_nbytes(root) for root in roots})
    if options.dry_run:
        output.line("dry run: nothing was fetched")
    else:
        downloader.fetch(plan)
    return plan


def _known_digests(wanted: Sequence[Wanted], hub: Hub, held: Mapping[str, str]) -> dict[Path, Digest]:
    """Published checksums of the files that are there, and the hub's for those that have none."""
    found = {}
    for file in wanted:
        if not file.target.is_file():
            continue
        if file.sha256:
            digest: Digest | None = Digest("sha256", file.sha256)
        else:
            digest = hub.look(file.repo, file.repo_path, held.get(file.repo, NEWEST)).digest
        if digest is not None:
            found[file.target] = digest
    return found


def _show(plan: Plan, manifest: Manifest, output: Output) -> None:
    for line in plan_lines(plan, manifest):
        output.line(line)
