"""Downloading model files, against a hub on loopback through the real huggingface_hub."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from scope_ltx.download.digest import Digest, digest_file, digest_of_etag
from scope_ltx.download.errors import DownloadError
from scope_ltx.download.hub import HubFile, HuggingFaceHub
from scope_ltx.download.pins import read_record, record_path, write_record
from scope_ltx.download.run import Options, free_nbytes_on_disk, run_download
from scope_ltx.download.sizes import size_text
from scope_ltx.download.wanted import Wanted
from scope_ltx.manifest import load_manifest
from tests.fakes.downloads import NOWHERE, REPO, SMALL, WEIGHTS, Lines, config, run, sha256, weights
from tests.fakes.hub import FakeHub, serve_hub


@pytest.fixture
def hub() -> FakeHub:
    fake = FakeHub()
    fake.add(REPO, {"vae/weights.safetensors": WEIGHTS, "config.json": SMALL})
    return fake


@pytest.fixture
def address(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")  # and no token of whoever runs the tests
    with serve_hub(hub) as found:
        yield found


def test_files_are_fetched_checked_and_recorded(address: str, hub: FakeHub, tmp_path: Path) -> None:
    output = Lines()
    run(address, weights(tmp_path), config(tmp_path), output=output)
    assert (tmp_path / "vae/weights.safetensors").read_bytes() == WEIGHTS
    assert (tmp_path / "control/config.json").read_bytes() == SMALL
    commit = hub.repos[REPO].main
    assert read_record(tmp_path) == {REPO: commit}
    assert output.hashed == [("vae/weights.safetensors", len(WEIGHTS)), ("control/config.json", len(SMALL))]
    assert "10.3 kB to fetch in 2 files" in output.lines[2]
    assert f"revision  {REPO} at {commit}" in output.lines
    assert {path.name for path in (tmp_path / ".scope-ltx").iterdir()} == {"lock", "revisions.json"}


def test_sizes_come_before_the_first_byte_and_a_dry_run_has_only_them(
    address: str, hub: FakeHub, tmp_path: Path
) -> None:
    output = Lines()
    plan = run(address, weights(tmp_path), output=output, dry_run=True)
    assert [item.state for item in plan.items] == ["fetch"]
    assert output.lines[0] == f"  fetch     10.2 kB  vae/weights.safetensors  ({REPO})"
    assert output.lines[-1] == "dry run: nothing was fetched"
    assert hub.transfers == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_asked_for(tmp_path: Path) -> None:
    weights(tmp_path).target.parent.mkdir()
    weights(tmp_path).target.write_bytes(WEIGHTS)
    output = Lines()
    run(NOWHERE, weights(tmp_path), output=output)
    assert output.lines[-1] == "nothing to fetch"
    assert not (tmp_path / ".scope-ltx").exists()


def test_an_interrupted_file_goes_on_where_it_stopped(address: str, hub: FakeHub, tmp_path: Path) -> None:
    """The library writes 10 MiB at a time, so what is lost is less than that."""
    large = WEIGHTS * 2_000
    hub.add(REPO, {"vae/weights.safetensors": large})
    wanted = weights(tmp_path, nbytes=len(large), digest=sha256(large))
    hub.break_after_nbytes = 15_000_000
    with pytest.raises(DownloadError, match=r"Run this again|run this again"):
        run(address, wanted)
    assert not wanted.target.exists()
    hub.break_after_nbytes, hub.broken, output = None, False, Lines()
    hub.requests.clear()
    run(address, wanted, output=output, free=len(large) + (1 << 30) - 10 * 2**20)
    assert wanted.target.read_bytes() == large
    starts = [ranges for _, path, ranges in hub.requests if path.startswith("/cdn/")]
    assert starts == [f"bytes={10 * 2**20}-"]
    assert "20.5 MB to fetch in 1 file, 10.5 MB of it already here" in output.lines


def test_a_part_is_useless_to_a_server_that_ignores_ranges(address: str, hub: FakeHub, tmp_path: Path) -> None:
    part = tmp_path / ".scope-ltx/staging" / f"{sha256(WEIGHTS)}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:100])
    hub.ignore_ranges = True
    run(address, weights(tmp_path))
    assert weights(tmp_path).target.read_bytes() == WEIGHTS


@pytest.mark.parametrize("left", [WEIGHTS, WEIGHTS + b"more"])
def test_a_part_that_is_complete_or_too_long(address: str, hub: FakeHub, tmp_path: Path, left: bytes) -> None:
    part = tmp_path / ".scope-ltx/staging" / f"{sha256(WEIGHTS)}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    run(address, weights(tmp_path))
    assert weights(tmp_path).target.read_bytes() == WEIGHTS
    assert len(hub.transfers) == (0 if left == WEIGHTS else 2)


def test_a_file_that_arrives_damaged_gets_no_name(address: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.damage = True
    with pytest.raises(DownloadError, match=r"weights.safetensors from .* arrived damaged: sha256 [0-9a-f]{64}"):
        run(address, weights(tmp_path))
    assert not weights(tmp_path).target.exists()
    assert not list(tmp_path.rglob("*.part"))
    hub.damage = False
    run(address, weights(tmp_path))
    assert weights(tmp_path).target.read_bytes() == WEIGHTS


def test_another_commit_is_not_taken_unasked(address: str, hub: FakeHub, tmp_path: Path) -> None:
    """The first download records its commit; a later one of the same repository stays there."""
    run(address, weights(tmp_path))
    old = hub.repos[REPO].main
    new = hub.add(REPO, {"vae/weights.safetensors": WEIGHTS, "config.json": b"changed"})
    run(address, config(tmp_path))
    assert config(tmp_path).target.read_bytes() == SMALL
    assert read_record(tmp_path) == {REPO: old}
    config(tmp_path).target.unlink()
    run(address, config(tmp_path), revisions={REPO: "main"})
    assert config(tmp_path).target.read_bytes() == b"changed"
    assert read_record(tmp_path) == {REPO: new}


def test_the_products_own_pin_goes_before_the_record_and_is_overruled_by_a_person(
    address: str, hub: FakeHub, tmp_path: Path
) -> None:
    first = hub.repos[REPO].main
    second = hub.add(REPO, {"config.json": b"second"})
    hub.add(REPO, {"config.json": b"third"})
    pinned = load_manifest().model_copy(update={"revisions": {REPO: second}})
    wanted, asked = config(tmp_path), Options(revisions={REPO: first})
    for options, expected in ((Options(), b"second"), (asked, SMALL), (Options(), b"second")):
        run_download(pinned, [wanted], HuggingFaceHub(address), Lines(), options, lambda _: 10**12)
        assert wanted.target.read_bytes() == expected
        wanted.target.unlink()


def test_all_files_of_a_repository_come_from_one_commit(address: str, hub: FakeHub, tmp_path: Path) -> None:
    run(address, weights(tmp_path), config(tmp_path))
    looked = [path for method, path, _ in hub.requests if method == "HEAD"]
    assert looked[0] == f"/{REPO}/resolve/main/vae/weights.safetensors"
    assert looked[1] == f"/{REPO}/resolve/{hub.repos[REPO].main}/config.json"
    assert all("/main/" not in path for path in hub.transfers)


@pytest.mark.parametrize(
    ("nbytes", "digest", "told"),
    [
        (len(WEIGHTS) + 1, None, "has 10,240 bytes, published were 10,241"),
        (None, "0" * 64, f"has sha256 {sha256(WEIGHTS)}, published was 0000"),
    ],
)
def test_content_that_is_not_as_published_is_not_fetched_unasked(
    nbytes: int | None, digest: str | None, told: str, address: str, hub: FakeHub, tmp_path: Path
) -> None:
    wanted = weights(tmp_path, nbytes=nbytes, digest=digest)
    with pytest.raises(DownloadError, match=f"other content than was published: .*{told}.*--accept-changed"):
        run(address, wanted)
    assert hub.transfers == []
    run(address, wanted, accept_changed=True)
    assert wanted.target.read_bytes() == WEIGHTS


def test_a_hub_that_names_no_content_leaves_the_published_checksum(
    address: str, hub: FakeHub, tmp_path: Path
) -> None:
    hub.anonymous_etags, output = True, Lines()
    run(address, weights(tmp_path), output=output)
    assert output.hashed == [("vae/weights.safetensors", len(WEIGHTS))]
    output = Lines()
    run(address, weights(tmp_path / "other", digest=None), output=output)
    assert output.hashed == []
    assert any("only its size was checked" in line for line in output.lines)


def test_a_file_of_another_size_is_left_alone_unless_asked(address: str, tmp_path: Path) -> None:
    wanted = weights(tmp_path)
    wanted.target.parent.mkdir()
    wanted.target.write_bytes(b"cut short")
    with pytest.raises(DownloadError, match=r"already there.*weights.safetensors.*--replace"):
        run(address, wanted)
    assert wanted.target.read_bytes() == b"cut short"
    run(address, wanted, replace=True)
    assert wanted.target.read_bytes() == WEIGHTS


def test_a_file_of_the_hubs_size_is_present_whatever_was_published(
    address: str, hub: FakeHub, tmp_path: Path
) -> None:
    wanted = weights(tmp_path, nbytes=5, digest=None)
    wanted.target.parent.mkdir()
    wanted.target.write_bytes(WEIGHTS)
    assert [item.state for item in run(address, wanted).items] == ["present"]
    assert hub.transfers == []


@pytest.mark.parametrize("published", [True, False])
def test_verify_finds_a_damaged_file(published: bool, address: str, tmp_path: Path) -> None:
    """By the published checksum, or by the hub's where none is known."""
    wanted = weights(tmp_path) if published else weights(tmp_path, nbytes=None, digest=None)
    wanted.target.parent.mkdir()
    wanted.target.write_bytes(WEIGHTS)
    run(address, wanted, verify=True)
    wanted.target.write_bytes(WEIGHTS[:-1] + b"x")
    assert [item.state for item in run(address, wanted).items] == ["present"]
    with pytest.raises(DownloadError, match="another size or checksum"):
        run(address, wanted, verify=True)
    run(address, wanted, verify=True, replace=True)
    assert wanted.target.read_bytes() == WEIGHTS


def test_a_disk_that_is_too_small(address: str, hub: FakeHub, tmp_path: Path) -> None:
    need = len(WEIGHTS) + (1 << 30)
    with pytest.raises(DownloadError, match=r"has 1\.1 GB free; 10\.2 kB are needed, and 1\.1 GB to spare"):
        run(address, weights(tmp_path), free=need - 1)
    assert hub.transfers == []
    run(address, weights(tmp_path), free=need)
    assert free_nbytes_on_disk(tmp_path / "not" / "there") > 0


@dataclass(frozen=True)
class FullDisk:
    """A hub whose transfer ends after 4,000 bytes because the disk does."""

    number: int

    def look(self, repo: str, path: str, revision: str) -> HubFile:
        return HubFile("1" * 40, len(WEIGHTS), Digest("sha256", sha256(WEIGHTS)))

    def fetch(self, repo: str, path: str, found: HubFile, part: Path) -> None:
        part.write_bytes(WEIGHTS[:4_000])
        raise OSError(self.number, "what the system says")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile(number: int, address: str, hub: FakeHub, tmp_path: Path) -> None:
    told = r"no space is left below .*: 4\.0 kB of 10\.2 kB had arrived and is kept. Make room for 6\.2 kB"
    with pytest.raises(DownloadError, match=told):
        run_download(load_manifest(), [weights(tmp_path)], FullDisk(number), Lines(), Options(), lambda _: 10**12)
    run(address, weights(tmp_path))
    assert weights(tmp_path).target.read_bytes() == WEIGHTS
    assert [ranges for _, path, ranges in hub.requests if path.startswith("/cdn/")] == ["bytes=4000-"]


def test_another_mistake_of_the_disk_is_not_called_a_full_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="what the system says") as caught:
        run_download(
            load_manifest(), [weights(tmp_path)], FullDisk(errno.EIO), Lines(), Options(), lambda _: 10**12
        )
    assert caught.value.errno == errno.EIO


def test_a_gated_repository_is_answered_with_the_licence_page_and_the_token_command(
    address: str, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("owner/gated", {"lora.safetensors": WEIGHTS}, gated=True)
    wanted = Wanted("owner/gated", "lora.safetensors", tmp_path, "loras/lora.safetensors", None, None)
    with pytest.raises(DownloadError) as caught:
        run(address, wanted)
    for part in ("is gated", f"{address}/owner/gated", "hf auth login", "HF_TOKEN", f"{address}/settings/tokens"):
        assert part in str(caught.value)
    assert "hf_wrong" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    run(address, wanted)
    assert wanted.target.read_bytes() == WEIGHTS
    assert hub.tokens_seen_by_cdn == []


@pytest.mark.parametrize(
    ("repo", "path", "revision", "told"),
    [
        ("owner/none", "x.json", "main", "owner/none is not there, or not for you: .*hf auth login"),
        (REPO, "none.json", "main", f"{REPO} has no file none.json at revision main. See .*/tree/main"),
        (REPO, "config.json", "0" * 40, f"has no revision 0000.*--revision {REPO}=COMMIT"),
    ],
)
def test_what_is_not_there_is_named(
    repo: str, path: str, revision: str, told: str, address: str, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=told):
        run(address, Wanted(repo, path, tmp_path, path, None, None), revisions={repo: revision})


def test_a_hub_that_cannot_be_reached_after_the_published_sizes_were_shown(tmp_path: Path) -> None:
    """An address of no use fails at once; the library would try a silent one for half a minute."""
    output = Lines()
    with pytest.raises(DownloadError, match=rf"{NOWHERE} cannot be reached.*HTTPS_PROXY"):
        run(NOWHERE, weights(tmp_path), output=output)
    assert "  fetch     10.2 kB" in output.lines[0]


def test_an_address_that_is_no_hub(address: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.is_hub = False
    with pytest.raises(DownloadError, match="without a commit and a size: this is no hub"):
        run(address, weights(tmp_path))


def test_two_downloads_into_one_directory(address: str, tmp_path: Path) -> None:
    lock = tmp_path / ".scope-ltx/lock"
    lock.parent.mkdir()
    with FileLock(lock), pytest.raises(DownloadError, match=r"another download into .* is running"):
        run(address, weights(tmp_path))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    record = record_path(tmp_path)
    record.parent.mkdir()
    for text in ("{", "[]", '{"a/b": "main"}', '{"a/b": 3}'):
        record.write_text(text)
        with pytest.raises(DownloadError, match=r"revisions.json is no record of revisions: .* Delete it"):
            read_record(tmp_path)
    record.unlink()
    write_record(tmp_path, {"a/b": "1" * 40})
    write_record(tmp_path, {"c/d": "2" * 40})
    assert json.loads(record.read_text()) == {"a/b": "1" * 40, "c/d": "2" * 40}


def test_digests(tmp_path: Path) -> None:
    """The git form is what `git hash-object` prints for this content."""
    file = tmp_path / "hello"
    file.write_bytes(b"hello\n")
    read: list[int] = []
    git = digest_file(file, "git-sha1", read.append)
    assert git == Digest("git-sha1", "ce013625030ba8dba906f756967f9e9ca394464a")
    assert digest_file(file, "sha256", read.append).value == sha256(b"hello\n")
    assert read == [6, 6]
    assert digest_of_etag(git.value) == git
    assert digest_of_etag("a" * 64) == Digest("sha256", "a" * 64)
    assert [digest_of_etag(etag) for etag in (None, "", "12-ab", "g" * 64)] == [None] * 4


def test_sizes_in_decimal_units() -> None:
    sizes = (None, 999, 1_000, 1_500_000, 25_226_571_988)
    assert [size_text(nbytes) for nbytes in sizes] == ["?", "999 B", "1.0 kB", "1.5 MB", "25.2 GB"]
