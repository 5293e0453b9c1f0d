"""Motion tracks: the path of one thing through the picture, as a Catmull-Rom spline. Imports no torch.

Points are fractions of the picture, (0, 0) top left and (1, 1) bottom right, so that a track holds for any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIN_POINTS = 3
"""Three or four points are what the LoRA's card advises to start with; two give no curve."""

_OUTSIDE = 1.0
"""A track may leave the picture by one picture's length: things do enter and leave."""


@dataclass(frozen=True)
class TrackPoint:
    """x, y: fractions of width and height, -1..2."""

    x: float
    y: float

    def __post_init__(self) -> None:
        for name, value in (("x", self.x), ("y", self.y)):
            if not math.isfinite(value) or not -_OUTSIDE <= value <= 1.0 + _OUTSIDE:
                raise ValueError(
                    f"{name} of a track point must be a fraction of the picture, "
                    f"{-_OUTSIDE:g}..{1.0 + _OUTSIDE:g} (0 and 1 are its edges), got {value:g}"
                )


@dataclass(frozen=True)
class MotionTrack:
    """One path through three or more control points, walked from the first frame to the last."""

    points: tuple[TrackPoint, ...]

    def __post_init__(self) -> None:
        if len(self.points) < MIN_POINTS:
            raise ValueError(
                f"a motion track needs at least {MIN_POINTS} points, got {len(self.points)}: "
                "repeat a point to rest there"
            )

    def position(self, part: float) -> tuple[float, float]:
        """(x, y) at `part` of the track's time, 0..1. It passes its control points at equal intervals.

        Uniform Catmull-Rom with the end points doubled (E. Catmull, R. Rom, "A class of local interpolating
        splines", 1974). The value is not bounded as control points are: a curve may swing out.
        """
        if not 0.0 <= part <= 1.0:
            raise ValueError(f"part of a track must be within 0..1, got {part:g}")
        spans = len(self.points) - 1
        span = min(int(part * spans), spans - 1)
        local = part * spans - span
        knots = (self.points[0], *self.points, self.points[-1])[span : span + 4]
        return _cubic([point.x for point in knots], local), _cubic([point.y for point in knots], local)

    def sample(self, frames: int) -> tuple[tuple[float, float], ...]:
        """The position at each of `frames` frames; the first and last frame are the end points."""
        if frames < 1:
            raise ValueError(f"a track must be sampled for at least 1 frame, got {frames}")
        return tuple(self.position(index / max(1, frames - 1)) for index in range(frames))


def parse_tracks(value: object) -> tuple[MotionTrack, ...]:
    """Tracks from plain data: a list of tracks, each a list of [x, y] or {"x": x, "y": y}.

    Raises ValueError naming the track and the point.
    """
    tracks = _items(value)
    if tracks is None:
        raise ValueError(f"motion tracks must be a list of lists of points, got {type(value).__name__}")
    return tuple(_track(index, item) for index, item in enumerate(tracks))


def _track(index: int, value: object) -> MotionTrack:
    items = _items(value)
    if items is None:
        raise ValueError(f"motion track {index}: expected a list of points, got {type(value).__name__}")
    points = []
    for number, item in enumerate(items):
        try:
            points.append(TrackPoint(*_pair(item)))
        except ValueError as error:
            raise ValueError(f"motion track {index}, point {number}: {error}") from error
    try:
        return MotionTrack(tuple(points))
    except ValueError as error:
        raise ValueError(f"motion track {index}: {error}") from error


def _pair(value: object) -> tuple[float, float]:
    if isinstance(value, Mapping):
        pair = [value["x"], value["y"]] if set(value) == {"x", "y"} else None
    else:
        pair = _items(value)
    if pair is None or len(pair) != 2:
        raise ValueError(f"expected [x, y] or {{'x': x, 'y': y}}, got {value!r}")
    return _number(pair[0]), _number(pair[1])


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"x and y must be numbers, got {value!r}")
    return float(value)


def _items(value: object) -> list[object] | None:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else None


def _cubic(knots: Sequence[float], t: float) -> float:
    """The uniform Catmull-Rom segment from knots[1] (t = 0) to knots[2] (t = 1)."""
    before, start, end, after = knots
    slope_in, slope_out = (end - before) / 2, (after - start) / 2
    jump = start - end
    cubic = 2 * jump + slope_in + slope_out
    square = -3 * jump - 2 * slope_in - slope_out
    return ((cubic * t + square) * t + slope_in) * t + start
