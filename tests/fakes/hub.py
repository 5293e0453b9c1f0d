"""A Hugging Face hub on loopback: its resolve endpoint, redirects, ETags, ranges, refusals; from bytes in memory.

Large files come from a second server, as the real hub's do: the library follows no redirect to another address
while it asks for a file's facts.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SMALL_FILE_NBYTES = 100
"""Up to here a file is kept in git: named by its blob's SHA-1 and not redirected."""


@dataclass
class FakeRepo:
    """`commits` maps a commit to its files; `main` is the newest. A gated one wants a token."""

    commits: dict[str, dict[str, bytes]]
    main: str
    gated: bool = False


@dataclass
class FakeHub:
    """What is there, and what was asked of it: (method, path, range or None)."""

    repos: dict[str, FakeRepo] = field(default_factory=dict)
    token: str = "hf_right"
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens_seen_by_cdn: list[str] = field(default_factory=list)
    break_after_nbytes: int | None = None
    """The next large transfer ends here, and those after it are refused until this is None again."""
    broken: bool = False
    cdn_address: str = ""
    damage: bool = False
    """Large transfers arrive with their last byte changed."""
    is_hub: bool = True
    """False: a web server that answers anything with a page."""
    ignore_ranges: bool = False
    """Answer with the whole file whatever part was asked for, as some proxies do."""
    anonymous_etags: bool = False
    """ETags that name no content, as a mirror may send."""

    def add(self, repo: str, files: dict[str, bytes], *, gated: bool = False) -> str:
        """A new commit of a repository, which becomes its main. Returns the commit."""
        count = sum(len(found.commits) for found in self.repos.values())
        commit = hashlib.sha1(f"{repo} {count}".encode()).hexdigest()
        known = self.repos.setdefault(repo, FakeRepo({}, commit, gated))
        known.commits[commit] = files
        known.main = commit
        return commit

    @property
    def transfers(self) -> list[str]:
        return [path for method, path, _ in self.requests if method == "GET"]


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            parts = self.path.strip("/").split("/")
            if parts[0] == "cdn":
                hub.tokens_seen_by_cdn += self.headers.get_all("Authorization", [])
                self._cdn(parts[1])
            elif not hub.is_hub:
                self._send(200, {}, b"<html>")
            elif len(parts) > 4 and parts[2] == "resolve":
                self._resolve(f"{parts[0]}/{parts[1]}", parts[3], "/".join(parts[4:]))
            else:
                self._send(404)

        def _resolve(self, name: str, revision: str, path: str) -> None:
            repo, authorized = hub.repos.get(name), f"Bearer {hub.token}" == self.headers.get("Authorization")
            if repo is None:
                return self._send(401, {"X-Error-Code": "RepoNotFound"})
            if repo.gated and not authorized:
                return self._send(401, {"X-Error-Code": "GatedRepo"})
            commit = repo.main if revision == "main" else revision
            if commit not in repo.commits:
                return self._send(404, {"X-Error-Code": "RevisionNotFound"})
            data = repo.commits[commit].get(path)
            if data is None:
                return self._send(404, {"X-Error-Code": "EntryNotFound"})
            headers = {"X-Repo-Commit": commit}
            if len(data) <= SMALL_FILE_NBYTES:
                etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                return self._send(200, {**headers, "ETag": f'"{etag}"'}, data)
            digest = hashlib.sha256(data).hexdigest()
            etag = "12-ab" if hub.anonymous_etags else digest
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
            return self._send(302, {**headers, **linked, "Location": f"{hub.cdn_address}/cdn/{digest}"})

        def _cdn(self, digest: str) -> None:
            if hub.broken:
                return self._send(404)
            every = [
                data for repo in hub.repos.values() for files in repo.commits.values() for data in files.values()
            ]
            data = next(data for data in every if hashlib.sha256(data).hexdigest() == digest)
            if hub.damage:
                data = data[:-1] + bytes([data[-1] ^ 1])
            asked = None if hub.ignore_ranges else self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
            return self._send(206 if asked else 200, headers, data[start:], breaks=True)

        def _send(
            self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", *, breaks: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if breaks and hub.break_after_nbytes is not None:
                hub.broken, self.close_connection = True, True
                body = body[: hub.break_after_nbytes]
            self.wfile.write(body)

    return Handler


@contextmanager
def serve_hub(hub: FakeHub) -> Iterator[str]:
    """The hub's address while the block runs."""
    with _serve(hub) as cdn, _serve(hub) as address:
        hub.cdn_address = cdn
        yield address


@contextmanager
def _serve(hub: FakeHub) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
