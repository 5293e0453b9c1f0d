"""Guides drawn on a CUDA device equal those drawn on the CPU."""

from __future__ import annotations

import pytest
import torch

from scope_ltx.control.canny import CannyThresholds, canny
from scope_ltx.control.draw_tracks import draw_tracks
from scope_ltx.control.inpaint import BLOCKS, FILL, MaskPaint, paint_mask
from scope_ltx.control.outpaint import letterbox, lift_dark
from scope_ltx.control.tracks import parse_tracks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FRAMES = torch.randint(0, 256, (17, 96, 80, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize(
    "thresholds", [CannyThresholds(), CannyThresholds(600, 1200), CannyThresholds(30, 60, 1.4)]
)
def test_edges_are_the_same(thresholds: CannyThresholds) -> None:
    assert torch.equal(canny(FRAMES.to(CUDA), thresholds).to(CPU), canny(FRAMES, thresholds))


@pytest.mark.parametrize("paint", [BLOCKS, FILL], ids=["blocks", "fill"])
def test_painted_masks_are_the_same(paint: MaskPaint) -> None:
    mask = torch.rand(1, 96, 80, generator=torch.Generator().manual_seed(1)) > 0.99
    assert torch.equal(paint_mask(FRAMES.to(CUDA), mask, paint).to(CPU), paint_mask(FRAMES, mask, paint))


def test_trails_and_canvases_differ_by_a_rounding_at_most() -> None:
    tracks = parse_tracks([[[0.1, 0.1], [0.5, 0.9], [0.9, 0.1]]])
    trails = [draw_tracks(tracks, 9, 96, 80, device).to(CPU).int() for device in (CPU, CUDA)]
    assert (trails[0] - trails[1]).abs().max() <= 1
    boxed = [letterbox(FRAMES.to(device), 128, 192).frames.to(CPU).int() for device in (CPU, CUDA)]
    assert (boxed[0] - boxed[1]).abs().max() <= 1
    assert torch.equal(lift_dark(FRAMES.to(CUDA)).to(CPU), lift_dark(FRAMES))
