"""The host's input frames as a live reference: taken off the device, made no larger than needed, given a time.

The host hands out eight frames at a time, picked evenly from what a camera or a file has sent, on the GPU where
there is one. One after the other they go into the session's own buffer, which is bounded and forgets the oldest:
taken as they come, every chunk's guide would end with a picture that stands still until the next eight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scope_ltx.hosts.scope.values import shown
from scope_ltx.inputs import Pixels

MAX_SIDE = 8192
DEFAULT_STEP_S = 1 / 30
"""Between frames without timestamps, before there is anything to measure it by."""

Push = Callable[[Pixels, float], None]


class InputFrames:
    """Of one host session; one thread at a time. Frames keep the times of their source where those are valid."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._arrived_s: float | None = None
        self._waiting: deque[tuple[float, Pixels, float]] = deque()

    def take(self, video: object, stamps: object, size: tuple[int, int], now_s: float) -> None:
        """A batch of the host's. `size` is the chunk's (height, width). Never raises for what a client or a source
        sends."""
        if not isinstance(video, list | tuple):
            self._report(f"video: expected a list of frames, got {shown(video)}")
            return
        times = self._times(stamps, len(video), now_s)
        late = [(0.0, pixels, time_s) for _, pixels, time_s in self._waiting]
        self._waiting = deque(late)
        for item, time_s in zip(video, times, strict=True):
            pixels = self._pixels(item, size)
            if pixels is not None:
                self._waiting.append((now_s + time_s - times[0], pixels, time_s))

    def push_due(self, now_s: float, push: Push) -> None:
        """Give every frame that is due to `push`, with its time: they come as far apart as they were filmed."""
        while self._waiting and self._waiting[0][0] <= now_s:
            _, pixels, time_s = self._waiting.popleft()
            push(pixels, time_s)

    def _pixels(self, item: object, size: tuple[int, int]) -> Pixels | None:
        if not isinstance(item, Tensor):
            self._report(f"video: expected tensors, got {shown(item)}: it is left out")
            return None
        frame = item[0] if item.ndim == 4 and item.shape[0] == 1 else item
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != torch.uint8 or 0 in frame.shape:
            self._report(
                f"video: expected uint8 (1, H, W, 3), got {item.dtype} {tuple(item.shape)}: it is left out"
            )
            return None
        if max(frame.shape) > MAX_SIDE:
            self._report(f"video: a frame of {tuple(frame.shape[:2])} is too large, at most {MAX_SIDE} a side")
            return None
        return smaller(frame, size)

    def _times(self, stamps: object, count: int, now_s: float) -> list[float]:
        """The source's own times where all of them are valid and rise, else spread up to now."""
        given = [_seconds(stamp) for stamp in stamps] if isinstance(stamps, list | tuple) else []
        known = [time_s for time_s in given if time_s is not None]
        if count and len(known) == count and all(b > a for a, b in pairwise(known)):
            return known
        since = DEFAULT_STEP_S * count if self._arrived_s is None else min(now_s - self._arrived_s, 1.0)
        self._arrived_s = now_s
        step = max(since, 0.0) / max(1, count)
        return [now_s - step * (count - 1 - index) for index in range(count)]


def smaller(frame: Tensor, size: tuple[int, int]) -> Pixels:
    """(H, W, 3) on the CPU. One that is at least twice as large as `size` both ways is averaged down by a whole
    number first, on the device where it is: the rest is done when a chunk is made."""
    times = min(frame.shape[0] // size[0], frame.shape[1] // size[1])
    if times > 1 and frame.device.type == "cpu":
        # 7 ms for 1920x1080, a seventh of what the pooling below takes there.
        return np.asarray(Image.fromarray(np.ascontiguousarray(frame.numpy())).reduce(times))
    if times > 1:
        planes = frame.permute(2, 0, 1)[None].float()
        frame = torch.nn.functional.avg_pool2d(planes, times)[0].round().to(torch.uint8).permute(1, 2, 0)
    pixels: Pixels = np.ascontiguousarray(frame.cpu().numpy())
    return pixels


def _seconds(stamp: Any) -> float | None:
    """Of a MediaTimestamp, which may be empty."""
    pts, base = getattr(stamp, "pts", None), getattr(stamp, "time_base", None)
    if pts is None or base is None:
        return None
    try:
        seconds = float(pts * base)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if abs(seconds) < 1e12 else None
