"""Guides that are drawn or painted: motion trails, outpainting canvases, inpainting masks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scope_ltx.control.draw_tracks import SHORT_SIDE, TRAIL_FRAMES, draw_tracks
from scope_ltx.control.inpaint import BLOCKS, FILL, MaskPaint, paint_mask
from scope_ltx.control.outpaint import letterbox, lift_dark, restore_dark
from scope_ltx.control.tracks import MotionTrack, TrackPoint, parse_tracks

CPU = torch.device("cpu")
fractions = st.floats(-1, 2)
point_lists = st.lists(st.tuples(fractions, fractions), min_size=3, max_size=6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).to(torch.uint8)


@given(points=point_lists, frames=st.integers(1, 40))
def test_a_track_passes_its_points_at_equal_intervals(points: list[tuple[float, float]], frames: int) -> None:
    (track,) = parse_tracks([points])
    spans = len(points) - 1
    for index, point in enumerate(points):
        assert track.position(index / spans) == pytest.approx(point, abs=1e-6)
    sampled = track.sample(frames)
    assert len(sampled) == frames
    assert sampled[0] == pytest.approx(points[0])
    if frames > 1:
        assert sampled[-1] == pytest.approx(points[-1])


@given(points=point_lists, shift=st.floats(0, 1), part=st.floats(0, 1))
def test_a_track_that_is_moved_or_mirrored_keeps_its_form(
    points: list[tuple[float, float]], shift: float, part: float
) -> None:
    inside = [((x + 1) / 3, (y + 1) / 3) for x, y in points]
    track = parse_tracks([inside])[0]
    moved = parse_tracks([[(x - shift, y) for x, y in inside]])[0]
    x, y = track.position(part)
    assert moved.position(part) == pytest.approx((x - shift, y), abs=1e-9)
    back = MotionTrack(tuple(reversed(track.points)))
    assert back.position(1 - part) == pytest.approx((x, y), abs=1e-6)


def test_points_on_a_line_are_walked_evenly() -> None:
    track = parse_tracks([[[0.2, 0.3], [0.4, 0.5], [0.6, 0.7], [0.8, 0.9]]])[0]
    assert track.position(0.5) == pytest.approx((0.5, 0.6))


def test_a_smooth_corner_swings_out() -> None:
    """Between the second and third of four points the uniform spline is at (9 (p1 + p2) - p0 - p3) / 16."""
    track = parse_tracks([[[0, 0], [0.25, 0.5], [0.75, 0.5], [1, 0]]])[0]
    assert track.position(0.5) == pytest.approx((0.5, 9 / 16))


def test_both_forms_of_points_are_read() -> None:
    pairs = parse_tracks([[[0.1, 0.2], (0.3, 0.4), [1, 0]]])
    assert pairs == parse_tracks([[{"x": 0.1, "y": 0.2}, {"y": 0.4, "x": 0.3}, {"x": 1, "y": 0}]])
    assert pairs[0].points[2] == TrackPoint(1.0, 0.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0,0", "motion tracks must be a list of lists of points, got str"),
        ([3], "motion track 0: expected a list of points, got int"),
        (
            [[[0, 0], [1, 1], [0, 1]], [[0, 0], [1, 1]]],
            "motion track 1: a motion track needs at least 3 points, got 2",
        ),
        ([[[0, 0], [1], [2, 2]]], r"motion track 0, point 1: expected \[x, y\] or"),
        ([[[0, 0], [1, 1], [320, 2]]], "point 2: x of a track point must be a fraction of the picture.*got 320"),
        ([[[0, 0], [1, math.nan], [0, 0]]], "point 1: y of a track point must be a fraction.*got nan"),
        ([[[0, 0], ["1", 1], [0, 0]]], "point 1: x and y must be numbers, got '1'"),
        ([[[0, 0], [True, 1], [0, 0]]], "x and y must be numbers, got True"),
        ([[{"x": 1, "z": 1}]], "point 0: expected"),
    ],
)
def test_tracks_are_checked(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_tracks(value)


def still(x: float, y: float) -> MotionTrack:
    return MotionTrack((TrackPoint(x, y),) * 3)


def test_the_newest_circle_is_red_before_the_channels_are_swapped_and_has_radius_8() -> None:
    frame = draw_tracks([still(0.5, 0.5)], 1, SHORT_SIDE, SHORT_SIDE, CPU)[0]
    middle = SHORT_SIDE // 2
    assert frame[middle, middle].tolist() == [0, 0, 255]
    drawn = frame.any(dim=2)
    assert drawn.any(dim=0).sum() == drawn.any(dim=1).sum() == 17
    assert drawn.sum() == sum(x * x + y * y <= 64 for x in range(-8, 9) for y in range(-8, 9))


def test_a_trail_ages_from_red_over_yellow_and_green_to_blue_and_ends_after_50_frames() -> None:
    """Frame 60 of a straight walk: what was drawn n frames ago lies n steps behind; red and blue are swapped."""
    track = parse_tracks([[[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]]])[0]
    frame = draw_tracks([track], 61, 540, 540, CPU)[60]

    def place(age: int) -> int:
        """Each pixel is the mean of 2x2 drawn ones: that of the circle's centre and its neighbours."""
        return round(track.position((60 - age) / 60)[0] * SHORT_SIDE) // 2

    assert frame[270, place(0)].tolist() == [0, 0, 255]
    assert frame[270, place(25)].tolist() == [0, 255, 128], "youth 0.5, half way from green to yellow"
    assert frame[270, place(50)].tolist() == [255, 0, 0], "the oldest is blue, seen as red"
    assert frame[270, place(51)].tolist() == [0, 0, 0]
    newest, oldest = (int(frame[:, place(age)].any(dim=1).sum()) for age in (0, 50))
    assert (newest, oldest) == (9, 3), "8 and 2 drawn pixels to each side"


def test_newer_covers_older_where_tracks_cross() -> None:
    there_and_back = parse_tracks([[[0.5, 0.5], [0.9, 0.5], [0.5, 0.5]]])[0]
    frame = draw_tracks([there_and_back], 31, 540, 540, CPU)[30]
    assert frame[270, 270].tolist() == [0, 0, 255]


@pytest.mark.parametrize("size", [(384, 320), (96, 160)])
def test_trails_scale_with_the_picture(size: tuple[int, int]) -> None:
    height, width = size
    frames = draw_tracks([still(0.5, 0.5), still(1.8, 0.5)], TRAIL_FRAMES + 3, height, width, CPU)
    assert frames.shape == (TRAIL_FRAMES + 3, height, width, 3)
    assert frames.dtype == torch.uint8
    assert frames.is_contiguous()
    assert frames[:, height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1].any()
    far = frames.clone()
    reach = 2 + round(8 * min(size) / SHORT_SIDE)
    far[:, height // 2 - reach : height // 2 + reach, width // 2 - reach : width // 2 + reach] = 0
    assert not far.any(), "nothing but the dot in the middle; the other track is outside"


def test_drawing_needs_tracks_frames_and_a_size() -> None:
    with pytest.raises(ValueError, match="no motion track was given"):
        draw_tracks([], 9, 64, 64, CPU)
    with pytest.raises(ValueError, match="must be at least 1, got 0, 64 and 64"):
        draw_tracks([still(0, 0)], 0, 64, 64, CPU)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    canvas=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    anchor=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    scale=st.floats(0.05, 1),
)
def test_letterboxing_keeps_the_aspect_and_fills_the_rest_with_black(
    size: tuple[int, int], canvas: tuple[int, int], anchor: tuple[float, float], scale: float
) -> None:
    frames = torch.full((2, *size, 3), 200, dtype=torch.uint8)
    boxed = letterbox(frames, *canvas, anchor=anchor, scale=scale)
    assert boxed.frames.shape == (2, *canvas, 3)
    inside = torch.zeros(canvas, dtype=torch.bool)
    inside[boxed.top : boxed.top + boxed.height, boxed.left : boxed.left + boxed.width] = True
    assert inside.sum() == boxed.height * boxed.width
    assert (boxed.frames[:, inside] == 200).all()
    assert not boxed.frames[:, ~inside].any()
    exact = min(canvas[0] / size[0], canvas[1] / size[1]) * scale
    assert abs(boxed.height - max(1, size[0] * exact)) <= 0.5 + 1e-9
    assert abs(boxed.width - max(1, size[1] * exact)) <= 0.5 + 1e-9


def test_a_clip_that_fits_is_placed_untouched() -> None:
    frames = noise(3, 48, 64, 3)
    boxed = letterbox(frames, 48, 96, anchor=(0.0, 0.5))
    assert (boxed.top, boxed.left, boxed.height, boxed.width) == (0, 0, 48, 64)
    assert torch.equal(boxed.frames[:, :, :64], frames)
    assert letterbox(frames, 48, 96, anchor=(1.0, 0.5)).left == 32
    assert letterbox(frames, 48, 96, scale=0.5).height == 24


def test_letterbox_is_checked() -> None:
    frames = noise(1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"scale must be above 0 and at most 1, got 1\.5"):
        letterbox(frames, 16, 16, scale=1.5)
    with pytest.raises(ValueError, match="anchor must be two fractions"):
        letterbox(frames, 16, 16, anchor=(2.0, 0.0))
    with pytest.raises(ValueError, match="height 0 and width 16"):
        letterbox(frames, 0, 16)
    with pytest.raises(ValueError, match="frames must be uint8"):
        letterbox(frames.float(), 16, 16)


@given(gamma=st.floats(1, 2.0))
def test_gamma_lifts_the_dark_keeps_black_and_white_and_comes_back(gamma: float) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    lifted = lift_dark(levels, gamma)
    assert (lifted >= levels).all()
    assert lifted[0, 0, 0].tolist() == [0, 0, 0]
    assert lifted[0, -1, -1].tolist() == [255, 255, 255]
    back = restore_dark(lifted, gamma)
    assert (back.int() - levels.int()).abs().max() <= 1
    assert ((levels > 0) <= (lifted > 0)).all(), "nothing of the picture becomes the mark"


def test_gamma_2_is_the_square_root() -> None:
    levels = torch.tensor([0, 1, 64, 128, 255], dtype=torch.uint8).view(1, 5, 1, 1).expand(1, 5, 1, 3)
    assert lift_dark(levels)[0, :, 0, 0].tolist() == [0, 16, 128, 181, 255]
    assert restore_dark(levels)[0, :, 0, 0].tolist() == [0, 0, 16, 64, 255]
    with pytest.raises(ValueError, match=r"gamma must be within 1\.\.4, got 0\.5"):
        lift_dark(levels, 0.5)


@given(spots=st.lists(st.tuples(st.integers(0, 23), st.integers(0, 31)), min_size=1, max_size=5))
def test_blocks_cover_every_block_that_the_mask_touches(spots: list[tuple[int, int]]) -> None:
    frames = noise(2, 24, 32, 3) // 2 + 1
    mask = torch.zeros(1, 24, 32, dtype=torch.bool)
    for y, x in spots:
        mask[0, y, x] = True
    painted = paint_mask(frames, mask, replace(BLOCKS, rgb=(255, 0, 255)))
    blocks = {(y // 8, x // 8) for y, x in spots}
    for y in range(3):
        for x in range(4):
            part = (slice(None), slice(8 * y, 8 * y + 8), slice(8 * x, 8 * x + 8))
            if (y, x) in blocks:
                assert (painted[part] == torch.tensor([255, 0, 255], dtype=torch.uint8)).all()
            else:
                assert torch.equal(painted[part], frames[part])


def test_the_official_fill_is_green_and_grows_by_five_pixels() -> None:
    frames = noise(2, 32, 40, 3) // 2 + 200
    mask = torch.zeros(2, 32, 40)
    mask[1, 15, 20] = 0.6
    mask[0, 15, 20] = 0.5
    painted = paint_mask(frames, mask, FILL)
    assert torch.equal(painted[0], frames[0]), "a half is not masked"
    green = (painted[1] == torch.tensor([102, 255, 0], dtype=torch.uint8)).all(dim=2)
    expected = torch.zeros(32, 40, dtype=torch.bool)
    expected[10:21, 15:26] = True
    assert torch.equal(green, expected)
    assert torch.equal(painted[1][~expected], frames[1][~expected])


@given(radius=st.integers(0, 9), seed=st.integers(0, 99))
def test_a_mask_grows_by_its_radius_to_each_side(radius: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(1, 20, 24, generator=generator) > 0.98
    painted = paint_mask(torch.zeros(1, 20, 24, 3, dtype=torch.uint8), mask, MaskPaint("fill", (1, 1, 1), radius))
    spots = mask[0].nonzero().tolist()
    for y in range(20):
        for x in range(24):
            near = any(max(abs(y - spot_y), abs(x - spot_x)) <= radius for spot_y, spot_x in spots)
            assert bool(painted[0, y, x, 0]) == near


def test_masks_of_bytes_and_bools_mean_the_same() -> None:
    frames = noise(1, 16, 16, 3)
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 4:9, 3:5] = True
    as_bytes = mask.to(torch.uint8) * 255
    assert torch.equal(paint_mask(frames, mask, BLOCKS), paint_mask(frames, as_bytes, BLOCKS))
    assert torch.equal(paint_mask(frames, mask, FILL), paint_mask(frames, mask.float(), FILL))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 16, 16), r"the mask must be \(2, 16, 16\) like the frames, or \(1, 16, 16\), got \(3, 16, 16\)"),
        ((2, 16, 8), r"got \(2, 16, 8\)"),
        ((16, 16), r"got \(16, 16\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paint_mask(noise(2, 16, 16, 3), torch.zeros(shape), FILL)


def test_paints_are_checked() -> None:
    with pytest.raises(ValueError, match="divisible by 8, got 20x16: resize the clip first"):
        paint_mask(noise(1, 20, 16, 3), torch.zeros(1, 20, 16), BLOCKS)
    with pytest.raises(ValueError, match=r"the mask must be bool, uint8 or floating point, got torch\.int64"):
        paint_mask(noise(1, 16, 16, 3), torch.zeros(1, 16, 16, dtype=torch.int64), FILL)
    with pytest.raises(ValueError, match=r"rgb must be three levels within 0..255, got \(0, 0, 256\)"):
        replace(FILL, rgb=(0, 0, 256))
    with pytest.raises(ValueError, match=r"dilation_px must be within 0\.\.300, got 301"):
        replace(FILL, dilation_px=301)
