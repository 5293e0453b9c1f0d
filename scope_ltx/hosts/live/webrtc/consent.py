"""ICE's consent checks of a sender (RFC 7675), which some senders never answer.

Checks protect an address from traffic that it does not want. A sender whose packets come, encrypted with keys that
only it has, wants the connection. FFmpeg's WHIP muxer (8.0) answers no check and was given up after 30 s, in the
middle of its sending. So checks are made only while nothing comes: then they tell a paused sender from a lost one.
"""

from __future__ import annotations

import asyncio

from aiortc import RTCPeerConnection


def check_consent(connection: RTCPeerConnection, *, wanted: bool) -> None:
    """Stop the checks of a connection, or begin them again. Nothing happens before it is up and when it is over.

    aiortc has no switch for it: this reaches for the task in which its ICE library, aioice, makes them.
    """
    for receiver in connection.getReceivers():
        ice = receiver.transport.transport._connection
        checking = ice._query_consent_task
        if checking is None:
            continue
        if wanted and checking.done():
            ice._query_consent_task = asyncio.create_task(ice.query_consent())
        elif not wanted:
            checking.cancel()
