"""Uploaded files: bounded on their way in, checked in a child process, kept under generated names."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from scope_ltx.hosts.live.http.problems import BadFieldsError, FieldProblem, ProblemError
from scope_ltx.hosts.live.uploads.check import Checked, CheckLimits, RefusedFileError
from scope_ltx.hosts.live.uploads.kinds import HEAD_NBYTES, MEBI, TAKEN, FileType, Kind, Limits, sniff

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S = 90.0
UPLOAD_TIMEOUT_S = 600.0
"""512 MiB in ten minutes is 7 Mb/s; a sender that trickles must not hold a place for ever."""
LEFT_S = UPLOAD_TIMEOUT_S + CHECK_TIMEOUT_S
"""What was arriving and was not written to for so long is nobody's: its server was killed. A younger file may be
arriving at another server that shares the directory."""
MAX_AT_ONCE = 4
_NAME = re.compile(r"(image|audio|video)-[0-9a-f]{16}\.[a-z0-9]{3,4}")
_INCOMING = "incoming-"
_PASSED_ON = ("PATH", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "TEMP", "LD_LIBRARY_PATH", "VIRTUAL_ENV")

Check = Callable[[Path, CheckLimits], Awaitable[Checked]]


@dataclass(frozen=True)
class Stored:
    """A file that was taken. `path` is what a parameter is set to."""

    path: Path
    kind: Kind
    nbytes: int
    width: int | None = None
    height: int | None = None
    seconds: float | None = None


async def check_in_child(path: Path, limits: CheckLimits) -> Checked:
    """`uploads.check` in a process of its own, without this one's secrets. Raises RefusedFileError, also when that
    process crashes or takes longer than CHECK_TIMEOUT_S."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "scope_ltx.hosts.live.uploads.check", str(path), json.dumps(asdict(limits)),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )  # fmt: skip
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            output, _ = await child.communicate()
    except TimeoutError as error:
        raise RefusedFileError("decoding it takes too long: make it shorter or smaller") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        told = json.loads(output)
    except ValueError as error:
        logger.warning("the check of an upload ended with status %s", child.returncode)
        raise RefusedFileError("it cannot be decoded: it is damaged, or needs too much memory or time") from error
    if "refused" in told:
        raise RefusedFileError(told["refused"])
    return Checked(**told)


class UploadStore:
    """The directory of one server, made when the first file comes. Belongs to one event loop.

    When it is full, the oldest files that nothing uses make room. `in_use` tells which paths are named right now.
    """

    def __init__(
        self,
        directory: Path,
        in_use: Callable[[], Iterable[str]],
        limits: Limits | None = None,
        check: Check = check_in_child,
    ) -> None:
        self.directory = directory
        self._in_use = in_use
        self._limits = limits or Limits()
        self._check = check
        self._arriving: set[str] = set()
        self._checking = asyncio.Semaphore(1)

    async def add(self, body: AsyncIterator[bytes]) -> Stored:
        """Take a file. Raises ProblemError 400 for nothing, 408, 413, 415, 503 and 507; BadFieldsError 422 for a
        file that cannot be used."""
        if len(self._arriving) >= MAX_AT_ONCE:
            detail = f"{MAX_AT_ONCE} files are on their way already: try again"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "5"})
        key = secrets.token_hex(8)
        self._arriving.add(key)
        try:
            async with asyncio.timeout(UPLOAD_TIMEOUT_S):
                incoming, found = await self._receive(body, key)
                return await self._keep(incoming, found, key)
        except TimeoutError as error:
            detail = f"the file did not arrive within {UPLOAD_TIMEOUT_S / 60:g} minutes"
            raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, detail) from error
        except OSError as error:
            detail = f"the server cannot store the file: {error.strerror}"
            raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, detail) from error
        finally:
            self._arriving.remove(key)
            for left in self.directory.glob(f"{_INCOMING}{key}*"):
                left.unlink(missing_ok=True)

    def stored(self) -> list[Stored]:
        """What is there, the newest first."""
        found = {path: stat for path, stat in self._files().items() if _NAME.fullmatch(path.name)}
        newest_first = sorted(found, key=lambda path: found[path].st_mtime_ns, reverse=True)
        return [Stored(path, _kind_of(path), found[path].st_size) for path in newest_first]

    def remove(self, name: str) -> None:
        """Raises ProblemError 404 for a name that is not there, 409 for a file that a parameter names."""
        path = self.directory / name
        if not _NAME.fullmatch(name) or not path.is_file():
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such upload")
        if str(path.resolve()) in self._used():
            detail = "the stream uses this file: clear the parameter that names it first"
            raise ProblemError(HTTPStatus.CONFLICT, detail)
        path.unlink(missing_ok=True)

    async def _receive(self, body: AsyncIterator[bytes], key: str) -> tuple[Path, FileType]:
        head = b""
        async for piece in body:
            head += piece
            if len(head) >= HEAD_NBYTES:
                break
        if not head:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "the body is empty: send the file as the body")
        found = sniff(head[:HEAD_NBYTES])
        if found is None:
            detail = f"this is no file of a kind that is taken: {TAKEN}"
            raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{_INCOMING}{key}{found.suffix}"
        with path.open("xb") as file:
            self._remove_left(os.fstat(file.fileno()).st_mtime)
            await self._write(file, head, body, found)
        return path, found

    async def _write(self, file: BinaryIO, head: bytes, body: AsyncIterator[bytes], found: FileType) -> None:
        limit = self._limits.nbytes(found.kind)
        nbytes, waiting = 0, bytearray(head)
        async for piece in _and_end(body):
            waiting += piece or b""
            if nbytes + len(waiting) > limit:
                what = "an image" if found.kind == "image" else f"{found.kind} in one file"
                detail = f"{what} may have at most {limit // MEBI} MiB"
                raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            if len(waiting) >= MEBI or piece is None:
                self._make_room(len(waiting))
                # The event loop paces the stream: a slow disk must not hold it.
                await asyncio.to_thread(file.write, bytes(waiting))
                nbytes += len(waiting)
                waiting.clear()

    async def _keep(self, incoming: Path, found: FileType, key: str) -> Stored:
        limits = self._limits
        bounds = CheckLimits(
            found.demuxers, limits.image_pixels, limits.video_pixels, limits.audio_s, limits.video_s
        )
        try:
            async with self._checking:
                checked = await self._check(incoming, bounds)
        except RefusedFileError as error:
            raise BadFieldsError([FieldProblem(loc=["body"], msg=str(error))]) from error
        kept = self.directory / checked.file
        path = self.directory / f"{checked.kind}-{key}{kept.suffix}"
        kept.replace(path)
        nbytes = path.stat().st_size
        return Stored(path.resolve(), _kind_of(path), nbytes, checked.width, checked.height, checked.seconds)

    def _make_room(self, nbytes: int) -> None:
        """Raises ProblemError 507 when what must stay leaves no room."""
        found = self._files()
        total = sum(stat.st_size for stat in found.values()) + nbytes
        used = self._used()
        old = [path for path in found if _NAME.fullmatch(path.name) and str(path.resolve()) not in used]
        for path in sorted(old, key=lambda path: found[path].st_mtime_ns):
            if total <= self._limits.total_nbytes:
                return
            total -= found[path].st_size
            path.unlink()
            logger.info("the upload %s has made room for a newer one", path.name)
        if total > self._limits.total_nbytes:
            detail = f"uploads may take {self._limits.total_nbytes // MEBI} MiB together, and the stream uses them"
            raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, detail)

    def _remove_left(self, now_s: float) -> None:
        """What a server that was killed had taken in by then. `now_s` is the file system's own time."""
        for path, stat in self._files().items():
            # A clock that was set forward makes what arrives here look old, too.
            ours = any(path.name.startswith(f"{_INCOMING}{key}") for key in self._arriving)
            if path.name.startswith(_INCOMING) and stat.st_mtime < now_s - LEFT_S and not ours:
                path.unlink(missing_ok=True)
                logger.info("%s was left by a server that was killed, and is removed", path.name)

    def _files(self) -> dict[Path, os.stat_result]:
        found = {}
        for path in self.directory.iterdir() if self.directory.is_dir() else ():
            with suppress(FileNotFoundError):  # another upload's, which its check has renamed meanwhile
                found[path] = path.stat()
        return {path: stat for path, stat in found.items() if S_ISREG(stat.st_mode)}

    def _used(self) -> set[str]:
        return {str(Path(path).resolve()) for path in self._in_use()}


async def _and_end(body: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    async for piece in body:
        yield piece
    yield None


def _kind_of(path: Path) -> Kind:
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path.name} is no name of an upload")
    kind: Kind = found[1]  # type: ignore[assignment]
    return kind
