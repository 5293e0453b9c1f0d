"""Canny edges against known pictures, and against a plain Canny that looks at one pixel at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scope_ltx.control.canny import CannyThresholds, canny


def grey(picture: Tensor) -> Tensor:
    """One frame of three equal channels from (H, W)."""
    return picture.to(torch.uint8)[None, :, :, None].expand(1, *picture.shape, 3)


def edges(frames: Tensor, thresholds: CannyThresholds | None = None) -> Tensor:
    """The edges of a clip as a mask (F, H, W), after checking that it is white on black."""
    drawn = canny(frames, thresholds)
    assert drawn.shape == frames.shape
    assert drawn.dtype == torch.uint8
    assert drawn.is_contiguous()
    assert ((drawn == 0) | (drawn == 255)).all()
    assert (drawn == drawn[..., :1]).all()
    return drawn[..., 0] > 0


def plain_canny(frame: Tensor, low: float, high: float) -> list[list[bool]]:
    """Canny of one frame (H, W, 3) without a single tensor operation."""
    height, width = frame.shape[:2]
    pixels = frame.tolist()

    def value(y: int, x: int, channel: int) -> int:
        return int(pixels[min(max(y, 0), height - 1)][min(max(x, 0), width - 1)][channel])

    def gradient(y: int, x: int) -> tuple[int, int, int]:
        best = (0, 0, 0)
        for channel in range(3):
            gx = sum(w * (value(y + d, x + 1, channel) - value(y + d, x - 1, channel)) for d, w in SOBEL)
            gy = sum(w * (value(y + 1, x + d, channel) - value(y - 1, x + d, channel)) for d, w in SOBEL)
            if abs(gx) + abs(gy) > best[0]:
                best = (abs(gx) + abs(gy), gx, gy)
        return best

    field = {(y, x): gradient(y, x) for y in range(height) for x in range(width)}
    thin = set()
    for (y, x), (size, gx, gy) in field.items():
        angle = math.degrees(math.atan2(gy, gx)) % 180
        dy, dx = [(0, 1), (1, 1), (1, 0), (1, -1)][round(angle / 45) % 4]
        before, after = field.get((y - dy, x - dx), (0,))[0], field.get((y + dy, x + dx), (0,))[0]
        last = size >= after if 0 in (dy, dx) else size > after
        if size > low and size > before and last:
            thin.add((y, x))
    found = {place for place in thin if field[place][0] > high}
    stack = list(found)
    while stack:
        y, x = stack.pop()
        near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & thin - found
        found |= near
        stack += near
    return [[(y, x) in found for x in range(width)] for y in range(height)]


SOBEL = ((-1, 1), (0, 2), (1, 1))


@given(
    seed=st.integers(0, 2**31),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    contrast=st.sampled_from([20, 60, 255]),
    low=st.sampled_from([0.0, 40.0, 92.0, 200.5]),
    gap=st.sampled_from([0.0, 60.0, 108.0, 400.0]),
)
@settings(max_examples=60, deadline=None)
def test_equals_a_plain_canny(seed: int, size: tuple[int, int], contrast: int, low: float, gap: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, contrast + 1, (2, *size, 3), generator=generator).to(torch.uint8)
    found = edges(frames, CannyThresholds(low, low + gap))
    for frame, mask in zip(frames, found, strict=True):
        assert mask.tolist() == plain_canny(frame, low, low + gap)


def test_a_rectangle_gives_its_outline_one_pixel_wide() -> None:
    picture = torch.zeros(40, 60)
    picture[10:30, 15:45] = 255
    mask = edges(grey(picture))[0]
    for row in range(12, 28):
        assert mask[row].nonzero()[:, 0].tolist() in ([14, 44], [15, 45], [14, 45], [15, 44])
    for column in range(17, 43):
        assert mask[:, column].sum() == 2
    assert not mask[13:27, 18:42].any()
    assert not mask[:9].any()
    assert not mask[31:].any()
    # A closed line: every edge pixel has at least two neighbours on it.
    padded = torch.nn.functional.pad(mask[None, None].float(), (1, 1, 1, 1))
    neighbours = torch.nn.functional.conv2d(padded, torch.ones(1, 1, 3, 3))[0, 0] - 1
    assert (neighbours[mask] >= 2).all()


def test_a_gradient_and_a_plain_surface_give_none() -> None:
    slope = torch.linspace(0, 255, 120).expand(40, 120)
    assert not edges(grey(slope)).any()
    assert not edges(grey(slope.T)).any()
    assert not edges(grey(torch.full((16, 16), 200.0))).any()


@pytest.mark.parametrize("step", [22, 24, 49, 51])
def test_thresholds_are_gradient_magnitudes_on_the_byte_scale(step: int) -> None:
    """A step of s between two halves has a Sobel magnitude of 4 s: 92 is between 22 and 24, 200 is 50."""
    picture = torch.zeros(12, 12)
    picture[:, 6:] = step
    assert edges(grey(picture)).any() == (4 * step > 200)
    assert edges(grey(picture), CannyThresholds(92, 92)).any() == (4 * step > 92)


def test_hysteresis_keeps_a_faint_line_that_touches_a_clear_one() -> None:
    picture = torch.zeros(20, 90)
    picture[10:] = 40
    assert not edges(grey(picture)).any(), "magnitude 160 is below 200"
    picture[10:, :30] = 60
    assert edges(grey(picture))[0].any(dim=0).all(), "but it is joined to 240 now"


def test_hysteresis_follows_a_long_line_to_its_end() -> None:
    picture = torch.zeros(64, 64)
    picture[20:, :] = 30
    picture[20:, :3] = 255
    assert edges(grey(picture))[0].any(dim=0).all()


def test_nothing_passes_from_one_frame_to_the_next() -> None:
    faint = torch.zeros(16, 16)
    faint[8:, :] = 30
    clear = torch.zeros(16, 16)
    clear[8:, :] = 255
    frames = torch.cat([grey(faint), grey(clear), grey(faint)])
    assert edges(frames).flatten(1).any(dim=1).tolist() == [False, True, False]


def test_a_colour_edge_without_a_change_of_brightness_is_found() -> None:
    frames = torch.zeros(1, 12, 12, 3, dtype=torch.uint8)
    frames[:, :, :6, 0] = 150
    frames[:, :, 6:, 1] = 150
    assert edges(frames)[0][:, 4:8].any(dim=1).all()


def test_groups_of_frames_do_not_change_the_result() -> None:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (5, 600, 500, 3), generator=generator).to(torch.uint8)
    together = edges(frames, CannyThresholds(600, 1200))
    alone = torch.cat([edges(frame[None], CannyThresholds(600, 1200)) for frame in frames])
    assert torch.equal(together, alone)


def test_blur_takes_noise_out_and_keeps_the_shape() -> None:
    generator = torch.Generator().manual_seed(2)
    picture = torch.full((48, 48), 40.0)
    picture[16:32, 16:32] = 215
    noisy = (picture + 20 * torch.randn(48, 48, generator=generator)).clamp(0, 255)
    plain, blurred = edges(grey(noisy))[0], edges(grey(noisy), CannyThresholds(blur_sigma_px=1.4))[0]
    outside = torch.ones(48, 48, dtype=torch.bool)
    outside[12:36, 12:36] = False
    assert plain[outside].float().mean() > 0.05
    assert blurred[outside].float().mean() < 0.005
    assert blurred[20:28, 14:18].any(dim=1).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 200, "high": 92}, "0 <= low <= high <= 2040, got low 200 and high 92"),
        ({"low": -1}, "got low -1"),
        ({"high": 2041}, "high 2041"),
        ({"low": math.nan}, "got low nan"),
        ({"blur_sigma_px": -0.5}, "blur_sigma_px must be within 0..16, got -0.5"),
    ],
)
def test_thresholds_are_checked(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        CannyThresholds(**values)


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(1, 8, 8, 3),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(1, 8, 8, 4, dtype=torch.uint8),
        torch.zeros(0, 8, 8, 3, dtype=torch.uint8),
    ],
)
def test_other_pictures_are_refused(frames: Tensor) -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8 \(F, H, W, 3\) RGB"):
        canny(frames)
