"""Encoded packets into a fragmented MP4 as they are: no second encode, and the packets' own times.

A fragment is finished every half second, so what is on disk can be played up to there whatever happens to the
process. Picture times are exact ticks, sound times exact samples, both counted from the first picture.
Blocking: run it on a thread.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, Protocol

import av
from av.container import OutputContainer

from scope_streaming.media.encoder import AUDIO_BITRATE, AUDIO_TIME_BASE, EncodedPacket
from scope_streaming.media.playout import BLOCK_SAMPLES, SAMPLE_RATE, TICKS_PER_SAMPLE
from scope_streaming.media.timeline import TICKS_PER_SECOND

FRAGMENT_US = 500_000
"""A crash loses what came since the last fragment: half a second and a frame, and what FFmpeg then interleaves."""
_TICK = Fraction(1, TICKS_PER_SECOND)
_OPTIONS = {
    # Fragments that each tell their own absolute time, and a header that needs nothing of what follows.
    "movflags": "empty_moov+default_base_moof+frag_discont",
    "frag_duration": str(FRAGMENT_US),
    "flush_packets": "1",
    "avoid_negative_ts": "disabled",
    "use_editlist": "0",
}
_SPS, _PPS = 7, 8
_NAL_TYPE = 0x1F


class PictureChangedError(Exception):
    """The picture has another size or coding from here on, which one file cannot hold."""


class Sink(Protocol):
    """Where the file goes. `write` takes all of it: a muxer that has seen an error cannot be closed."""

    def write(self, data: bytes) -> int: ...


class FragmentedMp4:
    """One file, H.264 and Opus. `first` is the picture it starts with, a keyframe.

    Raises ValueError when that is none or lacks the stream's parameters.
    """

    def __init__(self, sink: Sink, first: EncodedPacket) -> None:
        if first.stream != "H264" or not first.keyframe:
            raise ValueError(f"a recording starts with a keyframe of H264, got a packet of {first.stream}")
        self._parameters = parameter_sets(bytes(first.data))
        if not self._parameters:
            raise ValueError("the keyframe carries no parameter sets, so nobody could decode the recording")
        self._start = self._end = first.ticks
        self._container: OutputContainer = av.open(sink, "w", format="mp4", options=dict(_OPTIONS))
        with av.open(io.BytesIO(bytes(first.data)), format="h264") as coded:
            self._video = self._container.add_stream_from_template(coded.streams.video[0])
        self._video.time_base = _TICK
        # Never fed: it only writes down what Opus with these settings looks like.
        self._audio = self._container.add_stream(
            "libopus", rate=SAMPLE_RATE, layout="stereo", bit_rate=AUDIO_BITRATE
        )
        self._container.start_encoding()

    @property
    def seconds(self) -> float:
        """From the first picture to the newest packet."""
        return (self._end - self._start) / TICKS_PER_SECOND

    def write(self, packet: EncodedPacket) -> None:
        """The next packet, in the order of publication. Sound from before the first picture is left out.

        Raises PictureChangedError at the keyframe that begins another picture; it is not written.
        """
        if packet.ticks < self._start:
            return
        copy = av.Packet(bytes(packet.data))
        if packet.stream == "audio":
            copy.stream, copy.time_base = self._audio, AUDIO_TIME_BASE
            copy.pts = copy.dts = (packet.ticks - self._start) // TICKS_PER_SAMPLE
            copy.duration = BLOCK_SAMPLES
            copy.is_keyframe = True
        else:
            self._require_same(packet)
            copy.stream, copy.time_base = self._video, _TICK
            copy.pts = copy.dts = packet.ticks - self._start
            copy.is_keyframe = packet.keyframe
        self._container.mux_one(copy)
        self._end = max(self._end, packet.ticks)

    def close(self) -> None:
        """Finish the last fragment."""
        self._container.close()

    def _require_same(self, packet: EncodedPacket) -> None:
        if packet.keyframe:
            found = parameter_sets(bytes(packet.data))
            if found and found != self._parameters:
                raise PictureChangedError


def parameter_sets(coded: bytes) -> tuple[bytes, ...]:
    """The SPS and PPS among the NAL units of an Annex B access unit."""
    units = coded.split(b"\x00\x00\x01")[1:]
    return tuple(unit.rstrip(b"\x00") for unit in units if unit and unit[0] & _NAL_TYPE in (_SPS, _PPS))


def whole_boxes_nbytes(head: Any) -> int:
    """How much of an open file is whole boxes that belong together: up to the end of its last complete fragment.

    `head` is a binary file that can be read and sought.
    """
    size = head.seek(0, io.SEEK_END)
    at = whole = 0
    while at + 8 <= size:
        head.seek(at)
        header = head.read(8)
        nbytes, kind = int.from_bytes(header[:4], "big"), header[4:]
        if nbytes < 8 or at + nbytes > size:
            break
        at += nbytes
        # A moof alone points to samples that are not there.
        if kind != b"moof":
            whole = at
    return whole
