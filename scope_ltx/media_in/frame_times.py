"""When a chunk's frames are due, and which frame of a source is on show then. Pure arithmetic on exact times.

The rule: a source frame is on show from its timestamp until the next one's. A chunk's frame takes the source
frame on show at its own time, looked up an eighth of a frame later (5.2 ms at 24 fps). The eighth absorbs
timestamps that a container rounded to a millisecond, which would otherwise repeat one frame and skip the next
when both rates are equal; it is too short to pass over the first frame of a clip of up to eight times the rate.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class FrameTimes:
    """`count` frames at `frame_rate`, the first at `start_s` of the source's own time. At 0 is its first frame,
    which is on show before that as well."""

    start_s: Fraction
    count: int
    frame_rate: Fraction

    def __post_init__(self) -> None:
        if self.count < 1 or self.frame_rate <= 0:
            raise ValueError(
                f"at least one frame at a positive rate, got {self.count} at {float(self.frame_rate):g} fps"
            )

    @property
    def tolerance_s(self) -> Fraction:
        return 1 / (8 * self.frame_rate)

    @property
    def duration_s(self) -> Fraction:
        return self.count / self.frame_rate

    def lookups_s(self) -> tuple[Fraction, ...]:
        """The times at which to look what is on show, from 0 on: each frame's own time and the tolerance."""
        first = self.start_s + self.tolerance_s
        return tuple(max(Fraction(0), first + i / self.frame_rate) for i in range(self.count))


def on_show(timestamps_s: Sequence[Fraction | float], at_s: Fraction | float) -> int:
    """Index of the last timestamp not after `at_s`; 0 before the first. `timestamps_s` ascend."""
    return max(0, bisect_right(timestamps_s, at_s) - 1)
