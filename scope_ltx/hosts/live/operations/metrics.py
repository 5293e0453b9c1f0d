"""/metrics in Prometheus form. Counted where things happen, or read from the stream when somebody asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from scope_ltx import __version__
from scope_ltx.hosts.live.stream.live_stream import LiveStream
from scope_ltx.hosts.live.stream.made_chunk import MadeChunk
from scope_ltx.hosts.live.webrtc.viewer_stats import ViewerStats, viewer_stats
from scope_ltx.hosts.live.webrtc.viewers import Viewers

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
"""Bucket limits: from a cached prompt's lookup to a chunk of the large model on a small device."""


class ChunkMetrics:
    """What is counted per chunk. Thread-safe; one scrape has all of a chunk or nothing. One registry per
    application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        here = self.registry
        self._stages = Histogram(
            "scope_ltx_chunk_seconds",
            "Wall seconds of a chunk's stages.",
            ["stage"],
            buckets=SECONDS,
            registry=here,
        )
        self._media = Counter("scope_ltx_media_seconds", "Seconds of media that were made.", registry=here)
        self._chunks = Counter("scope_ltx_chunks", "Chunks that were made.", registry=here)
        self._failures = Counter(
            "scope_ltx_chunk_failures", "Chunks that failed, by the error's type.", ["error"], registry=here
        )
        self._copied = Counter("scope_ltx_copied_bytes", "Weights copied to the device.", registry=here)
        self._device = Gauge(
            "scope_ltx_device_memory_bytes", "Device memory held at the newest chunk's end.", registry=here
        )
        self._pinned = Gauge(
            "scope_ltx_pinned_memory_bytes", "Host memory locked at the newest chunk's end.", registry=here
        )
        self._prompts = Histogram(
            "scope_ltx_prompt_change_seconds",
            "From a prompt's arrival until a chunk made from it is on air.",
            buckets=SECONDS,
            registry=here,
        )
        ProcessCollector(registry=here)
        self._whole = threading.Lock()

    def text(self) -> bytes:
        """In Prometheus' text form."""
        with self._whole:
            return generate_latest(self.registry)

    def made(self, chunk: MadeChunk) -> None:
        stats = chunk.stats
        stages = (("text", stats.text_s), ("denoise", stats.denoise_s), ("decode", stats.decode_s))
        with self._whole:
            for stage, seconds in stages:
                self._stages.labels(stage).observe(seconds)
            self._chunks.inc()
            self._media.inc(chunk.media_s)
            self._copied.inc(stats.copied_nbytes)
            self._device.set(stats.device_nbytes)
            self._pinned.set(stats.pinned_nbytes)

    def failed(self, error: BaseException) -> None:
        self._failures.labels(type(error).__name__).inc()

    def prompt_shown(self, seconds: float) -> None:
        self._prompts.observe(seconds)


class _StreamNow(Collector):
    """The stream's and the viewers' state at one moment. Built and read on the event loop, for one answer."""

    def __init__(self, stream: LiveStream, model: str, viewers: list[ViewerStats]) -> None:
        self._stream = stream
        self._model = model
        self._viewers = viewers
        self._tasks = len(asyncio.all_tasks())

    def collect(self) -> Iterable[Metric]:
        stream, report = self._stream, self._stream.broadcaster.report
        yield InfoMetricFamily("scope_ltx", "What runs.", {"version": __version__, "model": self._model})
        yield _gauge("ready", "1 when a viewer would see something.", float(stream.broadcaster.playing))
        yield _gauge("failing", "1 when nothing is left to play and chunks fail.", float(stream.state == "error"))
        yield _gauge("uptime_seconds", "Since the stream was opened.", stream.uptime_s)
        if stream.real_time_factor is not None:
            about = "Seconds of media per second of work in the newest chunk."
            yield _gauge("real_time_factor", about, stream.real_time_factor)
        yield _gauge("buffer_seconds", "Media that are made and not played.", stream.buffer_s)
        yield CounterMetricFamily("scope_ltx_stalls", "Times that viewers waited for media.", report.stalls)
        yield CounterMetricFamily("scope_ltx_stall_seconds", "How long viewers waited.", report.stall_s)
        yield _gauge("video_target_bits_per_second", "What the encoder aims at, per viewer.", report.bitrate)
        about = "How much later sound left than picture, each against its deadline."
        yield _gauge("av_offset_seconds", about, report.av_offset_s)
        yield _gauge("viewers", "Viewers that have a place.", len(self._viewers))
        yield _gauge("tasks", "Tasks of the event loop: goes back to what it was when viewers leave.", self._tasks)
        yield _gauge("threads", "Threads of Python's.", threading.active_count())
        yield from self._per_viewer()

    def _per_viewer(self) -> Iterable[Metric]:
        labels = ["viewer", "kind"]
        sent = CounterMetricFamily("scope_ltx_viewer_sent_bytes", "RTP bytes sent to a viewer.", labels=labels)
        trip = GaugeMetricFamily("scope_ltx_viewer_round_trip_seconds", "By receiver reports.", labels=labels)
        loss = GaugeMetricFamily(
            "scope_ltx_viewer_loss_ratio", "Lost of the packets between two receiver reports.", labels=labels
        )
        jitter = GaugeMetricFamily("scope_ltx_viewer_jitter_seconds", "By receiver reports.", labels=labels)
        for viewer in self._viewers:
            for kind, flow in viewer.flows.items():
                sent.add_metric([viewer.name, kind], flow.sent_nbytes)
                for family, value in ((trip, flow.round_trip_s), (loss, flow.loss), (jitter, flow.jitter_s)):
                    if value is not None:
                        family.add_metric([viewer.name, kind], value)
        return sent, trip, loss, jitter


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"scope_ltx_{name}", about, value)


def metrics_router(metrics: ChunkMetrics, stream: LiveStream, viewers: Viewers, model: str) -> APIRouter:
    """GET /metrics."""
    router = APIRouter(tags=["status"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def scrape() -> Response:
        """Counters and gauges in Prometheus' text form."""
        now = CollectorRegistry()
        now.register(_StreamNow(stream, model, await viewer_stats(viewers.connections())))
        text = generate_latest(now) + metrics.text()
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
