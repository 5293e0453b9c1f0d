"""Uploads: taken by what they are, bounded, decoded in a child process, stored under generated names."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scope_ltx.hosts.live.http.problems import BadFieldsError, ProblemError
from scope_ltx.hosts.live.uploads.check import Checked, CheckLimits, RefusedFileError, check
from scope_ltx.hosts.live.uploads.kinds import MEBI, Limits, sniff
from scope_ltx.hosts.live.uploads.store import UploadStore, check_in_child
from tests.fakes.live_app import app_of, assert_problem, serving
from tests.fakes.pictures import grey, quadrants, write_clip
from tests.fakes.sounds import chirp, write_sound

LIMITS = CheckLimits((), 64_000_000, 4096 * 2304, 3600.0, 600.0)


def picture(form: str = "PNG", size: tuple[int, int] = (96, 64), **more: Any) -> bytes:
    written = io.BytesIO()
    Image.fromarray(quadrants(size[1], size[0])).save(written, form, **more)
    return written.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def written(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.stat().st_size]


def read(path: str) -> bytes:
    return Path(path).read_bytes()


async def pieces(body: bytes, size: int = 10) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


class FakeCheck:
    """Takes everything as a picture, and says so."""

    def __init__(self) -> None:
        self.seen: list[tuple[Path, CheckLimits]] = []

    async def __call__(self, path: Path, limits: CheckLimits) -> Checked:
        self.seen.append((path, limits))
        return Checked("image", path.name, 1, 1)


async def test_an_uploaded_picture_becomes_a_png_that_a_parameter_can_name(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010E] = "taken at home"
    async with serving(app_of(uploads=tmp_path / "up")) as client:
        answer = await client.post("/api/uploads", content=picture("JPEG", exif=exif))
        assert answer.status_code == 201, answer.text
        stored = answer.json()
        assert (stored["kind"], stored["width"], stored["height"]) == ("image", 64, 96)
        path = Path(stored["path"])
        assert path.parent == (tmp_path / "up").resolve()
        assert path.suffix == ".png"
        assert [file.name for file in (tmp_path / "up").iterdir()] == [path.name]
        with Image.open(path) as kept:
            assert (kept.format, kept.size, dict(kept.getexif())) == ("PNG", (64, 96), {})

        set_to = await client.patch("/api/parameters", json={"i2v_image": stored["path"]})
        assert set_to.json()["parameters"]["i2v_image"] == stored["path"]
        listed = (await client.get("/api/uploads")).json()
        assert [entry["path"] for entry in listed] == [stored["path"]]
        assert_problem(await client.delete(f"/api/uploads/{path.name}"), 409, "the stream uses this file")
        await client.patch("/api/parameters", json={"i2v_image": None})
        assert (await client.delete(f"/api/uploads/{path.name}")).status_code == 204
        assert_problem(await client.delete(f"/api/uploads/{path.name}"), 404, "no such upload")


async def test_sound_and_clips_are_taken_as_they_are(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", chirp(1.5, 48_000), 48_000, "pcm_s16le")
    clip = write_clip(tmp_path / "b.mp4", [grey(number) for number in range(24)])
    async with serving(app_of(uploads=tmp_path / "up")) as client:
        heard = (await client.post("/api/uploads", content=sound.read_bytes())).json()
        assert (heard["kind"], heard["seconds"]) == ("audio", pytest.approx(1.5))
        assert read(heard["path"]) == sound.read_bytes()
        seen = (await client.post("/api/uploads", content=clip.read_bytes())).json()
        assert (seen["kind"], seen["width"], seen["height"]) == ("video", 96, 64)
        assert seen["seconds"] == pytest.approx(23 / 24, abs=0.001)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "the body is empty"),
        (b"#EXTM3U\nfile:///etc/passwd\n", 415, "PNG, JPEG"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "PNG, JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "PNG, JPEG"),
        (b"\x80\x04\x95" + b"pickled" * 20, 415, "PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "PNG, JPEG"),
        (picture()[:100], 422, "the image cannot be read"),
        (bomb(12_000, 9_000), 422, "12000x9000 pixels, at most 64 megapixels"),
        (bomb(60_000, 60_000), 422, "megapixels"),
        (b"\x1a\x45\xdf\xa3" + b"\0" * 200, 422, "damaged"),
        (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 100, 422, "damaged"),
        (b"\x00\x00\x00\x18ftypmp42" + b"#EXTM3U\nfile:///etc/passwd\n" * 9, 422, "damaged"),
    ],
)
async def test_what_cannot_be_used_is_refused_with_a_sentence(
    body: bytes, status: int, words: str, tmp_path: Path
) -> None:
    async with serving(app_of(uploads=tmp_path / "up")) as client:
        refused = await client.post("/api/uploads", content=body)
        assert refused.status_code == status, refused.text
        assert words in refused.text
        assert str(tmp_path) not in refused.text
    assert not (tmp_path / "up").exists() or list((tmp_path / "up").iterdir()) == []


@pytest.mark.parametrize("name", ["..%2fa.png", "passwd", "image-0123456789abcdef.png", "%2e%2e"])
async def test_no_name_leads_out_of_the_directory(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    async with serving(app_of(uploads=tmp_path / "up")) as client:
        assert (await client.delete(httpx.URL(f"http://live/api/uploads/{name}"))).status_code in (404, 405)
    assert (tmp_path / "a.png").exists()


async def test_an_upload_is_cut_off_at_its_limit(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield picture()
        while True:
            taken += 1
            yield b"\0" * MEBI

    store = UploadStore(tmp_path, list, Limits(image_nbytes=3 * MEBI), FakeCheck())
    with pytest.raises(ProblemError, match="at most 3 MiB") as refused:
        await store.add(endless())
    assert refused.value.status == 413
    assert taken <= 4
    assert names(tmp_path) == []


async def test_the_oldest_that_nothing_uses_makes_room(tmp_path: Path) -> None:
    used: list[str] = []
    store = UploadStore(tmp_path, lambda: used, Limits(total_nbytes=3 * 4096), FakeCheck())
    body = picture() + b"\0" * (4096 - len(picture()))
    first, second, third = [await store.add(pieces(body, 512)) for _ in range(3)]
    for number, stored in enumerate((first, second, third)):
        os.utime(stored.path, (number, number))
    used.append(str(first.path))
    fourth = await store.add(pieces(body))
    assert [stored.path for stored in store.stored()] == [fourth.path, third.path, first.path]
    used += [str(third.path), str(fourth.path)]
    with pytest.raises(ProblemError, match="the stream uses them") as refused:
        await store.add(pieces(body))
    assert refused.value.status == 507


async def test_what_a_killed_server_left_makes_room_and_what_arrives_stays(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield picture()
        yield b"\0" * MEBI
        await go.wait()

    left, elsewhere = tmp_path / "incoming-0123456789abcdef.mp4", tmp_path / "incoming-fedcba9876543210.mp4"
    store = UploadStore(tmp_path, list, Limits(total_nbytes=3 * MEBI), check=FakeCheck())
    arriving = asyncio.create_task(store.add(held()))
    async with asyncio.timeout(10):
        while not (here := written(tmp_path)):  # noqa: ASYNC110 - by a thread
            await asyncio.sleep(0.001)
    left.write_bytes(b"\0" * 2 * MEBI)
    elsewhere.write_bytes(b"\0")
    for path in (left, *here):
        os.utime(path, (0, 0))
    await store.add(pieces(picture()))
    assert not left.exists()
    assert elsewhere.exists()
    go.set()
    assert (await arriving).path.exists()


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    store = UploadStore(blocked / "up", list, check=FakeCheck())
    with pytest.raises(ProblemError, match="the server cannot store the file: Not a directory") as refused:
        await store.add(pieces(picture()))
    assert refused.value.status == 507


async def test_only_so_many_come_at_a_time(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield picture()
        await go.wait()

    store = UploadStore(tmp_path, list, check=FakeCheck())
    coming = [asyncio.create_task(store.add(held())) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(ProblemError, match="on their way already") as refused:
        await store.add(held())
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
    go.set()
    assert len({stored.path for stored in await asyncio.gather(*coming)}) == 4


async def test_a_sender_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield picture()
        yield b"\0" * 2 * MEBI
        raise ConnectionResetError(104, "Connection reset by peer")

    store = UploadStore(tmp_path, list, check=FakeCheck())
    with pytest.raises(ProblemError):
        await store.add(broken())
    assert names(tmp_path) == []


async def test_a_decoder_that_crashes_ends_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    crash = tmp_path / "PIL"
    crash.mkdir()
    (crash / "__init__.py").write_text("import ctypes\nctypes.string_at(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RefusedFileError, match="it cannot be decoded"):
        await check_in_child(path, LIMITS)


async def test_a_refused_file_is_a_422_at_the_body(tmp_path: Path) -> None:
    async def refuse(path: Path, limits: CheckLimits) -> Checked:
        raise RefusedFileError("no")

    with pytest.raises(BadFieldsError) as refused:
        await UploadStore(tmp_path, list, check=refuse).add(pieces(picture()))
    assert [problem.msg for problem in refused.value.problems] == ["no"]


def test_long_sound_large_clips_and_disguised_files_are_refused(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", chirp(2.0, 48_000), 48_000, "pcm_s16le")
    clip = write_clip(tmp_path / "b.mp4", [grey(number) for number in range(48)])
    for path, demuxers, bounds, words in (
        (sound, ("wav",), (10**9, 10**9, 1.0, 1.0), "the sound is longer than"),
        (clip, ("mov", "mp4"), (10**9, 10**9, 1.0, 1.0), "the clip is longer than"),
        (clip, ("mov", "mp4"), (10**9, 96 * 64 - 1, 9.0, 9.0), "the clip is 96x64"),
        (clip, ("matroska",), (10**9, 10**9, 9.0, 9.0), "not what it looks like"),
    ):
        with pytest.raises(RefusedFileError, match=words):
            check(path, CheckLimits(demuxers, *bounds))


def test_a_huge_picture_is_kept_smaller(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((10, 5000, 3), np.uint8)).save(path)
    assert check(path, LIMITS) == Checked("image", "a.png", 4096, 8)


@pytest.mark.parametrize(
    ("head", "kind", "suffix"),
    [
        (b"\x89PNG\r\n\x1a\n", "image", ".png"),
        (b"RIFF....WEBPVP8 ", "image", ".webp"),
        (b"RIFF....WAVEfmt ", "audio", ".wav"),
        (b"\xff\xfb\x90\x00", "audio", ".mp3"),
        (b"....ftypM4A ", "audio", ".m4a"),
        (b"....ftypqt  ", "video", ".mov"),
        (b"....ftypisom", "video", ".mp4"),
        (b"....ftypheic", None, None),
        (b"\xff\xf1\x50\x80", None, None),
        (b"\x80\x04\x95", None, None),
        (b"GIF89a", None, None),
    ],
)
def test_the_first_bytes_tell_the_type(head: bytes, kind: str | None, suffix: str | None) -> None:
    found = sniff(head)
    assert (found.kind if found else None, found.suffix if found else None) == (kind, suffix)


@given(st.binary(max_size=64))
def test_any_bytes_can_be_looked_at(head: bytes) -> None:
    found = sniff(head)
    assert found is None or found.suffix.startswith(".")
