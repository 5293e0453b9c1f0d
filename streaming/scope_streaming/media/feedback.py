"""What a viewer tells about the picture that it gets: lost pictures, losses, and what its network carries.

aiortc handles these reports for frames that it encodes itself, and keeps them from a track that hands it packets.
So a listener takes the sender's place where RTCP is sorted by stream, and passes everything on.
"""

from __future__ import annotations

from aiortc import RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpSrPacket,
    unpack_remb_fci,
)

from scope_streaming.media.broadcast import Broadcaster, Subscription


class FeedbackListener:
    """Tells `subscription` what the viewer reports about `sender`'s stream. Belongs to the event loop.

    `listen` once the sender has started; it ends with the connection.
    """

    def __init__(self, sender: RTCRtpSender, subscription: Subscription, broadcaster: Broadcaster) -> None:
        self._sender = sender
        self._subscription = subscription
        self._broadcaster = broadcaster
        self._ssrc = sender._ssrc

    def listen(self) -> None:
        self._sender.transport._register_rtp_sender(self, RTCRtpSendParameters())

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        """aiortc's name for where a sender's RTCP arrives. Reports are the viewer's word: bounds come later."""
        now_s, path = self._broadcaster.now(), self._subscription.path
        target = self._broadcaster.bitrate(self._subscription.stream)
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self._ssrc:
                    path.lost(report.fraction_lost / 256, target, now_s)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self._subscription.picture_lost()
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            bitrate = _remb(packet.fci)
            if bitrate is not None:
                path.estimated(bitrate, self._subscription.sent_bitrate, target, now_s)
        await self._sender._handle_rtcp_packet(packet)


def _remb(fci: bytes) -> int | None:
    """Bits per second of a receiver's estimate; None for another application's message."""
    try:
        bitrate, _ = unpack_remb_fci(fci)
    except ValueError:
        return None
    return int(bitrate)
