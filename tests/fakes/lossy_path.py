"""A network that loses, delays and adds packets, between one peer and the server: a UDP relay on this machine.

Each side is told the relay's port in place of the other's candidates. No privilege is needed, and no other
connection is touched.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import re
from dataclasses import dataclass, field

Address = tuple[str, int]
STUN_REQUEST = b"\x00\x01"
_CANDIDATE = re.compile(r"a=candidate:\S+ 1 udp \d+ ([0-9.]+) (\d+) typ host", re.IGNORECASE)


def _first_candidate(description_sdp: str) -> Address:
    found = _CANDIDATE.search(description_sdp)
    assert found is not None, description_sdp
    return found[1], int(found[2])


def _with_candidate(description_sdp: str, end: asyncio.DatagramTransport) -> str:
    host, port = end.get_extra_info("sockname")[:2]
    relay = f"a=candidate:1 1 udp 2130706431 {host} {port} typ host"
    lines = [relay if line.startswith("a=candidate:") else line for line in description_sdp.splitlines()]
    return "".join(f"{line}\r\n" for line, _ in itertools.groupby(lines))


@dataclass
class LossyPath:
    """Set `loss` (0 to 1) and `jitter_s` (each packet is delayed by up to so much, so they overtake each other) at
    any time. `cut`: nothing passes. `deaf`: the server's checks (STUN requests) do not reach the peer. Counts what
    came by."""

    loss: float = 0.0
    jitter_s: float = 0.0
    cut: bool = False
    deaf: bool = False
    passed: int = 0
    lost: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(7))
    _near: asyncio.DatagramTransport | None = None
    _far: asyncio.DatagramTransport | None = None
    _peer: Address | None = None
    _server: Address | None = None

    def inject(self, data: bytes) -> None:
        """Send `data` to the server as if the peer had sent it."""
        assert self._far is not None
        self._far.sendto(data, self._server)

    async def offer_through(self, offer_sdp: str) -> str:
        """Opens the relay: the peer's offer with it as the only candidate, so that there is no other way."""
        self._peer = _first_candidate(offer_sdp)
        loop = asyncio.get_running_loop()
        ends = [
            await loop.create_datagram_endpoint(functools.partial(_End, self, peer), (self._peer[0], 0))
            for peer in (True, False)
        ]
        (self._near, _), (self._far, _) = ends
        return _with_candidate(offer_sdp, self._far)

    def answer_through(self, answer_sdp: str) -> str:
        """The server's answer with the relay as its only candidate."""
        self._server = _first_candidate(answer_sdp)
        assert self._near is not None
        return _with_candidate(answer_sdp, self._near)

    def close(self) -> None:
        for end in (self._near, self._far):
            if end is not None:
                end.close()

    def _carry(self, data: bytes, sender: Address, *, from_peer: bool) -> None:
        if from_peer:
            self._peer = sender
        unheard = self.deaf and not from_peer and data[:2] == STUN_REQUEST
        if self.cut or unheard or self._random.random() < self.loss:
            self.lost += 1
            return
        self.passed += 1
        if self.jitter_s:
            delay_s = self._random.uniform(0, self.jitter_s)
            asyncio.get_running_loop().call_later(delay_s, self._send, data, from_peer)
        else:
            self._send(data, from_peer)

    def _send(self, data: bytes, from_peer: bool) -> None:
        way, target = (self._far, self._server) if from_peer else (self._near, self._peer)
        if way is not None and target is not None and not way.is_closing():
            way.sendto(data, target)


class _End(asyncio.DatagramProtocol):
    def __init__(self, path: LossyPath, from_peer: bool) -> None:
        self._path = path
        self._from_peer = from_peer

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._path._carry(data, addr[:2], from_peer=self._from_peer)
