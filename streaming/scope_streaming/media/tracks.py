"""A viewer's tracks: aiortc asks for the next packet, and gets it when it is due."""

from __future__ import annotations

from typing import Any, Literal

import av
from aiortc import MediaStreamTrack, RTCRtpSender
from aiortc.mediastreams import MediaStreamError

from scope_streaming.media.broadcast import Broadcaster, Subscription, SubscriptionClosedError
from scope_streaming.media.encoder import Stream
from scope_streaming.media.feedback import FeedbackListener


class BroadcastTrack(MediaStreamTrack):
    """One stream of a broadcast for one viewer.

    Subscribes at the first `recv`, which aiortc calls when the connection is up: what was published while it
    was being made is never sent, and the first picture is a keyframe.
    """

    def __init__(self, broadcaster: Broadcaster, kind: Literal["audio", "video"]) -> None:
        super().__init__()
        self.kind = kind
        self._broadcaster = broadcaster
        self._stream: Stream | None = "audio" if kind == "audio" else None
        self._subscription: Subscription | None = None
        self._sender: RTCRtpSender | None = None

    def choose(self, stream: Stream) -> None:
        """Which encoding to send; known only after the negotiation."""
        self._stream = stream

    def heed(self, sender: RTCRtpSender) -> None:
        """The viewer's reports about what `sender` sends shall steer the encoder."""
        self._sender = sender

    async def recv(self) -> av.Packet[Any]:
        """The next encoded packet. Raises MediaStreamError when the track or the broadcast has ended."""
        if self.readyState != "live":
            raise MediaStreamError
        if self._stream is None:
            raise MediaStreamError(f"no codec was chosen for the {self.kind} track")
        if self._subscription is None:
            self._subscription = self._start(self._stream)
        try:
            packet = await self._subscription.next()
        except SubscriptionClosedError as error:
            self.stop()
            raise MediaStreamError("the broadcast has ended") from error
        return packet.data

    def stop(self) -> None:
        super().stop()
        if self._subscription is not None:
            self._broadcaster.unsubscribe(self._subscription)

    def _start(self, stream: Stream) -> Subscription:
        subscription = self._broadcaster.subscribe(stream)
        if self._sender is not None:
            FeedbackListener(self._sender, subscription, self._broadcaster).listen()
        return subscription
