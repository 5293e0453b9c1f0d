"""The Hugging Face hub: what it says about one file, and that file on the disk. Its errors become sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from scope_ltx.download.digest import Digest, digest_of_etag
from scope_ltx.download.errors import DownloadError

_TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""What the HTTP library below raises: requests' error in huggingface_hub 0.x, httpx's from 1.0 on."""
TOKEN_COMMAND = "hf auth login"
TOKEN_PAGE = "settings/tokens"


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it. `digest` is None where the hub names the content in another way."""

    commit: str
    nbytes: int
    digest: Digest | None


class Hub(Protocol):
    """Both raise DownloadError."""

    def look(self, repo: str, path: str, revision: str) -> HubFile:
        """What the hub has at a branch, tag or commit. Fetches nothing."""

    def fetch(self, repo: str, path: str, found: HubFile, part: Path) -> None:
        """Append to `part` what it lacks of the file, or start it. What had arrived stays when this raises."""


class HuggingFaceHub:
    """Through huggingface_hub, with the token that it finds by itself (`hf auth login`, or HF_TOKEN).

    endpoint: another hub; None means HF_ENDPOINT, else huggingface.co.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")

    def look(self, repo: str, path: str, revision: str) -> HubFile:
        url = hf_hub_url(repo, path, revision=revision, endpoint=self._endpoint)
        with self._told(repo, path, revision):
            found = get_hf_file_metadata(url, endpoint=self._endpoint)
        if found.commit_hash is None or found.size is None:
            problem = "was answered without a commit and a size: this is no hub, or a proxy changes its answers"
            raise DownloadError(f"{url} {problem}. Check HF_ENDPOINT, --endpoint and HTTPS_PROXY")
        return HubFile(found.commit_hash, found.size, digest_of_etag(found.etag))

    def fetch(self, repo: str, path: str, found: HubFile, part: Path) -> None:
        # Not hf_hub_download: from huggingface_hub 2 on it throws an unfinished file away, and one here has 25 GB.
        # The resolve address, not the one it leads to: that one is signed and expires.
        url = hf_hub_url(repo, path, revision=found.commit, endpoint=self._endpoint)
        with self._told(repo, path, found.commit), part.open("ab") as file:
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=build_hf_headers(library_name="scope-ltx"),
                expected_size=found.nbytes,
                displayed_filename=Path(path).name,
            )

    @contextmanager
    def _told(self, repo: str, path: str, revision: str) -> Iterator[None]:
        try:
            yield
        except GatedRepoError as error:  # is a RepositoryNotFoundError too
            raise DownloadError(
                f"{repo} is gated: its licence must be accepted first. {self._access(repo)}"
            ) from error
        except RepositoryNotFoundError as error:
            raise DownloadError(
                f"{repo} is not there, or not for you: the hub does not tell which. {self._access(repo)}"
            ) from error
        except RevisionNotFoundError as error:
            raise DownloadError(
                f"{repo} has no revision {revision}. See {self._endpoint}/{repo}/commits/main and choose one with "
                f"`--revision {repo}=COMMIT`, or `--revision {repo}=main` for the newest"
            ) from error
        except EntryNotFoundError as error:
            raise DownloadError(
                f"{repo} has no file {path} at revision {revision}. See {self._endpoint}/{repo}/tree/{revision}"
            ) from error
        except OfflineModeIsEnabled as error:
            raise DownloadError("HF_HUB_OFFLINE is set, so nothing is fetched. Unset it") from error
        except HfHubHTTPError as error:
            raise self._refused(repo, error) from error
        except (_TRANSPORT_ERROR, ConnectionError, TimeoutError) as error:
            raise self._unreachable(error) from error
        except OSError as error:
            if error.errno is not None:  # the disk, not the network
                raise
            raise self._unreachable(error) from error

    def _access(self, repo: str) -> str:
        """The licence page and the token command."""
        return (
            f"Open {self._endpoint}/{repo}, accept the licence if it asks, make a token with read access at "
            f"{self._endpoint}/{TOKEN_PAGE}, store it with `{TOKEN_COMMAND}` (or set HF_TOKEN), and run this again"
        )

    def _refused(self, repo: str, error: HfHubHTTPError) -> DownloadError:
        status = error.response.status_code
        if status in (401, 403):
            return DownloadError(f"the hub refuses {repo} to this token (status {status}). {self._access(repo)}")
        return DownloadError(f"the hub answered with status {status} for {repo}. Run this again later: it goes on")

    def _unreachable(self, error: BaseException) -> DownloadError:
        return DownloadError(
            f"{self._endpoint} cannot be reached, or broke off ({type(error).__name__}). Check the network, "
            "HF_ENDPOINT and HTTPS_PROXY, and run this again: it goes on where it stopped"
        )
