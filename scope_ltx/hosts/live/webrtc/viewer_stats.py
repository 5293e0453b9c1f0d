"""How the network treats each viewer, from the counters and receiver reports that aiortc keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from aiortc import RTCPeerConnection
from aiortc.stats import RTCOutboundRtpStreamStats, RTCRemoteInboundRtpStreamStats

from scope_streaming.media.encoder import AUDIO_TIME_BASE, VIDEO_TIME_BASE

LOSS_UNIT = 256
"""Receiver reports count loss in 1/256 (RFC 3550, 6.4.1)."""
MAX_ROUND_TRIP_S = 60.0
"""aiortc times round trips by the date, which can be set meanwhile: what is longer, or negative, is none."""


@dataclass(frozen=True)
class Flow:
    """One stream to one viewer. None until its first receiver report. `loss` is 0 to 1, between two reports."""

    sent_nbytes: int = 0
    round_trip_s: float | None = None
    loss: float | None = None
    jitter_s: float | None = None


@dataclass(frozen=True)
class ViewerStats:
    """`name` tells viewers apart in logs and metrics; it is no key to anything. `flows` by "audio", "video"."""

    name: str
    flows: Mapping[str, Flow]


async def viewer_stats(connections: Mapping[str, RTCPeerConnection]) -> list[ViewerStats]:
    """By name."""
    return [ViewerStats(name, await _flows(connection)) for name, connection in connections.items()]


async def _flows(connection: RTCPeerConnection) -> dict[str, Flow]:
    flows: dict[str, Flow] = {}
    for sender in connection.getSenders():
        flow = flows.get(sender.kind, Flow())
        for stats in (await sender.getStats()).values():
            if isinstance(stats, RTCOutboundRtpStreamStats):
                flow = replace(flow, sent_nbytes=flow.sent_nbytes + stats.bytesSent)
            elif isinstance(stats, RTCRemoteInboundRtpStreamStats):
                base = AUDIO_TIME_BASE if sender.kind == "audio" else VIDEO_TIME_BASE
                flow = replace(
                    flow,
                    round_trip_s=_plausible(stats.roundTripTime),
                    loss=stats.fractionLost / LOSS_UNIT,
                    jitter_s=float(stats.jitter * base),
                )
        flows[sender.kind] = flow
    return flows


def _plausible(round_trip_s: float | None) -> float | None:
    return round_trip_s if round_trip_s is not None and 0 <= round_trip_s <= MAX_ROUND_TRIP_S else None
