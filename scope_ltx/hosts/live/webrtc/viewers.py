"""The viewers of a stream: one WebRTC connection each, made from an SDP offer, cleaned up however it ends."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from http import HTTPStatus

from aiortc import RTCPeerConnection, RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecCapability

from scope_ltx.hosts.live.http.problems import ProblemError
from scope_ltx.hosts.live.webrtc.offers import KINDS, Kind, offered_kinds, parsed_offer
from scope_ltx.hosts.live.webrtc.peer import CONNECT_TIMEOUT_S, Peer
from scope_streaming.media.broadcast import Broadcaster
from scope_streaming.media.encoder import Stream, VideoCodec
from scope_streaming.media.tracks import BroadcastTrack

logger = logging.getLogger(__name__)

_CODECS: tuple[VideoCodec, ...] = ("H264", "VP8")


class Viewers:
    """Belongs to one event loop. `join` makes a viewer, `leave` ends one, `close` ends all."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        *,
        max_viewers: int,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._broadcaster = broadcaster
        self._max_viewers = max_viewers
        self._connect_timeout_s = connect_timeout_s
        self._viewers: dict[str, Peer] = {}
        self._watches: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._viewers)

    def connections(self) -> dict[str, RTCPeerConnection]:
        """The viewers' connections by the name that logs have for them, which is no key to them."""
        return {key[:6]: viewer.connection for key, viewer in self._viewers.items()}

    async def join(self, offer_sdp: str) -> tuple[str, str]:
        """Answer an offer: the new viewer's key and the SDP answer with all candidates.

        Raises ProblemError: 400 for SDP that is not valid, 406 when picture or sound cannot be agreed on, 503 when
        all places are taken or this machine has no network address.
        """
        kinds = offered_kinds(parsed_offer(offer_sdp))
        if len(self._viewers) >= self._max_viewers:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"all {self._max_viewers} places for viewers are taken: try again when one has left",
                {"Retry-After": "5"},
            )
        key = secrets.token_urlsafe(16)
        viewer = Peer()
        self._viewers[key] = viewer
        try:
            answer = await self._negotiate(viewer, offer_sdp, kinds)
        except BaseException:
            self._viewers.pop(key, None)
            await viewer.discard()
            raise
        watch = asyncio.create_task(self._watch(key, viewer), name=f"viewer-{key[:6]}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return key, answer

    async def leave(self, key: str) -> bool:
        """End a viewer; False when there is none of that key. Returns when its connection is closed."""
        viewer = self._viewers.pop(key, None)
        if viewer is None:
            return False
        await viewer.close()
        return True

    async def close(self) -> None:
        await asyncio.gather(*(self.leave(key) for key in tuple(self._viewers)))
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def _negotiate(self, peer: Peer, offer_sdp: str, kinds: set[Kind]) -> str:
        tracks = {kind: BroadcastTrack(self._broadcaster, kind) for kind in KINDS if kind in kinds}
        for kind, track in tracks.items():
            sender = peer.connection.addTrack(track)
            track.heed(sender)
            transceiver = next(t for t in peer.connection.getTransceivers() if t.sender is sender)
            transceiver.direction = "sendonly"
            transceiver.setCodecPreferences(_preferences(kind))
        no_codec = ProblemError(
            HTTPStatus.NOT_ACCEPTABLE,
            "the offer has no codec in common: picture needs H264 (baseline, packetization-mode 1) or VP8, "
            "sound needs opus",
        )
        answer = await peer.answer(offer_sdp, no_codec)
        if "video" in tracks:
            tracks["video"].choose(_video_codec(answer))
        return answer

    async def _watch(self, key: str, peer: Peer) -> None:
        """End a viewer that does not connect in time, or whose connection has failed or was closed. Returns when
        it is closed, whoever does that."""
        await peer.over(self._connect_timeout_s)
        if await self.leave(key):
            logger.info("viewer %s has gone", key[:6])
        await peer.close()


def _preferences(kind: Kind) -> list[RTCRtpCodecCapability]:
    """What may be sent, best first. Retransmission goes along with it."""
    wanted = ("audio/opus",) if kind == "audio" else ("video/H264", "video/VP8", "video/rtx")
    codecs = RTCRtpSender.getCapabilities(kind).codecs
    return [codec for mime in wanted for codec in codecs if codec.mimeType == mime]


def _video_codec(answer_sdp: str) -> Stream:
    """The codec that an answer puts first, which is the one aiortc sends."""
    media = answer_sdp[answer_sdp.index("m=video") :]
    first = media.split("\r\n", 1)[0].split()[3]
    names = re.findall(rf"a=rtpmap:{first} ([A-Za-z0-9]+)/", media)
    for codec in _CODECS:
        if names and names[0] == codec:
            return codec
    raise RuntimeError(f"the answer chose no codec of {_CODECS} but payload type {first}: {names}")
