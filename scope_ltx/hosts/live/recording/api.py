"""Recording over HTTP: start, stop, how it goes, and the files."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

from fastapi import APIRouter
from fastapi.responses import FileResponse
from pydantic import BaseModel

from scope_ltx.hosts.live.http.problems import ProblemError, refusals
from scope_ltx.hosts.live.recording.recorder import Recorder, RecordingState
from scope_ltx.hosts.live.recording.so_far import FileSoFar

_NAME = re.compile(r"scope-[0-9]{8}-[0-9]{6}(_[0-9]{1,3})?(-[0-9]{1,4})?\.mp4")


class RecordingFile(BaseModel):
    """A file that was recorded, or is being."""

    name: str
    nbytes: int


def recording_router(recorder: Recorder) -> APIRouter:
    """GET, POST and DELETE /api/recording; GET /api/recordings and /api/recordings/{name}."""
    router = APIRouter(prefix="/api", tags=["recording"])

    @router.get("/recording")
    async def state() -> RecordingState | None:
        """The newest recording, running or not; null before the first."""
        return recorder.state

    @router.post("/recording", status_code=HTTPStatus.CREATED, responses=refusals(409, 507))
    async def start() -> RecordingState:
        """Record what viewers see and hear from now on."""
        return await recorder.start()

    @router.delete("/recording", responses=refusals(409))
    async def stop() -> RecordingState:
        """Stop; the files are complete when this answers."""
        return await recorder.stop()

    @router.get("/recordings")
    def recordings() -> list[RecordingFile]:
        """Recorded files, the newest first."""
        found = recorder.directory.iterdir() if recorder.directory.is_dir() else []
        names = sorted((path for path in found if _NAME.fullmatch(path.name)), reverse=True)
        return [RecordingFile(name=path.name, nbytes=path.stat().st_size) for path in names]

    @router.get("/recordings/{name}", response_class=FileResponse, responses=refusals(404))
    async def download(name: str) -> FileSoFar:
        """A recorded file; of one that is being written, what can be played by now."""
        path = recorder.directory / name
        if not _NAME.fullmatch(name) or not path.is_file():
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such recording")
        newest = recorder.state.files[-1:] if recorder.state else ()
        return await asyncio.to_thread(FileSoFar, path, growing=name in newest)

    return router
