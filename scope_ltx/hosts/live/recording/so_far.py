"""A file as it was when somebody asked for it, although it goes on growing."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from scope_streaming.media.fragmented_mp4 import whole_boxes_nbytes


class FileSoFar(FileResponse):
    """The first bytes of an MP4, whole or the ranges that were asked for.

    `growing`: it may be written to, so what is not a whole fragment yet is left out; finding that takes a look at
    every box. Blocking: make it on a thread.
    """

    def __init__(self, path: Path, *, growing: bool) -> None:
        found = path.stat()
        nbytes = found.st_size
        if growing:
            with path.open("rb") as file:
                nbytes = whole_boxes_nbytes(file)
        # Length, ranges and ETag all follow from this size.
        so_far = os.stat_result((*found[:6], nbytes, *found[7:10]))
        super().__init__(path, media_type="video/mp4", filename=path.name, stat_result=so_far)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = 0

        async def send_what_was_declared(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = int(Headers(raw=message["headers"])["content-length"])
            elif message["type"] == "http.response.body":
                # The file is read to its end, which has moved on meanwhile.
                body = message["body"][:left]
                left -= len(body)
                message = {**message, "body": body}
            await send(message)

        await super().__call__(scope, receive, send_what_was_declared)
