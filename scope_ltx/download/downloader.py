"""Fetches what a plan says: one file at a time, checked before it gets its name. A run can stop anywhere."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from scope_ltx.download.digest import Digest, digest_file
from scope_ltx.download.errors import DownloadError
from scope_ltx.download.hub import Hub
from scope_ltx.download.pins import OWN_DIRECTORY, write_record
from scope_ltx.download.plan import Item, Plan, expected_digests, part_path, staging_directory
from scope_ltx.download.sizes import size_text
from scope_ltx.download.wanted import Wanted


class Output(Protocol):
    """Where a person follows the work."""

    def line(self, text: str) -> None: ...

    def hashing(self, name: str, nbytes: int) -> AbstractContextManager[Callable[[int], None]]:
        """A progress bar; what it gives is called with the bytes that were read."""


@dataclass(frozen=True)
class Downloader:
    """Puts files below the roots of a plan."""

    hub: Hub
    output: Output

    def fetch(self, plan: Plan) -> None:
        """Fetch, check and put in place. Raises DownloadError and OSError; what is in place by then stays."""
        todo = plan.to_fetch
        roots = list(dict.fromkeys(item.wanted.root for item in todo))
        with _only_one(roots):
            for number, item in enumerate(todo, start=1):
                self.output.line(f"{number}/{len(todo)}  {item.wanted.path}  {size_text(item.nbytes)}")
                self._fetch_one(item)
                if item.hub is not None:
                    write_record(item.wanted.root, {item.wanted.repo: item.hub.commit})
            for root in roots:
                _remove_if_empty(staging_directory(root))

    def _fetch_one(self, item: Item) -> None:
        file, hub = item.wanted, item.hub
        if hub is None:
            raise DownloadError(f"{file.path} was planned without asking the hub")
        part = part_path(item)
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file() and part.stat().st_size > hub.nbytes:
            part.unlink()  # of something else: it cannot be completed
        with _disk_full_told(file.root, part, hub.nbytes):
            self.hub.fetch(file.repo, file.repo_path, hub, part)
        digests = expected_digests(item)
        problem = self._problem(part, hub.nbytes, digests, file)
        if problem:
            part.unlink()
            raise DownloadError(f"{file.repo_path} from {file.repo} {problem}. It was deleted: run this again")
        if not digests:
            self.output.line(f"note: nobody names a checksum of {file.path}, so only its size was checked")
        file.target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(file.target)

    def _problem(self, path: Path, nbytes: int, digests: Sequence[Digest], file: Wanted) -> str | None:
        found = path.stat().st_size
        if found != nbytes:
            return f"arrived with {found:,} bytes, expected {nbytes:,}"
        for expected in digests:
            digest = self._digest(path, expected, file)
            if digest != expected:
                return f"arrived damaged: {digest}, expected {expected}"
        return None

    def find_damaged(self, wanted: Sequence[Wanted], digests: Mapping[Path, Digest]) -> frozenset[Path]:
        """Those of the files that are there whose checksum is another than the one in `digests`."""
        there = [file for file in wanted if file.target in digests and file.target.is_file()]
        return frozenset(
            file.target
            for file in there
            if self._digest(file.target, digests[file.target], file) != digests[file.target]
        )

    def _digest(self, path: Path, expected: Digest, file: Wanted) -> Digest:
        with self.output.hashing(file.path, path.stat().st_size) as advance:
            return digest_file(path, expected.kind, advance)


def _remove_if_empty(directory: Path) -> None:
    """Unfinished files of another selection stay for the run that asks for them."""
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


@contextmanager
def _disk_full_told(root: Path, part: Path, nbytes: int) -> Iterator[None]:
    """The plan left room, but others write to the disk too, and a quota may be smaller than what is free."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        arrived = part.stat().st_size if part.is_file() else 0
        raise DownloadError(
            f"no space is left below {root}: {size_text(arrived)} of {size_text(nbytes)} had arrived and is kept. "
            f"Make room for {size_text(max(nbytes - arrived, 0))}, and run this again: it goes on there"
        ) from error


@contextmanager
def _only_one(roots: Sequence[Path]) -> Iterator[None]:
    """Hold the roots' locks: two runs would fetch into the same unfinished files."""
    with ExitStack() as held:
        for root in roots:
            lock = root / OWN_DIRECTORY / "lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(FileLock(lock, timeout=0))
            except Timeout as error:
                raise DownloadError(f"another download into {root} is running. Wait for it, or stop it") from error
        yield
