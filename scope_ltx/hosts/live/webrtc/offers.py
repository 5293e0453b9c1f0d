"""SDP offers over HTTP: checked before aiortc sees them, and refused with a sentence."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Literal

from aiortc import sdp
from fastapi import Request

from scope_ltx.hosts.live.http.bodies import read_body, require_media_type
from scope_ltx.hosts.live.http.problems import ProblemError

Kind = Literal["audio", "video"]
KINDS: tuple[Kind, ...] = ("video", "audio")
SDP = "application/sdp"
MAX_SDP_BYTES = 256 * 1024


async def read_offer(request: Request) -> str:
    """The SDP in the body. Raises ProblemError 415, 413, 408 or 400."""
    require_media_type(request, SDP)
    body = await read_body(request, MAX_SDP_BYTES)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the SDP offer is not UTF-8 text: {error.reason}") from error


def parsed_offer(offer_sdp: str) -> sdp.SessionDescription:
    """Raises ProblemError 400.

    Checks what aiortc takes for granted and would fail on half-way, unable to connect or even to close.
    """
    if not re.match(r"v=0\r?\n", offer_sdp):
        raise bad_offer('it must start with the line "v=0"')
    try:
        offer = sdp.SessionDescription.parse(offer_sdp)
    except Exception as error:
        # The parser answers bad input with whatever Python raised at that spot, so the set is open.
        raise bad_offer(said(error)) from error
    media = {medium.rtp.muxId: medium for medium in offer.media}
    if not any(medium.kind in KINDS for medium in offer.media):
        raise bad_offer("it has neither an m=video nor an m=audio line")
    for group in offer.group:
        for mid in group.items:
            if mid not in media:
                raise bad_offer(f"it bundles {mid}, which no a=mid line names")
    for medium in offer.media:
        if medium.ice is None or not (medium.ice.usernameFragment and medium.ice.password):
            raise bad_offer(f"its m={medium.kind} has no a=ice-ufrag and a=ice-pwd lines")
        if medium.dtls is None or not medium.dtls.fingerprints:
            raise bad_offer(f"its m={medium.kind} has no a=fingerprint line")
    return offer


def offered_kinds(offer: sdp.SessionDescription) -> set[Kind]:
    """Which of picture and sound it has a line for."""
    return {kind for kind in KINDS if any(medium.kind == kind for medium in offer.media)}


def bad_offer(why: str) -> ProblemError:
    return ProblemError(HTTPStatus.BAD_REQUEST, f"the body is no SDP offer for WebRTC: {why}")


def no_address() -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "this machine has no network address that the other side could reach: connect an interface",
        {"Retry-After": "5"},
    )


def said(error: Exception) -> str:
    name = type(error).__name__
    return f"it cannot be understood ({name}: {error})" if str(error) else f"it cannot be understood ({name})"
