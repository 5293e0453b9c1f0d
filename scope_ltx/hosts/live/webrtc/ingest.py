"""The live sender: one WebRTC connection whose picture and sound a session takes as live input."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from aiortc import MediaStreamTrack, RTCRtpReceiver, sdp
from aiortc.rtcrtpparameters import RTCRtpCodecCapability

from scope_ltx.hosts.live.http.problems import ProblemError
from scope_ltx.hosts.live.webrtc.consent import check_consent
from scope_ltx.hosts.live.webrtc.h264_offer import answer_to_sender, offer_to_aiortc
from scope_ltx.hosts.live.webrtc.offers import Kind, offered_kinds, parsed_offer
from scope_ltx.hosts.live.webrtc.peer import CONNECT_TIMEOUT_S, Peer
from scope_ltx.hosts.live.webrtc.received import LiveInput, Received, take_pictures, take_sound
from scope_ltx.hosts.live.webrtc.trickle import Fragment

logger = logging.getLogger(__name__)

SILENT_S = 5.0
"""A sender that brings nothing for so long gives its place to the next one. A session holds its last picture for
the same time. Its connection may last half a minute more, until ICE gives it up."""

IngestState = Literal["none", "connecting", "live", "silent"]


@dataclass(frozen=True)
class IngestReport:
    """`size` is (height, width) of the newest picture. "silent": connected, but nothing came for 5 s."""

    state: IngestState
    kinds: frozenset[Kind]
    size: tuple[int, int] | None
    frames: int


@dataclass(eq=False)
class _Sender:
    key: str
    kinds: set[Kind]
    username: str
    etag: str
    begun_s: float
    peer: Peer = field(default_factory=Peer)
    received: Received = field(default_factory=Received)
    takers: list[asyncio.Task[None]] = field(default_factory=list)


class Ingest:
    """At most one sender at a time. Belongs to one event loop.

    `size` tells the height and width that a picture is needed in. Pictures are converted on a thread of its own.
    """

    def __init__(
        self,
        sink: LiveInput,
        size: Callable[[], tuple[int, int]],
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        silent_s: float = SILENT_S,
    ) -> None:
        self._sink = sink
        self._size = size
        self._connect_timeout_s = connect_timeout_s
        self._silent_s = silent_s
        self._sender: _Sender | None = None
        self._watches: set[asyncio.Task[None]] = set()
        self._work = ThreadPoolExecutor(1, thread_name_prefix="live-input")

    @property
    def report(self) -> IngestReport:
        sender = self._sender
        if sender is None:
            return IngestReport("none", frozenset(), None, 0)
        received = sender.received
        state: IngestState = "silent" if self._is_silent(sender) else "live"
        if received.newest_s is None and not self._is_silent(sender):
            state = "connecting"
        return IngestReport(state, frozenset(sender.kinds), received.size, received.frames)

    @property
    def has_place(self) -> bool:
        """The next sender is taken."""
        return self._sender is None or self._is_silent(self._sender)

    async def publish(self, offer_sdp: str) -> tuple[str, str, str]:
        """Answer an offer: the new sender's key, its ETag and the SDP answer with all candidates.

        Raises ProblemError: 400 for SDP that is not valid or sends nothing, 406 without a common codec, 422 for
        two pictures or two sounds, 503 while another sender is live or this machine has no network address.
        """
        offer = parsed_offer(offer_sdp)
        _require_one_of_each(offer)
        await self._make_place()
        ice = offer.media[0].ice
        username = "" if ice is None else str(ice.usernameFragment)
        key, etag = secrets.token_urlsafe(16), secrets.token_urlsafe(8)
        begun_s = asyncio.get_running_loop().time()
        sender = _Sender(key, offered_kinds(offer), username, etag, begun_s)
        sender.peer.connection.on("track", lambda track: self._take(sender, track))
        self._sender = sender
        if "audio" in sender.kinds:
            # The library would take telephone codecs, too.
            sender.peer.connection.addTransceiver("audio", "recvonly").setCodecPreferences(_opus())
        try:
            answer = await sender.peer.answer(offer_to_aiortc(offer_sdp), _no_codec())
        except BaseException:
            if self._sender is sender:
                self._sender = None
            await _cancel(sender.takers)
            await sender.peer.discard()
            raise
        watch = asyncio.create_task(self._watch(sender), name=f"sender-{sender.key[:6]}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return sender.key, sender.etag, answer_to_sender(answer, offer_sdp)

    async def trickle(self, key: str, fragment: Fragment, if_match: str | None) -> None:
        """Add candidates. Raises ProblemError: 404 for an unknown sender, 412 for another ICE session's tag, 422
        for an ICE restart, 400 for a candidate that cannot be used."""
        sender = self._sender
        if sender is None or sender.key != key:
            raise _gone()
        if fragment.username not in (None, sender.username):
            detail = "an ICE restart is not supported: send a new offer"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        if if_match not in (None, "*", f'"{sender.etag}"'):
            raise ProblemError(HTTPStatus.PRECONDITION_FAILED, f'this ICE session\'s tag is "{sender.etag}"')
        if not fragment.candidates and not fragment.complete:
            detail = "the fragment has neither candidates nor a=end-of-candidates: nothing else is supported"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        try:
            for candidate in fragment.candidates:
                await sender.peer.connection.addIceCandidate(candidate)
            if fragment.complete:
                await sender.peer.connection.addIceCandidate(None)
        except ValueError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"a candidate cannot be used: {error}") from error

    async def leave(self, key: str) -> bool:
        """End a sender; False when there is none of that key. Returns when its connection is closed."""
        sender = self._sender
        if sender is None or sender.key != key:
            return False
        self._sender = None
        await sender.peer.close()
        await _cancel(sender.takers)
        return True

    async def close(self) -> None:
        if self._sender is not None:
            await self.leave(self._sender.key)
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._work.shutdown(wait=False, cancel_futures=True)

    async def _make_place(self) -> None:
        # Looked at again after every wait: another newcomer may have taken the place meanwhile.
        while (sender := self._sender) is not None:
            if not self._is_silent(sender):
                raise ProblemError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "another sender is live, and there is place for one: stop it, or try again when it has left",
                    {"Retry-After": str(round(self._silent_s))},
                )
            logger.info("sender %s was silent and gives its place to the next", sender.key[:6])
            await self.leave(sender.key)

    def _is_silent(self, sender: _Sender) -> bool:
        newest_s = sender.received.newest_s
        since_s = sender.begun_s if newest_s is None else newest_s
        return asyncio.get_running_loop().time() - since_s >= self._silent_s

    def _take(self, sender: _Sender, track: MediaStreamTrack) -> None:
        if track.kind == "video":
            taking = take_pictures(track, self._sink, self._size, sender.received, self._work)
        else:
            taking = take_sound(track, self._sink, sender.received)
        task = asyncio.create_task(taking, name=f"live-{track.kind}")
        task.add_done_callback(_tell_failure)
        sender.takers.append(task)

    async def _watch(self, sender: _Sender) -> None:
        """End a sender that does not connect in time, or whose connection has failed or was closed. Returns when
        it is closed, whoever does that."""
        over = asyncio.create_task(sender.peer.over(self._connect_timeout_s))
        while not over.done():
            await asyncio.wait({over}, timeout=self._silent_s / 5)
            check_consent(sender.peer.connection, wanted=self._is_silent(sender))
        over.result()
        if await self.leave(sender.key):
            logger.info("sender %s has gone", sender.key[:6])
        await sender.peer.close()


def _require_one_of_each(offer: sdp.SessionDescription) -> None:
    """Raises ProblemError."""
    sending = [medium for medium in offer.media if medium.direction in ("sendonly", "sendrecv", None)]
    if not any(medium.kind in ("video", "audio") for medium in sending):
        detail = "the offer sends neither picture nor sound: its lines must be a=sendonly"
        raise ProblemError(HTTPStatus.BAD_REQUEST, detail)
    for kind in ("video", "audio"):
        count = sum(medium.kind == kind for medium in offer.media)
        if count > 1:
            detail = f"the offer has {count} m={kind} lines, and one is supported"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _opus() -> list[RTCRtpCodecCapability]:
    known = RTCRtpReceiver.getCapabilities("audio")
    return [codec for codec in known.codecs if codec.name == "opus"] if known is not None else []


def _no_codec() -> ProblemError:
    return ProblemError(
        HTTPStatus.NOT_ACCEPTABLE, "the offer has no codec in common: picture needs H264 or VP8, sound needs opus"
    )


def _gone() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "there is no such sender, or it has left")


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _tell_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("live input has stopped", exc_info=error)
