"""The viewers of a stream: one WebRTC connection each, made from an SDP offer, cleaned up however it ends."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, sdp
from aiortc.exceptions import OperationError
from aiortc.rtcrtpparameters import RTCRtpCodecCapability

from scope_ltx.hosts.live.problems import ProblemError
from scope_streaming.media.broadcast import Broadcaster
from scope_streaming.media.encoder import Stream, VideoCodec
from scope_streaming.media.tracks import BroadcastTrack

logger = logging.getLogger(__name__)

MAX_VIEWERS = 8
"""Sending is about 2 % of a core and 2 Mb/s per viewer; a preview is no broadcast service."""
CONNECT_TIMEOUT_S = 20.0
"""A viewer that has not connected by then gives its place back. ICE and DTLS take under a second on a LAN."""

Kind = Literal["audio", "video"]
_KINDS: tuple[Kind, ...] = ("video", "audio")
_CODECS: tuple[VideoCodec, ...] = ("H264", "VP8")


@dataclass
class _Viewer:
    connection: RTCPeerConnection
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    connected: asyncio.Event = field(default_factory=asyncio.Event)


class Viewers:
    """Belongs to one event loop. `join` makes a viewer, `leave` ends one, `close` ends all."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        *,
        max_viewers: int = MAX_VIEWERS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._broadcaster = broadcaster
        self._max_viewers = max_viewers
        self._connect_timeout_s = connect_timeout_s
        self._viewers: dict[str, _Viewer] = {}
        self._watches: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._viewers)

    async def join(self, offer_sdp: str) -> tuple[str, str]:
        """Answer an offer: the new viewer's key and the SDP answer with all candidates.

        Raises ProblemError: 400 for SDP that is not valid, 406 when picture or sound cannot be agreed on, 503 when
        all places are taken or this machine has no network address.
        """
        kinds = _offered_kinds(offer_sdp)
        if len(self._viewers) >= self._max_viewers:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"all {self._max_viewers} places for viewers are taken: try again when one has left",
                {"Retry-After": "5"},
            )
        key = secrets.token_urlsafe(16)
        # No STUN server: this answers on its own addresses and tells nobody else that it exists.
        viewer = _Viewer(RTCPeerConnection(RTCConfiguration(iceServers=[])))
        self._viewers[key] = viewer
        try:
            answer = await self._negotiate(viewer, offer_sdp, kinds)
        except BaseException:
            del self._viewers[key]
            await _discard(viewer.connection)
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
        viewer.ended.set()
        await viewer.connection.close()
        return True

    async def close(self) -> None:
        await asyncio.gather(*(self.leave(key) for key in tuple(self._viewers)))
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def _negotiate(self, viewer: _Viewer, offer_sdp: str, kinds: set[Kind]) -> str:
        connection = viewer.connection

        async def changed() -> None:
            if connection.connectionState == "connected":
                viewer.connected.set()
            if connection.connectionState in ("failed", "closed"):
                viewer.ended.set()

        connection.on("connectionstatechange", changed)
        tracks = {kind: BroadcastTrack(self._broadcaster, kind) for kind in _KINDS if kind in kinds}
        for kind, track in tracks.items():
            sender = connection.addTrack(track)
            transceiver = next(t for t in connection.getTransceivers() if t.sender is sender)
            transceiver.direction = "sendonly"
            transceiver.setCodecPreferences(_preferences(kind))
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer_sdp, "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
        except OperationError as error:
            raise ProblemError(
                HTTPStatus.NOT_ACCEPTABLE,
                "the offer has no codec in common: picture needs H264 (baseline, packetization-mode 1) "
                "or VP8, sound needs opus",
            ) from error
        except Exception as error:
            # What is wrong with a parsed offer shows as whatever Python raised at that spot, too.
            raise _bad_offer(_said(error)) from error
        answer = connection.localDescription.sdp
        if "a=candidate:" not in answer:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "this machine has no network address that a viewer could reach: connect an interface",
                {"Retry-After": "5"},
            )
        if "video" in tracks:
            tracks["video"].choose(_video_codec(answer))
        return answer

    async def _watch(self, key: str, viewer: _Viewer) -> None:
        """End a viewer that does not connect in time, or whose connection has failed or was closed."""
        connected = asyncio.create_task(viewer.connected.wait())
        ended = asyncio.create_task(viewer.ended.wait())
        try:
            await asyncio.wait(
                {connected, ended}, timeout=self._connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if viewer.connected.is_set():
                await ended
        finally:
            connected.cancel()
            ended.cancel()
        if await self.leave(key):
            logger.info("viewer %s has gone", key[:6])


def _offered_kinds(offer_sdp: str) -> set[Kind]:
    """Which of picture and sound an offer asks for. Raises ProblemError 400.

    Checks what aiortc takes for granted and would fail on half-way, unable to connect or even to close.
    """
    if not re.match(r"v=0\r?\n", offer_sdp):
        raise _bad_offer('it must start with the line "v=0"')
    try:
        offer = sdp.SessionDescription.parse(offer_sdp)
    except Exception as error:
        # The parser answers bad input with whatever Python raised at that spot, so the set is open.
        raise _bad_offer(_said(error)) from error
    media = {medium.rtp.muxId: medium for medium in offer.media}
    kinds: set[Kind] = {kind for kind in _KINDS if any(medium.kind == kind for medium in offer.media)}
    if not kinds:
        raise _bad_offer("it has neither an m=video nor an m=audio line")
    for group in offer.group:
        for mid in group.items:
            if mid not in media:
                raise _bad_offer(f"it bundles {mid}, which no a=mid line names")
    for medium in offer.media:
        if medium.ice is None or not (medium.ice.usernameFragment and medium.ice.password):
            raise _bad_offer(f"its m={medium.kind} has no a=ice-ufrag and a=ice-pwd lines")
        if medium.dtls is None or not medium.dtls.fingerprints:
            raise _bad_offer(f"its m={medium.kind} has no a=fingerprint line")
    return kinds


def _bad_offer(why: str) -> ProblemError:
    return ProblemError(HTTPStatus.BAD_REQUEST, f"the body is no SDP offer for WebRTC: {why}")


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


async def _discard(connection: RTCPeerConnection) -> None:
    """Close a connection whose negotiation has failed, which it may be too broken for."""
    try:
        await connection.close()
    except Exception:
        logger.exception("a refused connection could not be closed and is left to the garbage collector")


def _said(error: Exception) -> str:
    name = type(error).__name__
    return f"it cannot be understood ({name}: {error})" if str(error) else f"it cannot be understood ({name})"
