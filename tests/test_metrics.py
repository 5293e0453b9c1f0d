"""What an operator sees: /metrics, one log line per chunk, and sentences for what failed."""

from __future__ import annotations

import errno
import io
import json
import logging
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from aiortc import RTCPeerConnection
from aiortc.stats import RTCOutboundRtpStreamStats, RTCRemoteInboundRtpStreamStats, RTCStats
from prometheus_client.parser import text_string_to_metric_families

from scope_ltx.errors import UnsupportedError
from scope_ltx.hosts.live.operations.chunk_log import ChunkLog
from scope_ltx.hosts.live.operations.logs import FIELDS, JsonLines, configure_logging
from scope_ltx.hosts.live.operations.metrics import ChunkMetrics
from scope_ltx.hosts.live.stream.explain import explained
from scope_ltx.hosts.live.stream.made_chunk import MadeChunk
from scope_ltx.hosts.live.webrtc.viewer_stats import Flow, viewer_stats
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from tests.fakes.generator import TestCardGenerator
from tests.fakes.live_app import app_of, live, serving, until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
SECONDS_PER_CHUNK = 9 / 24
NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def scraped(client: httpx.AsyncClient) -> Samples:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"scope_ltx_{name}", tuple(sorted(labels.items()))]


class Weighty(TestCardGenerator):
    """As if it streamed weights."""

    def generate(self, request: ChunkRequest) -> Chunk:
        chunk = super().generate(request)
        stats = ChunkStats(0.1, 0.7, 0.2, request.config.num_steps, "graphs", False, 3_000, 5_000, 7_000)
        return Chunk(chunk.frames, chunk.samples, chunk.sample_rate, stats)


class ScrapedMeanwhile:
    """A chunk that somebody scrapes in the middle of being counted."""

    stats = ChunkStats(0.1, 0.7, 0.2, 8)

    def __init__(self, metrics: ChunkMetrics) -> None:
        self.texts: list[str] = []
        self.scrape = threading.Thread(target=lambda: self.texts.append(metrics.text().decode()))

    @property
    def media_s(self) -> float:
        self.scrape.start()
        self.scrape.join(0.1)
        return 1.0


def test_a_scrape_has_all_of_a_chunk_or_nothing() -> None:
    metrics = ChunkMetrics()
    chunk = ScrapedMeanwhile(metrics)
    metrics.made(cast(MadeChunk, chunk))
    chunk.scrape.join()
    for counted in ("scope_ltx_chunks_total 1.0", "scope_ltx_media_seconds_total 1.0"):
        assert counted in chunk.texts[0]


async def test_metrics_tell_what_was_made_and_how_it_goes() -> None:
    async with live(start=Weighty) as client:
        status = await until(client, lambda status: status["chunk"] is not None and status["chunk"] >= 1)
        samples = await scraped(client)
        chunks = value(samples, "chunks_total")
    assert chunks >= status["chunk"] + 1
    assert value(samples, "media_seconds_total") == pytest.approx(chunks * SECONDS_PER_CHUNK)
    for stage, seconds in (("text", 0.1), ("denoise", 0.7), ("decode", 0.2)):
        assert value(samples, "chunk_seconds_count", stage=stage) == chunks
        assert value(samples, "chunk_seconds_sum", stage=stage) == pytest.approx(chunks * seconds)
    assert value(samples, "real_time_factor") == pytest.approx(SECONDS_PER_CHUNK)
    assert value(samples, "copied_bytes_total") == chunks * 3_000
    assert value(samples, "device_memory_bytes") == 5_000
    assert value(samples, "pinned_memory_bytes") == 7_000
    assert value(samples, "ready") == 1
    assert value(samples, "failing") == 0
    assert value(samples, "viewers") == 0
    assert value(samples, "buffer_seconds") > 0
    assert value(samples, "uptime_seconds") > 0
    assert value(samples, "tasks") > 2
    assert value(samples, "threads") > 1
    assert abs(value(samples, "av_offset_seconds")) < 0.5
    assert samples["process_open_fds", ()] > 0


async def test_metrics_before_the_first_chunk_and_for_chunks_that_fail() -> None:
    class Broken(TestCardGenerator):
        def generate(self, request: ChunkRequest) -> Chunk:
            raise UnsupportedError("no picture today")

    async with serving(app_of(Broken)) as client:
        await until(client, lambda status: status["last_error"] is not None)
        samples = await scraped(client)
    assert value(samples, "chunk_failures_total", error="UnsupportedError") >= 1
    assert value(samples, "chunks_total") == 0
    assert (value(samples, "ready"), value(samples, "failing")) == (0, 1)
    assert not [name for name, _ in samples if name == "scope_ltx_real_time_factor"]


async def test_everything_that_an_operator_is_promised_has_a_name() -> None:
    """docs/reliability.md, Operations."""
    async with live() as client:
        text = (await client.get("/metrics")).text
    names = set(re.findall(r"^# TYPE scope_ltx_(\w+) ", text, re.MULTILINE))
    chunks = {"chunk_seconds", "real_time_factor", "copied_bytes_total", "prompt_change_seconds"}
    playing = {"buffer_seconds", "stalls_total", "stall_seconds_total", "av_offset_seconds"}
    machine = {"device_memory_bytes", "pinned_memory_bytes", "tasks", "threads"}
    viewers = {"viewers", "video_target_bits_per_second", "viewer_sent_bytes_total"}
    network = {"viewer_round_trip_seconds", "viewer_loss_ratio", "viewer_jitter_seconds"}
    assert (chunks | playing | machine | viewers | network) - names == set()


class Reported:
    """A sender of aiortc's as far as its statistics go."""

    def __init__(self, kind: str, *stats: RTCStats) -> None:
        self.kind = kind
        self._stats = {each.id: each for each in stats}

    async def getStats(self) -> dict[str, RTCStats]:  # noqa: N802 - aiortc's name
        return self._stats


def connection_of(*senders: Reported) -> RTCPeerConnection:
    return cast(RTCPeerConnection, SimpleNamespace(getSenders=lambda: list(senders)))


def outbound(kind: str, nbytes: int) -> RTCOutboundRtpStreamStats:
    return RTCOutboundRtpStreamStats(NOW, "outbound-rtp", f"{kind}-out", 1, kind, "t", 9, nbytes, "track")


def reported(kind: str, jitter: int, round_trip_s: float, lost: int) -> RTCRemoteInboundRtpStreamStats:
    return RTCRemoteInboundRtpStreamStats(
        NOW, "remote-inbound-rtp", f"{kind}-in", 1, kind, "t", 9, 1, jitter, round_trip_s, lost
    )


async def test_receivers_reports_become_seconds_and_shares_of_each_viewer() -> None:
    picture = Reported("video", outbound("video", 70_000), reported("video", 900, 0.08, 64))
    # The date was set while the report was on its way.
    sound = Reported("audio", outbound("audio", 4_000), reported("audio", 480, -3600.0, 0))
    connection = cast(RTCPeerConnection, SimpleNamespace(getSenders=lambda: [picture, sound]))
    unheard = cast(
        RTCPeerConnection, SimpleNamespace(getSenders=lambda: [Reported("video", outbound("video", 0))])
    )
    first, second = await viewer_stats({"one": connection, "two": unheard})
    assert (first.name, second.name) == ("one", "two")
    assert first.flows["video"] == Flow(70_000, 0.08, 0.25, 0.01)
    assert first.flows["audio"] == Flow(4_000, None, 0.0, 0.01)
    assert second.flows == {"video": Flow(0, None, None, None)}


async def test_a_prompt_change_is_timed_until_it_is_on_air() -> None:
    async with live() as client:
        assert value(await scraped(client), "prompt_change_seconds_count") == 0
        await client.post("/api/prompt", json={"prompt": "a blue ball"})
        await until(client, lambda status: status["prompt"] == "a blue ball")
        samples = await scraped(client)
    assert value(samples, "prompt_change_seconds_count") == 1
    assert 0 < value(samples, "prompt_change_seconds_sum") < 10


async def test_two_applications_do_not_share_their_counters() -> None:
    async with live() as first, serving(app_of()) as second:
        await until(first, lambda status: status["chunk"] is not None)
        made, other = await scraped(first), await scraped(second)
    assert value(made, "chunks_total") > 0
    assert value(other, "uptime_seconds") < value(made, "uptime_seconds")


def made_chunk() -> MadeChunk:
    stats = ChunkStats(0.1, 0.75, 0.25, 8, "compile", True, 10, 20, 30)
    return MadeChunk(7, 1.7, stats, 'a "red" ball\non ice', ("height 70 became 64",))


@pytest.fixture
def lines() -> Any:
    """`ChunkLog`'s records as JSON lines, in a stream of their own."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("scope_ltx.hosts.live.operations.chunk_log")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: stream.getvalue().splitlines()
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_chunk_is_one_json_line(lines: Callable[[], list[str]]) -> None:
    ChunkLog().made(made_chunk())
    (line,) = lines()
    read = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", read.pop("time"))
    assert read.pop("message").startswith("chunk 7: 1.70 s of media, 2.00x real time")
    assert read == {
        "level": "INFO", "logger": "scope_ltx.hosts.live.operations.chunk_log", "chunk": 7, "media_s": 1.7,
        "real_time_factor": 2.0, "text_s": 0.1, "denoise_s": 0.75, "decode_s": 0.25, "steps": 8,
        "engine": "compile", "overlapped": True, "copied_nbytes": 10, "device_nbytes": 20, "pinned_nbytes": 30,
        "prompt": 'a "red" ball\non ice', "notes": ["height 70 became 64"],
    }  # fmt: skip


async def test_every_chunk_of_a_stream_has_its_line(lines: Callable[[], list[str]]) -> None:
    async with live() as client:
        await until(client, lambda status: (status["chunk"] or 0) >= 2)
    numbers = [json.loads(line)["chunk"] for line in lines() if "chunk" in json.loads(line)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 3


def test_an_exception_is_inside_its_json_line() -> None:
    try:
        raise ValueError("three\nlines")
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, "f.py", 1, "chunk %d failed", (3,), caught)
    setattr(record, FIELDS, {"chunk": 3})
    line = JsonLines().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["message"], read["chunk"]) == ("chunk 3 failed", 3)
    assert "ValueError: three\nlines" in read["exception"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_logging_is_configured_once_for_the_program(form: Any) -> None:
    root, ours, theirs = (logging.getLogger(name) for name in ("", "scope_ltx", "aiortc"))
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        configure_logging(form, "info", stream)
        ours.info("ours")
        ours.debug("too much")
        theirs.info("every packet")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        for package in ("scope_ltx", "scope_streaming", "scope_quant"):
            logging.getLogger(package).setLevel(logging.NOTSET)
    (line,) = stream.getvalue().splitlines()
    assert (json.loads(line)["message"] == "ours") if form == "json" else line.endswith("INFO scope_ltx: ours")


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UnsupportedError("two_stage needs the upsampler"), "two_stage needs the upsampler"),
        (MemoryError(), "this machine ran out of memory: lower the size or num_frames"),
        (MemoryError("Unable to allocate 9 GiB"), "(Unable to allocate 9 GiB): lower the size"),
        (OutOfMemoryError("CUDA out of memory."), "the device ran out of memory: lower the size or num_frames"),
        (OSError(errno.ENOSPC, "No space left", "/r/a.mp4"), "the disk is full at /r/a.mp4: free some space"),
        (KeyError("x"), "an internal error (KeyError: 'x'): it is tried again, and the log has the details"),
        (RuntimeError(), "an internal error (RuntimeError)"),
    ],
)
def test_what_failed_is_a_sentence_with_what_to_do(error: Exception, words: str) -> None:
    assert words in explained(error)
