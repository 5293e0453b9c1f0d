"""A peer that is not ours: GStreamer's webrtcbin publishes by WHIP or plays by WHEP. Run by Debian's own Python.

    /usr/bin/python3 tests/fakes/gst_peer.py publish http://127.0.0.1:8000/whip --seconds 10
    /usr/bin/python3 tests/fakes/gst_peer.py play http://127.0.0.1:8000/whep --seconds 5

`publish` sends pictures with a counter in their squares and a 700 Hz tone. `play` prints one JSON object at the
end: `numbers` of the pictures it saw, when (`at_s`), their `size`, and `rms_db` of the sound. Imports nothing of
this repository, which that Python does not have.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urljoin

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # type: ignore[import-not-found]  # noqa: E402

BITS, SQUARE = 20, 32
WIDTH, HEIGHT, RATE = 640, 384, 30
CODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=veryfast bitrate=2000 key-int-max=30 "
    "! video/x-h264,profile=high ! rtph264pay config-interval=-1 aggregate-mode=zero-latency "
    "! application/x-rtp,media=video,encoding-name=H264,payload=96",
    "vp8": "vp8enc deadline=1 cpu-used=8 target-bitrate=2000000 keyframe-max-dist=30 ! rtpvp8pay "
    "! application/x-rtp,media=video,encoding-name=VP8,payload=96",
}
PUBLISHED = (
    "webrtcbin name=peer bundle-policy=max-bundle "
    f"appsrc name=pictures format=time is-live=true do-timestamp=true caps=video/x-raw,format=GRAY8,width={WIDTH},"
    f"height={HEIGHT},framerate={RATE}/1 ! videoconvert ! video/x-raw,format=I420 ! %s ! peer. "
    "audiotestsrc is-live=true freq=700 volume=0.3 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay ! "
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer."
)
# A pipeline of one element would be no pipeline.
PLAYED = "webrtcbin name=peer bundle-policy=max-bundle fakesrc num-buffers=1 ! fakesink"
OFFERED = (
    "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,"
    "packetization-mode=(string)1,profile-level-id=(string)42e01f",
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000",
)
SHOWN = {
    "video": "rtph264depay ! avdec_h264 ! videoconvert ! video/x-raw,format=GRAY8 "
    "! appsink name=pictures emit-signals=true sync=false",
    "audio": "rtpopusdepay ! opusdec ! audioconvert ! level name=level interval=200000000 ! fakesink sync=false",
}


def counter_picture(number: int) -> bytes:
    """GRAY8: the counter's squares over grey, lowest bit first."""
    columns = WIDTH // SQUARE
    picture = bytearray()
    for first in range(0, BITS, columns):
        bits = range(first, first + columns)
        row = b"".join(bytes([96 if bit >= BITS else 235 if number >> bit & 1 else 16]) * SQUARE for bit in bits)
        picture += row * SQUARE
    return bytes(picture + bytes([96]) * (WIDTH * HEIGHT - len(picture)))


def counter_of(luma: bytes, stride: int, width: int) -> int:
    columns = width // SQUARE
    number = 0
    for bit in range(BITS):
        y, x = bit // columns * SQUARE + SQUARE // 2, bit % columns * SQUARE + SQUARE // 2
        if luma[y * stride + x] > 128:
            number |= 1 << bit
    return number


class Peer:
    """One pipeline, one connection. `run` for some seconds or until SIGTERM, then DELETE."""

    def __init__(self, pipeline: Gst.Pipeline, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.resource: str | None = None
        self.failure: str | None = None
        self.numbers: list[int] = []
        self.at_s: list[float] = []
        self.size = [0, 0]
        self.rms_db = -120.0
        self.source: Any = None
        self.loop = GLib.MainLoop()
        self.pipeline = pipeline
        self.peer: Any = pipeline.get_by_name("peer")

    def publish(self) -> None:
        self.source, self.sent = self.pipeline.get_by_name("pictures"), 0
        GLib.timeout_add(1000 // RATE, self._draw)
        self._connect()

    def play(self) -> None:
        self.peer.connect("pad-added", self._show)
        for caps in OFFERED:
            direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            self.peer.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
        self._connect()

    def run(self, seconds: float) -> None:
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: self._fail(str(message.parse_error())))
        bus.connect("message::element", self._heard)
        GLib.timeout_add(int(seconds * 1000), self.loop.quit)
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, self.loop.quit)
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        if self.resource is not None:
            self._ask("DELETE", self.resource)

    def _connect(self) -> None:
        self.peer.connect("on-negotiation-needed", self._offer)
        self.peer.connect("notify::ice-gathering-state", self._gathered)

    def _offer(self, peer: Gst.Element) -> None:
        if self.source is not None:
            for index in range(2):
                transceiver = peer.emit("get-transceiver", index)
                transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self._offered, peer))

    def _offered(self, promise: Gst.Promise, peer: Gst.Element) -> None:
        promise.wait()
        reply = promise.get_reply()
        # The offer lives in the reply, which therefore has to stay.
        peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def _gathered(self, peer: Gst.Element, _: object) -> None:
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self._post)

    def _post(self) -> bool:
        offer = self.peer.get_property("local-description").sdp.as_text()
        try:
            answer, location = self._ask("POST", self.url, offer)
        except urllib.error.HTTPError as error:
            self._fail(f"{error.code} {error.read().decode()}")
            return False
        self.resource = urljoin(self.url, location)
        _, sdp = GstSdp.SDPMessage.new_from_text(answer)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self.peer.emit("set-remote-description", description, Gst.Promise.new())
        return False

    def _ask(self, method: str, url: str, sdp: str | None = None) -> tuple[str, str]:
        headers = {"Content-Type": "application/sdp"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        body = None if sdp is None else sdp.encode()
        request = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode(), answer.headers.get("Location", "")

    def _draw(self) -> bool:
        if self.peer.get_property("connection-state") == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
            self.sent += 1
        self.source.emit("push-buffer", Gst.Buffer.new_wrapped(counter_picture(self.sent)))
        return True

    def _show(self, _: Gst.Element, pad: Gst.Pad) -> None:
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_value("media")
        shown = Gst.parse_bin_from_description(SHOWN[kind], True)
        if kind == "video":
            shown.get_by_name("pictures").connect("new-sample", self._seen)
        self.pipeline.add(shown)
        shown.sync_state_with_parent()
        pad.link(shown.get_static_pad("sink"))

    def _seen(self, sink: Gst.Element) -> Gst.FlowReturn:
        sample = sink.emit("pull-sample")
        told = sample.get_caps().get_structure(0)
        self.size = [told.get_value("height"), told.get_value("width")]
        stride = (self.size[1] + 3) // 4 * 4
        buffer = sample.get_buffer()
        self.at_s.append(time.monotonic())
        self.numbers.append(counter_of(buffer.extract_dup(0, buffer.get_size()), stride, self.size[1]))
        return Gst.FlowReturn.OK

    def _heard(self, _: Gst.Bus, message: Gst.Message) -> None:
        told = message.get_structure()
        if told is not None and told.get_name() == "level":
            self.rms_db = max(self.rms_db, *told.get_value("rms"))

    def _fail(self, sentence: str) -> None:
        self.failure = sentence
        self.loop.quit()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("publish", "play"))
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--codec", choices=tuple(CODERS), default="h264")
    parser.add_argument("--token", default="")
    given = parser.parse_args()
    Gst.init(None)
    publishes = given.what == "publish"
    pipeline = Gst.parse_launch(PUBLISHED % CODERS[given.codec] if publishes else PLAYED)
    peer = Peer(pipeline, given.url, given.token)
    if publishes:
        peer.publish()
    else:
        peer.play()
    peer.run(given.seconds)
    if peer.failure:
        sys.exit(peer.failure)
    sys.stdout.write(
        json.dumps({"numbers": peer.numbers, "at_s": peer.at_s, "size": peer.size, "rms_db": peer.rms_db})
    )


if __name__ == "__main__":
    main()
