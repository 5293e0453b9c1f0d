"""Recordings read back: exact times, what a crash and a full disk leave, and starting and stopping live."""

from __future__ import annotations

import asyncio
import errno
import io
import itertools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from scope_ltx.hosts.live.http.problems import ProblemError
from scope_ltx.hosts.live.recording.api import recording_router
from scope_ltx.hosts.live.recording.files import RecordingFiles, open_exclusive
from scope_ltx.hosts.live.recording.recorder import Recorder, RecordingState
from scope_ltx.hosts.live.stream.live_stream import LiveStream
from scope_ltx.hosts.live.stream.loading import ModelLoadError
from scope_ltx.request import Generator
from scope_streaming.clock import SystemClock
from scope_streaming.media.encoder import EncodedPacket
from scope_streaming.media.fragmented_mp4 import FragmentedMp4, whole_boxes_nbytes
from scope_streaming.media.timeline import TICKS_PER_SECOND
from tests.fakes.coded_stream import coded_stream, read_back
from tests.fakes.generator import Ending, TestCardGenerator
from tests.fakes.live_app import CONFIG, ROOT, app_of, assert_problem, listening, live, serving, until

FREE_NBYTES = 32 * 2**20


class SmallDisk(io.FileIO):
    """A file on a disk with room for `room` bytes; a write that does not fit is written in part, then refused."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path, "x+")
        self.room = room

    def write(self, data: Any) -> int:
        taken = bytes(data)[: self.room]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(taken)
        return super().write(taken)


class StuckDisk(io.FileIO):
    """A file on a disk that answers no write before it is freed, and none at all if it `fails` then."""

    def __init__(self, path: Path, *, fails: bool) -> None:
        super().__init__(path, "x+")
        self.fails = fails
        self.freed = threading.Event()

    def write(self, data: Any) -> int:
        self.freed.wait(20)
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(data)


def record(path: Path, packets: list[EncodedPacket]) -> RecordingFiles:
    files = RecordingFiles(path)
    for packet in packets:
        files.write(packet)
    files.close()
    return files


def picture_ticks(packets: list[EncodedPacket]) -> list[int]:
    first = next(packet.ticks for packet in packets if packet.keyframe and packet.stream == "H264")
    return [packet.ticks - first for packet in packets if packet.stream == "H264" and packet.ticks >= first]


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(50)])
def test_times_are_exact_to_the_tick_and_the_sample(rate: Fraction, tmp_path: Path) -> None:
    packets = list(coded_stream(3.0, rate))
    files = record(tmp_path / "a.mp4", packets)
    written = read_back(tmp_path / "a.mp4")
    first = next(packet.ticks for packet in packets if packet.stream == "H264")
    sounds = [packet.ticks - first for packet in packets if packet.stream == "audio" and packet.ticks >= first]
    assert written.pictures == picture_ticks(packets)
    assert written.sounds == sounds
    assert len(sounds) > 140
    assert files.seconds == pytest.approx(3.0, abs=0.05)
    assert files.nbytes == (tmp_path / "a.mp4").stat().st_size


def test_a_stall_stays_a_gap_of_its_own_length(tmp_path: Path) -> None:
    """Presentation went on without pictures: the last one stands, and the sound after it is where it was."""
    before, after = list(coded_stream(1.0)), list(coded_stream(1.0, start=12_345 * 14_400 + 3 * TICKS_PER_SECOND))
    record(tmp_path / "a.mp4", before + after)
    pictures = read_back(tmp_path / "a.mp4").pictures
    assert pictures == picture_ticks(before + after)
    assert max(late - early for early, late in itertools.pairwise(pictures)) > 2 * TICKS_PER_SECOND


def test_it_starts_at_the_first_keyframe(tmp_path: Path) -> None:
    packets = list(coded_stream(2.5))
    start = next(i for i, packet in enumerate(packets) if packet.stream == "H264") + 1
    record(tmp_path / "a.mp4", packets[start:])
    assert read_back(tmp_path / "a.mp4").pictures == picture_ticks(packets[start:])
    files = record(tmp_path / "b.mp4", [packet for packet in packets if packet.stream == "audio"])
    assert (files.paths, (tmp_path / "b.mp4").exists()) == ((), False)


def test_a_picture_of_another_size_begins_another_part(tmp_path: Path) -> None:
    small, large = list(coded_stream(1.0)), list(coded_stream(1.0, start=20_000 * 14_400, width=384))
    files = record(tmp_path / "a.mp4", small + large)
    assert [path.name for path in files.paths] == ["a.mp4", "a-2.mp4"]
    sizes = [read_back(path).size for path in files.paths]
    assert sizes == [(320, 64), (384, 64)]
    assert read_back(files.paths[1]).pictures == picture_ticks(large)


@pytest.mark.parametrize("seconds", [1.7, 4.3])
def test_a_killed_process_loses_less_than_a_second(seconds: float, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    command = [sys.executable, "-m", "tests.fakes.recording_process", str(path), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.kill()
        process.wait(10)
    sent = picture_ticks(list(coded_stream(seconds)))
    found = read_back(path).pictures
    assert found == sent[: len(found)]
    lost_s = (sent[-1] - found[-1]) / TICKS_PER_SECOND
    assert 0 <= lost_s < 1.0


@pytest.mark.parametrize("room", [20, 40_000, 90_000, 111_111])
def test_a_full_disk_keeps_what_was_written(room: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    files = RecordingFiles(path, lambda path: SmallDisk(path, room))
    written = 0

    def write() -> None:
        nonlocal written
        for packet in coded_stream(10.0):
            files.write(packet)
            written = packet.ticks

    with pytest.raises(OSError, match="No space left on device"):
        write()
    files.close()
    assert path.stat().st_size <= room
    if room < 1000:
        return
    packets = list(coded_stream(10.0))
    sent, found = picture_ticks(packets), read_back(path).pictures
    assert found == sent[: len(found)]
    first = next(packet.ticks for packet in packets if packet.stream == "H264")
    assert written - first - found[-1] < TICKS_PER_SECOND


def test_a_recording_cannot_start_without_a_decodable_picture() -> None:
    sound, picture = [
        next(packet for packet in coded_stream(0.5) if packet.stream == stream) for stream in ("audio", "H264")
    ]
    with pytest.raises(ValueError, match="starts with a keyframe"):
        FragmentedMp4(io.BytesIO(), sound)
    bare = EncodedPacket("H264", 0, True, 0, type(picture.data)(b"\x00\x00\x00\x01\x65abc"))
    with pytest.raises(ValueError, match="no parameter sets"):
        FragmentedMp4(io.BytesIO(), bare)


@given(st.lists(st.tuples(st.sampled_from([b"ftyp", b"moov", b"moof", b"mdat"]), st.integers(0, 40))), st.data())
def test_whole_boxes_end_where_a_fragment_does(boxes: list[tuple[bytes, int]], data: st.DataObject) -> None:
    ends, coded = [0], b""
    for kind, length in boxes:
        coded += (8 + length).to_bytes(4, "big") + kind + b"x" * length
        if kind != b"moof":
            ends.append(len(coded))
    cut = data.draw(st.integers(0, len(coded)))
    assert whole_boxes_nbytes(io.BytesIO(coded[:cut])) == max(end for end in ends if end <= cut)


async def test_recording_starts_and_stops_live_and_is_what_viewers_get(tmp_path: Path) -> None:
    async with live(recordings=tmp_path / "rec") as client:
        assert (await client.get("/api/recording")).json() is None
        assert_problem(await client.delete("/api/recording"), 409, "no recording is running")
        started = await client.post("/api/recording")
        assert started.status_code == 201
        assert_problem(await client.post("/api/recording"), 409, "running already")
        status = await until(client, lambda status: (status["recording"] or {"seconds": 0})["seconds"] > 1.2)
        assert status["recording"]["active"]
        done = (await client.delete("/api/recording")).json()
        assert (done["active"], done["error"]) == (False, None)
        stalls = (await client.get("/api/status")).json()["stalls"]
        (name,) = done["files"]
        assert (await client.get("/api/recordings")).json() == [{"name": name, "nbytes": done["nbytes"]}]
        file = await client.get(f"/api/recordings/{name}")
        assert file.headers["content-type"] == "video/mp4"
        assert len(file.content) == done["nbytes"]
        for wrong in ("..%2f" + name, "passwd", "scope-20200101-000000.mp4"):
            assert (await client.get(f"/api/recordings/{wrong}")).status_code == 404
    pictures = read_back(tmp_path / "rec" / name).pictures
    assert len(pictures) > 24
    gaps = [late - early for early, late in itertools.pairwise(pictures)]
    # A process that is held up for a quarter of a second stalls, which stays a gap.
    assert sum(gap != TICKS_PER_SECOND // 24 for gap in gaps) <= stalls


def after_a_free_box(path: Path) -> BinaryIO:
    """A file that begins with a box which players skip, larger than what a connection holds on its way."""
    file = open_exclusive(path)
    file.write(FREE_NBYTES.to_bytes(4, "big") + b"free")
    file.truncate(FREE_NBYTES)
    file.seek(FREE_NBYTES)
    return file


async def test_a_recording_that_grows_is_fetched_as_it_was_when_asked_for(tmp_path: Path) -> None:
    async with on_air() as stream, asyncio.timeout(20):
        recorder = Recorder(stream.broadcaster, tmp_path / "rec", open_file=after_a_free_box)
        async with listening(served(recorder)) as url, httpx.AsyncClient(base_url=url) as client:
            await recorder.start()
            name = await recorded(recorder, 1.2)
            async with client.stream("GET", f"/api/recordings/{name}") as coming:
                length = int(coming.headers["content-length"])
                await recorded(recorder, 2.4)
                fetched = await coming.aread()
            rest = await client.get(f"/api/recordings/{name}", headers={"Range": f"bytes={FREE_NBYTES}-"})
            await recorder.stop()
    written = (tmp_path / "rec" / name).read_bytes()
    assert FREE_NBYTES < length == len(fetched) < FREE_NBYTES + len(rest.content) < len(written)
    assert rest.status_code == 206
    assert rest.headers["content-range"].endswith(f"/{FREE_NBYTES + len(rest.content)}")
    assert written.startswith(fetched)
    assert written[FREE_NBYTES:].startswith(rest.content)
    for number, content in enumerate((fetched, rest.content)):
        assert whole_boxes_nbytes(io.BytesIO(content)) == len(content)
        (tmp_path / f"{number}.mp4").write_bytes(content)
        assert read_back(tmp_path / f"{number}.mp4").pictures


async def test_ranges_of_a_finished_recording(tmp_path: Path) -> None:
    async with on_air() as stream, asyncio.timeout(20):
        recorder = Recorder(stream.broadcaster, tmp_path)
        async with listening(served(recorder)) as url, httpx.AsyncClient(base_url=url) as client:
            await recorder.start()
            name = await recorded(recorder, 0.6)
            await recorder.stop()
            written = (tmp_path / name).read_bytes()
            whole = await client.get(f"/api/recordings/{name}")
            assert (whole.content, whole.headers["accept-ranges"]) == (written, "bytes")
            same = {"If-Range": whole.headers["etag"]}
            for asked, start, end in (
                ("bytes=0-99", 0, 100), ("bytes=100-", 100, len(written)), ("bytes=-50", len(written) - 50, None),
            ):  # fmt: skip
                part = await client.get(f"/api/recordings/{name}", headers={"Range": asked, **same})
                assert (part.status_code, part.content) == (206, written[start:end])
                assert part.headers["content-range"].endswith(f"/{len(written)}")
            several = await client.get(f"/api/recordings/{name}", headers={"Range": "bytes=0-9,20-29"})
            assert several.headers["content-type"].startswith("multipart/byteranges")
            assert written[20:30] in several.content
            beyond = await client.get(f"/api/recordings/{name}", headers={"Range": f"bytes={len(written)}-"})
            assert beyond.status_code == 416


def served(recorder: Recorder) -> FastAPI:
    app = FastAPI()
    app.include_router(recording_router(recorder))
    return app


async def recorded(recorder: Recorder, seconds: float) -> str:
    """The name of the first file, once so much is recorded."""
    while (state := recorder.state) is None or state.seconds < seconds:  # noqa: ASYNC110 - from another thread
        await asyncio.sleep(0.01)
    return state.files[0]


async def test_shutdown_finishes_the_recording(tmp_path: Path) -> None:
    async with live(recordings=tmp_path) as client:
        await client.post("/api/recording")
        await until(client, lambda status: status["recording"]["seconds"] > 0.3)
    (path,) = files_of(tmp_path)
    assert read_back(path).pictures[-1] >= Fraction(0.2) * TICKS_PER_SECOND


async def test_nothing_is_recorded_before_the_first_chunk(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    async with serving(app_of(recordings=tmp_path)) as client:
        refused = await client.post("/api/recording")
        assert refused.status_code in (201, 409)
    async with live(recordings=blocked / "rec") as client:
        assert_problem(await client.post("/api/recording"), 507, "--record-dir")


async def test_a_disk_that_fills_ends_the_recording_and_not_the_stream(tmp_path: Path) -> None:
    def small(path: Path) -> BinaryIO:
        return SmallDisk(path, 30_000)

    async with on_air() as stream, asyncio.timeout(20):
        recorder = Recorder(stream.broadcaster, tmp_path, lambda: datetime(2026, 11, 21, 7, 45), small)
        assert (await recorder.start()).active
        while recorder.state is None or recorder.state.active:  # noqa: ASYNC110 - from another thread
            await asyncio.sleep(0.01)
        state = recorder.state
        assert (await recorder.start()).active  # there may be room again
        while not recorder.state.files:  # noqa: ASYNC110 - from another thread
            await asyncio.sleep(0.01)
        await recorder.close()
        assert stream.state == "live"
    assert state.error is not None
    assert "No space left on device" in state.error
    assert state.files == ("scope-20261121-074500.mp4",)
    assert [path.name for path in sorted(files_of(tmp_path))] == [
        "scope-20261121-074500.mp4",
        "scope-20261121-074500_1.mp4",
    ]
    assert read_back(tmp_path / "scope-20261121-074500.mp4").pictures


@pytest.mark.parametrize("fails", [False, True])
async def test_a_disk_that_is_stuck_disturbs_no_later_recording(tmp_path: Path, *, fails: bool) -> None:
    stuck: list[StuckDisk] = []

    def first_stuck(path: Path) -> BinaryIO:
        if stuck:
            return open_exclusive(path)
        stuck.append(StuckDisk(path, fails=fails))
        return stuck[0]

    async with on_air() as stream, asyncio.timeout(20):
        recorder = Recorder(stream.broadcaster, tmp_path, open_file=first_stuck, max_waiting=40)
        await recorder.start()
        while (state := recorder.state) is None or state.active:  # noqa: ASYNC110 - from another thread
            await asyncio.sleep(0.01)
        assert "cannot keep up" in str(state.error)
        assert (await recorder.start()).active
        stuck[0].freed.set()
        while len([one for one in threading.enumerate() if one.name == "recording"]) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert stuck[0].closed
        since_s = recorder.state.seconds
        while recorder.state.seconds < since_s + 0.5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        done = await recorder.stop()
        assert (done.active, done.error) == (False, None)
    assert read_back(tmp_path / done.files[0]).pictures
    if not fails:
        assert read_back(Path(stuck[0].name)).pictures


async def test_a_stream_that_is_over_ends_its_recording(tmp_path: Path) -> None:
    async with on_air(Ending(8, ModelLoadError("the device has gone"))) as stream, asyncio.timeout(20):
        recorder = Recorder(stream.broadcaster, tmp_path)
        await recorder.start()
        while (state := recorder.state) is None or state.active:  # noqa: ASYNC110 - from another thread
            await asyncio.sleep(0.01)
        assert (state.error, stream.state, stream.last_error) == (None, "error", "the device has gone")
        with pytest.raises(ProblemError, match="nothing to record any more"):
            await recorder.start()
    written = read_back(tmp_path / state.files[0])
    assert len(written.pictures) == pytest.approx(24 * state.seconds, abs=2)


async def test_of_two_that_start_at_once_one_records(tmp_path: Path) -> None:
    async with on_air() as stream:
        recorder = Recorder(stream.broadcaster, tmp_path)
        answers = await asyncio.gather(recorder.start(), recorder.start(), return_exceptions=True)
        assert [type(one) for one in answers] == [RecordingState, ProblemError]
        await recorder.close()
    assert len(files_of(tmp_path)) <= 1


@asynccontextmanager
async def on_air(generator: Generator | None = None) -> AsyncIterator[LiveStream]:
    stream = LiveStream(lambda: generator or TestCardGenerator(), CONFIG, "a red ball", SystemClock(), "")
    stream.open()
    while not stream.broadcaster.playing:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield stream
    await stream.close()


def files_of(directory: Path) -> list[Path]:
    return list(directory.iterdir())
