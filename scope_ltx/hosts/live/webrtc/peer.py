"""One WebRTC connection on the server's side: made from an offer, watched, and ended however it goes."""

from __future__ import annotations

import asyncio
import logging
import re

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError

from scope_ltx.hosts.live.http.problems import ProblemError
from scope_ltx.hosts.live.webrtc.offers import bad_offer, no_address, said

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 20.0
"""Who has not connected by then gives the place back. ICE and DTLS take under a second on a LAN."""


def with_dtls_client(offer_sdp: str) -> str:
    """The offer with its choice of DTLS roles made: where both will do, who offers is the client.

    aiortc would choose the other way round. It takes ciphers for an ECDSA certificate only, so as a client it
    fails at a server with an RSA one, which GStreamer has; as a server its own certificate decides.
    """
    return re.sub(r"(?m)^a=setup:actpass\b", "a=setup:active", offer_sdp)


class Peer:
    """Belongs to one event loop. `answer` once, then `over`; `close` at any time."""

    def __init__(self) -> None:
        # No STUN server: this answers on its own addresses and tells nobody else that it exists.
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connected = asyncio.Event()
        self._ended = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self.connection.on("connectionstatechange", self._changed)

    async def answer(self, offer_sdp: str, no_codec: ProblemError) -> str:
        """The answer with all candidates. Raises ProblemError: 400 for an offer that cannot be applied, 503 on a
        machine without an address, `no_codec` when none is in common."""
        try:
            await self.connection.setRemoteDescription(RTCSessionDescription(with_dtls_client(offer_sdp), "offer"))
            await self.connection.setLocalDescription(await self.connection.createAnswer())
        except OperationError as error:
            raise no_codec from error
        except Exception as error:
            # What is wrong with a parsed offer shows as whatever Python raised at that spot, too.
            raise bad_offer(said(error)) from error
        answer = str(self.connection.localDescription.sdp)
        if "a=candidate:" not in answer:
            raise no_address()
        return answer

    async def over(self, connect_timeout_s: float) -> None:
        """Returns when the connection has failed or was closed, or was not made in time."""
        connected = asyncio.create_task(self._connected.wait())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({connected, ended}, timeout=connect_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self._connected.is_set():
                await ended
        finally:
            connected.cancel()
            ended.cancel()

    async def close(self) -> None:
        """Whoever asks, and however often: returns when it is closed. A request that is cancelled meanwhile does
        not leave it half closed."""
        self._ended.set()
        if self._closing is None:
            self._closing = asyncio.create_task(self.connection.close())
        await asyncio.shield(self._closing)

    async def discard(self) -> None:
        """Close a connection whose negotiation has failed, which it may be too broken for."""
        try:
            await self.connection.close()
        except Exception:
            logger.exception("a refused connection could not be closed and is left to the garbage collector")

    async def _changed(self) -> None:
        if self.connection.connectionState == "connected":
            self._connected.set()
        if self.connection.connectionState in ("failed", "closed"):
            self._ended.set()
