"""What is there, what the hub has, and so what is to be done: decided before the first byte is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scope_ltx.download.digest import Digest
from scope_ltx.download.errors import DownloadError
from scope_ltx.download.hub import Hub, HubFile
from scope_ltx.download.pins import OWN_DIRECTORY
from scope_ltx.download.sizes import size_text
from scope_ltx.download.wanted import Wanted

NEWEST = "main"
SPARE_NBYTES = 1 << 30
"""Left free on the disk: logs, the record, and whatever else writes there meanwhile."""

State = Literal["present", "fetch", "replace", "differs"]


@dataclass(frozen=True)
class Item:
    """One wanted file. `hub` is None where the hub need not be asked.

    state: `differs` is a file that is there and is not the wanted one, to be left alone.
    damaged: its checksum was found to be wrong.
    """

    wanted: Wanted
    state: State
    damaged: bool = False
    hub: HubFile | None = None

    @property
    def to_fetch(self) -> bool:
        return self.state in ("fetch", "replace")

    @property
    def nbytes(self) -> int | None:
        return self.wanted.nbytes if self.hub is None else self.hub.nbytes


@dataclass(frozen=True)
class Plan:
    items: tuple[Item, ...]

    @property
    def to_fetch(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.to_fetch)

    @property
    def commits(self) -> dict[str, str]:
        """{repository: commit} of what is fetched: one for each, however many files."""
        return {item.wanted.repo: item.hub.commit for item in self.to_fetch if item.hub is not None}


def local_plan(wanted: Iterable[Wanted], *, replace_differing: bool, damaged: frozenset[Path]) -> Plan:
    """From names and sizes on the disk alone. `damaged`: files whose checksum is known to be wrong."""
    other: State = "replace" if replace_differing else "differs"
    return Plan(tuple(_local_item(file, other, file.target in damaged) for file in wanted))


def _local_item(file: Wanted, other: State, damaged: bool) -> Item:
    if not file.target.is_file():
        return Item(file, "fetch")
    as_published = file.nbytes in (None, file.target.stat().st_size)
    return Item(file, "present" if as_published and not damaged else other, damaged)


def ask_hub(plan: Plan, hub: Hub, revisions: Mapping[str, str]) -> Plan:
    """The plan with what the hub says of every file that is not simply there. Raises DownloadError.

    All files of a repository come from one commit: the first answer's. A file whose size is the hub's, though not
    the published one, counts as present.
    """
    commits = dict(revisions)
    items = []
    for item in plan.items:
        if item.state == "present":
            items.append(item)
            continue
        file = item.wanted
        found = hub.look(file.repo, file.repo_path, commits.get(file.repo, NEWEST))
        commits[file.repo] = found.commit
        there = item.state != "fetch" and not item.damaged
        same = there and file.target.stat().st_size == found.nbytes
        items.append(replace(item, hub=found, state="present" if same else item.state))
    return replace(plan, items=tuple(items))


def refuse_changed(plan: Plan, *, accept_changed: bool) -> None:
    """Raise DownloadError for files that the hub no longer has as they were published."""
    changed = [line for item in plan.to_fetch for line in _changes(item)]
    if changed and not accept_changed:
        raise DownloadError(
            f"the hub has other content than was published: {'; '.join(changed)}. "
            "Fetch it with `--accept-changed` if the repository's page explains it, or name the commit that has "
            "what was published with `--revision REPO=COMMIT`"
        )


def _changes(item: Item) -> Iterator[str]:
    file, hub = item.wanted, item.hub
    if hub is None:
        return
    if file.nbytes not in (None, hub.nbytes):
        yield f"{file.repo_path} in {file.repo} has {hub.nbytes:,} bytes, published were {file.nbytes:,}"
    elif file.sha256 and hub.digest and hub.digest.kind == "sha256" and hub.digest.value != file.sha256:
        yield f"{file.repo_path} in {file.repo} has sha256 {hub.digest.value}, published was {file.sha256}"


def refuse_differing(plan: Plan) -> None:
    """Raise DownloadError for files that are there and are not the wanted ones."""
    differing = [str(item.wanted.target) for item in plan.items if item.state == "differs"]
    if differing:
        raise DownloadError(
            f"already there, with another size or checksum than published: {', '.join(differing)}. "
            "Move them away, or fetch them again with `--replace`"
        )


def refuse_too_large(plan: Plan, free_nbytes: Mapping[Path, int]) -> None:
    """Raise DownloadError when the files do not fit. free_nbytes: of each root's disk."""
    for root, free in free_nbytes.items():
        items = [item for item in plan.to_fetch if item.wanted.root == root]
        needed = sum(item.nbytes or 0 for item in items) - staged_nbytes(items)
        if items and needed + SPARE_NBYTES > free:
            raise DownloadError(
                f"{root} has {size_text(free)} free; {size_text(needed)} are needed, and "
                f"{size_text(SPARE_NBYTES)} to spare. Make room, or choose another disk with --model"
            )


def expected_digests(item: Item) -> Sequence[Digest]:
    """What a fetched file must have: the hub's digest, and the published one where that is not the same thing."""
    hub = () if item.hub is None or item.hub.digest is None else (item.hub.digest,)
    if item.wanted.sha256 is None or any(digest.kind == "sha256" for digest in hub):
        return hub
    return (*hub, Digest("sha256", item.wanted.sha256))


def staging_directory(root: Path) -> Path:
    return root / OWN_DIRECTORY / "staging"


def part_path(item: Item) -> Path:
    """Where a file is collected, named by its content where that is known: another commit goes on with it."""
    if item.hub is None:
        raise ValueError(f"{item.wanted.path}: the hub was not asked")
    content = item.hub.digest.value if item.hub.digest else f"{item.hub.commit}-{Path(item.wanted.path).name}"
    return staging_directory(item.wanted.root) / f"{content}.part"


def staged_nbytes(items: Iterable[Item]) -> int:
    """What earlier runs have of these files already, unfinished."""
    parts = [part_path(item) for item in items if item.hub is not None]
    return sum(part.stat().st_size for part in parts if part.is_file())
