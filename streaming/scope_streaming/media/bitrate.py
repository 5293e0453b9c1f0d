"""How many bits per second a picture gets: from its size and rate, and from what the viewers' networks carry.

Pure: seconds and reports come in, bits per second go out.
"""

from __future__ import annotations

from collections.abc import Iterable

LOW_LOSS, HIGH_LOSS = 0.02, 0.10
"""Below the first the rate grows, above the second it falls: the bounds of loss-based control in WebRTC."""
GROWTH_PER_S = 1.08
FLOOR_SHARE = 0.3
"""Of the nominal bitrate. All viewers share one encode, so one bad network may cost the others that much and no
more; at a third of the bits a picture is soft, but a picture."""
APP_LIMITED_SHARE = 0.7
"""Of the target. A still picture needs less than it may have; a receiver that gets less than this has seen nothing
of what its network could carry, and estimates half as much again as it gets at most."""
REPORT_TTL_S = 15.0
"""A limit that was not renewed for so long is forgotten. Receivers report about once a second."""


def video_bitrate(width: int, height: int, frame_rate: float) -> int:
    """Bits per second that suit a size and rate, from 0.3 to 20 Mb/s.

    A power law through 1.5 Mb/s at 640x360 and 24 fps and about 7 Mb/s at 1920x1080 and 30 fps, the region in
    which published streaming ladders lie for H.264 with a fast preset.
    """
    pixels_per_s = width * height * frame_rate
    return int(min(20e6, max(0.3e6, 1.5e6 * (pixels_per_s / (640 * 360 * 24)) ** 0.64)))


def shared_bitrate(nominal: int, limits: Iterable[float | None]) -> int:
    """What one encode gets for viewers with these `limits` (None: no limit): the lowest, but at least
    `FLOOR_SHARE` of `nominal`, and never more than that."""
    lowest = min((limit for limit in limits if limit is not None), default=float(nominal))
    return int(min(nominal, max(FLOOR_SHARE * nominal, lowest)))


class PathRate:
    """What the way to one viewer carries, as far as its reports tell. One thread at a time."""

    def __init__(self) -> None:
        self._estimate: tuple[float, float] | None = None
        self._by_loss: float | None = None
        self._loss_at_s = 0.0

    def estimated(self, bitrate: float, sent: float, target: float, now_s: float) -> None:
        """The viewer's own estimate (REMB), while `sent` bits per second went out and `target` were allowed."""
        if bitrate > sent and sent < APP_LIMITED_SHARE * target:
            return
        self._estimate = (max(0.0, bitrate), now_s)

    def lost(self, share: float, target: float, now_s: float) -> None:
        """The share 0..1 of packets lost since the last report, while `target` bits per second were allowed."""
        passed_s = min(1.0, now_s - self._loss_at_s)
        if share > HIGH_LOSS and target > 0:
            self._by_loss = min(self._by_loss or target, target) * (1 - 0.5 * min(1.0, share))
        elif share < LOW_LOSS and self._by_loss is not None:
            self._by_loss *= float(GROWTH_PER_S**passed_s)
        self._loss_at_s = now_s

    def limit(self, now_s: float) -> float | None:
        """Bits per second, None when nothing limits."""
        limits = []
        if self._estimate is not None and now_s - self._estimate[1] <= REPORT_TTL_S:
            limits.append(self._estimate[0])
        if self._by_loss is not None and now_s - self._loss_at_s <= REPORT_TTL_S:
            limits.append(self._by_loss)
        return min(limits, default=None)
