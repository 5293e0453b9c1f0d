"""The live host's endpoints without a model: moving colours, two notes, and a record of what came in."""

from __future__ import annotations

import fractions
import itertools
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from aiortc.mediastreams import AudioStreamTrack
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.control.loras_api import loras_router
from tests.fakes.colours import LEFT_HZ, RIGHT_HZ, SAMPLE_RATE


class ColourTrack(VideoStreamTrack):
    """A block of colour that falls, and begins anew: never black, never the same twice in a row."""

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        picture = np.full((384, 320, 3), (40, 60, 110), np.uint8)
        top = int(240 * (0.7 * pts * float(time_base) % 1))
        picture[top : top + 100, 60:260] = (230, 150, 80)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


class ChordTrack(AudioStreamTrack):
    """A different sine in each ear, so that a viewer can tell stereo from mono."""

    async def recv(self) -> av.AudioFrame:
        silent = await super().recv()
        assert isinstance(silent, av.AudioFrame)
        assert silent.pts is not None
        samples = SAMPLE_RATE // 50
        at = (silent.pts * SAMPLE_RATE // silent.sample_rate + np.arange(samples)) / SAMPLE_RATE
        notes = [np.sin(2 * np.pi * hertz * at) for hertz in (LEFT_HZ, RIGHT_HZ)]
        chord = (np.stack(notes, axis=1) * 6000).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(chord, format="s16", layout="stereo")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, fractions.Fraction(1, SAMPLE_RATE)
        frame.pts = silent.pts * SAMPLE_RATE // silent.sample_rate
        return frame


class LiveApi:
    """State that a test may read (`patches`, `prompts`, `sent`) and set (`state`, `codec`, `playing`)."""

    def __init__(self, codec: str = "video/H264", models: Path | None = None) -> None:
        self.codec = codec
        self.models = models
        self.state = "live"
        self.config = LTX2Config()
        self.prompt = self.playing = "a slow tide of colour"
        self.prompts: list[str] = []
        self.sent: dict[str, Any] = {}
        self.patches: list[dict[str, Any]] = []
        self.sessions: dict[str, RTCPeerConnection] = {}
        self.offers = 0
        self.retry_after_s = 2
        self._keys = itertools.count(1)
        self.extra: dict[str, Any] = {}

    def status(self) -> dict[str, Any]:
        base = {
            "state": self.state, "chunk": 12, "real_time_factor": 1.34, "buffer_s": 3.2, "stalls": 0,
            "stall_s": 0.0, "viewers": len(self.sessions), "video_codec": "H.264", "bitrate": 1_500_000,
            "prompt": self.playing, "next_prompt": self.prompt, "notes": [], "last_error": None, "model": "small",
            "uptime_s": 41.0,
        }  # fmt: skip
        return {**base, **self.extra}

    def patch(self, changes: dict[str, Any]) -> Response:
        self.patches.append(changes)
        try:
            self.config = self.config.updated(**changes)
        except ValidationError as error:
            detail = [{"loc": ["body", *p["loc"]], "msg": p["msg"]} for p in error.errors(include_url=False)]
            return JSONResponse({"detail": detail}, 422)
        parameters = self.config.model_dump(mode="json")
        return JSONResponse({"parameters": parameters, "adjustments": self.config.adjustments})

    async def whep(self, request: Request) -> Response:
        self.offers += 1
        if self.state == "loading":
            headers = {"Retry-After": str(self.retry_after_s)}
            problem = {"title": "Loading", "detail": "The model is still loading."}
            return JSONResponse(problem, 409, headers, media_type="application/problem+json")
        pc, key = RTCPeerConnection(), str(next(self._keys))
        self.sessions[key] = pc  # at once: what the end of a test cuts off is closed, too
        tracks: tuple[MediaStreamTrack, ...] = (ColourTrack(), ChordTrack())
        for track in tracks:
            pc.addTrack(track)
        codecs = RTCRtpSender.getCapabilities("video").codecs
        video = next(t for t in pc.getTransceivers() if t.kind == "video")
        video.setCodecPreferences([c for c in codecs if c.mimeType == self.codec])
        await pc.setRemoteDescription(RTCSessionDescription((await request.body()).decode(), "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        headers = {"Location": f"/whep/{key}"}
        return Response(pc.localDescription.sdp, 201, headers, media_type="application/sdp")

    async def leave(self, key: str) -> Response:
        if key not in self.sessions:
            raise HTTPException(404)
        await self.sessions.pop(key).close()
        return Response(status_code=200)

    async def close(self) -> None:
        """Ends every viewer's connection, as a server does that restarts."""
        while self.sessions:
            await self.sessions.popitem()[1].close()


def create_fake_app(live: LiveApi, page: Path) -> FastAPI:
    """The fake behind the real page, at the real addresses."""
    app = FastAPI()

    @app.post("/api/prompt")
    async def send(body: dict[str, Any]) -> dict[str, str]:
        live.prompt = body["prompt"] if "prompt" in body else " + ".join(part["text"] for part in body["prompts"])
        live.prompts.append(live.prompt)
        live.sent = body
        return {"prompt": live.prompt}

    app.get("/api/schema")(LTX2Config.model_json_schema)
    app.include_router(loras_router(live.models))
    app.get("/api/parameters")(lambda: live.config.model_dump(mode="json"))
    app.get("/api/prompt")(lambda: {"prompt": live.prompt})
    app.get("/api/status")(live.status)
    app.patch("/api/parameters", response_model=None)(live.patch)
    app.post("/whep", response_model=None)(live.whep)
    app.delete("/whep/{key}", response_model=None)(live.leave)
    app.mount("/", StaticFiles(directory=page, html=True))
    return app
