"""SDP fragments of trickled candidates (RFC 8840): read, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from aiortc import RTCIceCandidate
from aiortc.sdp import candidate_from_sdp

from scope_ltx.hosts.live.http.problems import ProblemError

SDP_FRAGMENT = "application/trickle-ice-sdpfrag"
MAX_CANDIDATES = 64
"""In one fragment. A machine with a dozen addresses has some thirty."""


@dataclass(frozen=True)
class Fragment:
    """`username` and `password` are the ICE credentials that it belongs to. `complete`: no more will come."""

    username: str | None
    password: str | None
    candidates: tuple[RTCIceCandidate, ...]
    complete: bool


def read_fragment(body: bytes) -> Fragment:
    """Raises ProblemError 400 for what is no fragment, 413 for too many candidates."""
    credentials: dict[str, str] = {}
    candidates: list[RTCIceCandidate] = []
    mid, index, complete = None, -1, False
    try:
        for line in body.decode("utf-8").splitlines():
            name, _, value = line.strip().partition(":")
            if line.startswith("m="):
                mid, index = None, index + 1
            elif name == "a=mid":
                mid = value
            elif name in ("a=ice-ufrag", "a=ice-pwd"):
                credentials[name] = value
            elif name == "a=end-of-candidates":
                complete = True
            elif name == "a=candidate":
                candidate = candidate_from_sdp(value)
                candidate.sdpMid, candidate.sdpMLineIndex = mid, max(0, index)
                candidates.append(candidate)
    except (ValueError, AssertionError, IndexError) as error:
        detail = f"the body is no SDP fragment with candidates: {error or 'a candidate is cut off'}"
        raise ProblemError(HTTPStatus.BAD_REQUEST, detail) from error
    if len(candidates) > MAX_CANDIDATES:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"one request may bring {MAX_CANDIDATES} candidates at most"
        )
    return Fragment(credentials.get("a=ice-ufrag"), credentials.get("a=ice-pwd"), tuple(candidates), complete)
