"""Makes every H.264 that a sender may offer acceptable to a receiver whose library knows one profile.

aiortc takes H.264 as baseline in packetization mode 1 only, though its depacketizer and FFmpeg take every
profile, and mode 0 (one NAL unit a packet) is a part of mode 1. So in the offer that aiortc sees each H.264 looks
like that, and in the answer each has the sender's own parameters back: by RFC 6184 8.2.2 profile and mode are not
negotiated, an answer repeats them.
"""

from __future__ import annotations

import re

KNOWN = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
NEGOTIATED = ("level-asymmetry-allowed", "packetization-mode", "profile-level-id")
_FORMAT = re.compile(r"a=rtpmap:(\d+) H264/90000\s*$", re.IGNORECASE)
_PARAMETERS = re.compile(r"a=fmtp:(\d+) (.*\S)\s*$")


def h264_parameters(description_sdp: str) -> dict[str, str]:
    """By payload type; "" for an H.264 format without an a=fmtp line."""
    lines = description_sdp.splitlines()
    found = {match[1]: "" for match in map(_FORMAT.match, lines) if match}
    given = {match[1]: match[2] for match in map(_PARAMETERS.match, lines) if match}
    return {payload_type: given.get(payload_type, "") for payload_type in found}


def with_parameters(description_sdp: str, parameters: dict[str, str]) -> str:
    """The description with these H.264 parameters in place of its own; "" leaves a format without any."""
    lines = []
    for line in description_sdp.splitlines():
        fmtp, rtpmap = _PARAMETERS.match(line), _FORMAT.match(line)
        if fmtp and fmtp[1] in parameters:
            continue
        lines.append(line)
        if rtpmap and parameters.get(rtpmap[1]):
            lines.append(f"a=fmtp:{rtpmap[1]} {parameters[rtpmap[1]]}")
    return "".join(f"{line}\r\n" for line in lines)


def offer_to_aiortc(offer_sdp: str) -> str:
    return with_parameters(offer_sdp, dict.fromkeys(h264_parameters(offer_sdp), KNOWN))


def answer_to_sender(answer_sdp: str, offer_sdp: str) -> str:
    """The answer that aiortc gave to `offer_to_aiortc(offer_sdp)`, in the sender's terms."""
    offered = h264_parameters(offer_sdp)
    return with_parameters(answer_sdp, {name: _negotiable(value) for name, value in offered.items()})


def _negotiable(parameters: str) -> str:
    """Without what only describes the sender's own stream, such as its parameter sets."""
    given = (parameter.strip() for parameter in parameters.split(";"))
    return ";".join(parameter for parameter in given if parameter.partition("=")[0].lower() in NEGOTIATED)
