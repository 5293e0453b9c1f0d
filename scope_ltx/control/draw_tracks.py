"""Motion tracks drawn as the motion-track LoRA has seen them: trails of circles that age from red to blue.

Circles of radius 8 (newest) to 2 pixels (oldest) in a picture whose short side is 1080, resized bilinearly to
the size asked for; blue over green and yellow to red with age, newest on top, on black; and red and blue
swapped at the very end, as in the training data. Source: Lightricks/ComfyUI-LTXVideo, sparse_tracks.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scope_ltx.control.frames import to_bytes
from scope_ltx.control.tracks import MotionTrack

SHORT_SIDE = 1080
MIN_RADIUS_PX = 2.0
MAX_RADIUS_PX = 8.0
TRAIL_FRAMES = 50


def draw_tracks(
    tracks: Sequence[MotionTrack], frames: int, height: int, width: int, device: torch.device
) -> Tensor:
    """Trails of all tracks, each walked once over `frames`: uint8 (frames, height, width, 3).

    Draw at the output's size and resize to the guide's: below a short side of 135 (1080 / 8) small circles fall
    between the samples of the resize.
    """
    if not tracks:
        raise ValueError("no motion track was given: expected at least one")
    if frames < 1 or height < 1 or width < 1:
        raise ValueError(f"frames, height and width must be at least 1, got {frames}, {height} and {width}")
    scale = SHORT_SIDE / min(height, width)
    big_height, big_width = int(height * scale), int(width * scale)
    # Plain numbers first, one transfer: sampling is a few thousand cubic polynomials at most.
    rows = [[(x * big_width, y * big_height) for x, y in track.sample(frames)] for track in tracks]
    points = torch.tensor(rows, dtype=torch.float32, device=device)
    palette = _palette(device)
    above, left = _taps(height, big_height, device), _taps(width, big_width, device)
    drawn = []
    for index in range(frames):
        first = max(0, index - TRAIL_FRAMES)
        ranks = _stamp(points[:, first : index + 1], big_height, big_width)
        drawn.append(to_bytes(_sample(ranks, palette, above, left)))
    return torch.stack(drawn).flip(3).contiguous()


def _palette(device: torch.device) -> Tensor:
    """Colours by rank, (TRAIL_FRAMES + 2, 3) RGB 0..255: rank 0 is the background, the last the newest."""
    youth = torch.arange(TRAIL_FRAMES + 1, dtype=torch.float32, device=device) / TRAIL_FRAMES
    red = (youth * 3 - 1).clamp(0, 1)
    green = torch.minimum(youth * 3, 3 - youth * 3).clamp(0, 1)
    blue = (1 - youth * 3).clamp(0, 1)
    colours = torch.stack([red, green, blue], dim=1) * 255
    return torch.cat([torch.zeros_like(colours[:1]), colours])


def _stamp(trail: Tensor, height: int, width: int) -> Tensor:
    """Circles of `trail` (tracks, ages, 2), oldest first, as ranks (height, width) uint8; the newest covers."""
    ages = trail.shape[1]
    ranks = torch.arange(TRAIL_FRAMES + 2 - ages, TRAIL_FRAMES + 2, device=trail.device)
    radii = MIN_RADIUS_PX + (MAX_RADIUS_PX - MIN_RADIUS_PX) * (ranks - 1) / TRAIL_FRAMES
    reach = int(MAX_RADIUS_PX)
    offsets = torch.arange(-reach, reach + 1, device=trail.device)
    disc = (offsets[:, None] ** 2 + offsets**2)[None] <= (radii**2)[:, None, None]
    centre = trail.round().long()
    x = centre[..., 0, None, None] + offsets[None, :]
    y = centre[..., 1, None, None] + offsets[:, None]
    inside = disc & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    cells = (y * width + x).expand(inside.shape)[inside]
    values = ranks[None, :, None, None].expand(inside.shape)[inside].to(torch.uint8)
    canvas = torch.zeros(height * width, dtype=torch.uint8, device=trail.device)
    return canvas.scatter_reduce_(0, cells, values, reduce="amax").view(height, width)


def _taps(size: int, big: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Bilinear taps of one axis, pixel centres at halves: the two source indices and the second's weight."""
    at = ((torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (big / size) - 0.5).clamp(0, big - 1)
    first = at.long()
    return first, (first + 1).clamp(max=big - 1), at - first


def _sample(
    ranks: Tensor, palette: Tensor, rows: tuple[Tensor, Tensor, Tensor], columns: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """The canvas of ranks, coloured and read at the taps: (height, width, 3).

    Only the four pixels under each tap are coloured; the whole canvas would be eleven times as many.
    """
    top, bottom, down = rows
    left, right, across = columns

    def row(index: Tensor) -> Tensor:
        lines = ranks[index]
        return torch.lerp(palette[lines[:, left].int()], palette[lines[:, right].int()], across[None, :, None])

    return torch.lerp(row(top), row(bottom), down[:, None, None])
