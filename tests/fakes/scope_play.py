"""A session in the fake host, and what can be said of what its viewer got."""

from __future__ import annotations

from tests.fakes.scope_host import Wire
from tests.fakes.scope_time import VirtualSession, VirtualTime, number_of, skews_s

CAT, DOG = [{"text": "a cat", "weight": 100}], [{"text": "a dog", "weight": 100}]
SMALL = {"height": 32, "width": 32}
ON_TIME_S = 0.04


def playing(time: VirtualTime, **parameters: object) -> VirtualSession:
    """A session that shows its first picture."""
    session = time.session(**{"prompts": CAT, **parameters})
    time.run(60, until=lambda: bool(session.wire.shown))
    assert session.wire.shown
    return session


def numbers(wire: Wire) -> list[int]:
    return [number_of(picture) for _, _, picture in wire.shown]


def heard_share(wire: Wire, after_s: float = 0.0) -> float:
    blocks = [sound is not None for moment, sound in wire.heard if moment >= after_s]
    return sum(blocks) / len(blocks)


def assert_in_sync(wire: Wire, frame_rate: float = 24.0, after_s: float = 0.0, share: float = 0.95) -> None:
    skews = skews_s(wire, frame_rate, after_s)
    pictures = sum(moment >= after_s for moment, _, _ in wire.shown)
    assert len(skews) >= share * pictures > 0, "pictures without sound"
    assert max(abs(skew) for skew in skews) <= ON_TIME_S
