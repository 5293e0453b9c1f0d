"""How the stream is doing: for the page, and for a supervisor."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel

from scope_ltx.hosts.live.http.problems import ProblemError, refusals
from scope_ltx.hosts.live.recording.recorder import Recorder, RecordingState
from scope_ltx.hosts.live.stream.live_stream import LiveStream, StreamState
from scope_ltx.hosts.live.webrtc.ingest import Ingest, IngestState
from scope_ltx.hosts.live.webrtc.viewers import Viewers

_CODEC_NAMES = {"H264": "H.264", "VP8": "VP8"}


class Work(BaseModel):
    """Of the newest chunk: wall seconds by stage, and what was moved and held for it."""

    text_s: float
    step_s: float
    steps: int
    decode_s: float
    copied_nbytes: int
    device_nbytes: int
    pinned_nbytes: int
    engine: str


class Sender(BaseModel):
    """The live input. "silent": connected, but nothing came for 5 s. `height` and `width` are those of the newest
    picture, `frames` counts pictures."""

    state: IngestState
    picture: bool
    sound: bool
    height: int | None
    width: int | None
    frames: int


class Status(BaseModel):
    """`chunk` and `prompt` are on air, null before the first; `next_prompt` is what the chunks to come head for.
    `video_encoder` is the library that encodes the picture, with "hardware" or "software"; `bitrate` is bits per
    second of one viewer. `recording` is the newest one, running or not. `uploads`, `recordings`: whether this host
    takes them."""

    state: StreamState
    chunk: int | None
    real_time_factor: float | None
    buffer_s: float
    stalls: int
    stall_s: float
    viewers: int
    video_codec: str | None
    video_encoder: str | None
    bitrate: int
    prompt: str | None
    next_prompt: str
    notes: tuple[str, ...]
    last_error: str | None
    model: str
    uptime_s: float
    work: Work | None
    sender: Sender
    recording: RecordingState | None
    uploads: bool
    recordings: bool


class Health(BaseModel):
    status: str


def status_router(
    stream: LiveStream, viewers: Viewers, ingest: Ingest, recorder: Recorder | None, model: str, *, uploads: bool
) -> APIRouter:
    """GET /api/status, /healthz and /readyz."""
    router = APIRouter(tags=["status"])

    @router.get("/api/status")
    async def status() -> Status:
        """How the stream is doing; cheap enough to ask for every second."""
        report = stream.broadcaster.report
        codecs = [_CODEC_NAMES[codec] for codec in report.codecs]
        return Status(
            state=stream.state,
            chunk=report.segment,
            real_time_factor=stream.real_time_factor,
            buffer_s=stream.buffer_s,
            stalls=report.stalls,
            stall_s=report.stall_s,
            viewers=len(viewers),
            video_codec=", ".join(codecs) or None,
            video_encoder=", ".join(report.encoders) or None,
            bitrate=report.bitrate,
            prompt=None if report.segment is None else stream.session.prompt_of(report.segment),
            next_prompt=stream.session.prompt,
            notes=stream.notes,
            last_error=stream.last_error,
            model=model,
            uptime_s=stream.uptime_s,
            work=_work(stream),
            sender=_sender(ingest),
            recording=recorder.state if recorder else None,
            uploads=uploads,
            recordings=recorder is not None,
        )

    @router.get("/healthz")
    async def healthz() -> Health:
        """The process answers."""
        return Health(status="alive")

    @router.get("/readyz", responses=refusals(503))
    async def readyz() -> Health:
        """A viewer would see something: at least one chunk was made, and the stream is not over."""
        if not stream.broadcaster.playing:
            detail = stream.last_error or "no chunk was made yet"
            again = {} if stream.broadcaster.over else {"Retry-After": "2"}
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, again)
        return Health(status="ready")

    return router


def _sender(ingest: Ingest) -> Sender:
    report = ingest.report
    height, width = report.size or (None, None)
    return Sender(
        state=report.state,
        picture="video" in report.kinds,
        sound="audio" in report.kinds,
        height=height,
        width=width,
        frames=report.frames,
    )


def _work(stream: LiveStream) -> Work | None:
    stats = stream.session.last_stats
    if stats is None:
        return None
    return Work(
        text_s=stats.text_s,
        step_s=stats.denoise_s / max(1, stats.steps),
        steps=stats.steps,
        decode_s=stats.decode_s,
        copied_nbytes=stats.copied_nbytes,
        device_nbytes=stats.device_nbytes,
        pinned_nbytes=stats.pinned_nbytes,
        engine=stats.engine,
    )
