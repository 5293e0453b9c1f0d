"""Watch a live stream over WHEP and save what arrives.

python examples/watch_stream.py http://127.0.0.1:8000/ --seconds 20 -o watched.mp4
"""

from __future__ import annotations

import argparse
import asyncio
import urllib.error
import urllib.request
from fractions import Fraction
from typing import Any
from urllib.parse import urljoin

import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError


class Mp4Writer:
    """H.264 and AAC in one file. Pictures and sound start where they arrived relative to each other."""

    def __init__(self, path: str) -> None:
        self._file = av.open(path, "w")
        self._audio: av.AudioStream = self._file.add_stream("aac", rate=48_000, layout="stereo")
        self._video: av.VideoStream = self._file.add_stream("libx264", rate=90_000)
        self._video.pix_fmt, self._video.time_base = "yuv420p", Fraction(1, 90_000)
        self._early: list[av.AudioFrame] = []
        self._started_s: float | None = None
        self._offset_s: dict[str, float] = {}
        self.frames = {"video": 0, "audio": 0}

    def write(self, kind: str, frame: av.VideoFrame | av.AudioFrame, arrived_s: float) -> None:
        if self._started_s is None:
            self._started_s = arrived_s
        offset_s = self._offset_s.setdefault(kind, arrived_s - self._started_s)
        if frame.pts is not None and frame.time_base is not None:
            frame.pts += int(offset_s / frame.time_base)
        if isinstance(frame, av.VideoFrame):
            if not self.frames["video"]:
                self._video.width, self._video.height = frame.width, frame.height
            frame.pict_type = av.video.frame.PictureType.NONE
            self._file.mux(self._video.encode(frame))
        else:
            self._early.append(frame)
        self.frames[kind] += 1
        # The file's header needs the picture's size, so sound waits for the first picture.
        if self.frames["video"]:
            for early in self._early:
                self._file.mux(self._audio.encode(early))
            self._early.clear()

    def close(self) -> None:
        for stream in (self._video, self._audio):
            if self.frames[stream.type]:
                self._file.mux(stream.encode(None))
        self._file.close()


def post_offer(url: str, sdp: str) -> tuple[str, str]:
    """The answer and the viewer's resource. Raises urllib.error.HTTPError."""
    headers = {"Content-Type": "application/sdp"}
    with urllib.request.urlopen(urllib.request.Request(url, sdp.encode(), headers)) as response:
        return response.read().decode(), urljoin(url, response.headers["Location"])


async def join(url: str, sdp: str) -> tuple[str, str]:
    """`post_offer`, again and again while the model is loading."""
    while True:
        try:
            return await asyncio.to_thread(post_offer, url, sdp)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise SystemExit(f"{url} answered {error.code}: {error.read().decode()}") from error
            await asyncio.sleep(float(error.headers.get("Retry-After", "2")))


async def record(track: MediaStreamTrack, writer: Mp4Writer) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            frame: Any = await track.recv()
        except MediaStreamError:
            return
        writer.write(track.kind, frame, loop.time())


async def watch(base_url: str, path: str, seconds: float) -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    writer = Mp4Writer(path)
    recorders = []
    for kind in ("video", "audio"):
        connection.addTransceiver(kind, direction="recvonly")
    connection.on("track", lambda track: recorders.append(asyncio.create_task(record(track, writer))))
    await connection.setLocalDescription(await connection.createOffer())
    answer, resource = await join(urljoin(base_url, "whep"), connection.localDescription.sdp)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    print(f"watching {base_url} for {seconds:g} s", flush=True)
    await asyncio.sleep(seconds)

    leave = urllib.request.Request(resource, method="DELETE")
    (await asyncio.to_thread(urllib.request.urlopen, leave)).close()
    await connection.close()
    await asyncio.gather(*recorders)
    writer.close()
    print(f"{path}: {writer.frames['video']} frames, {writer.frames['audio']} audio blocks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="the address that `scope-ltx serve` prints")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("-o", "--output", default="watched.mp4")
    options = parser.parse_args()
    asyncio.run(watch(options.url, options.output, options.seconds))


if __name__ == "__main__":
    main()
