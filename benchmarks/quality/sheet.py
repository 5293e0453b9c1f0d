"""The contact sheet: for each prompt a strip of frames, evenly spread over the clip, with the prompt above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.quality.cases import Case
from benchmarks.quality.maker import Clip, Frames

COLUMNS = 6
STRIPS_BESIDE = 2
_FRAME_WIDTH = 112
_GAP, _MARGIN = 3, 16
_TEXT_HEIGHT, _TEXT_SIZE = 24, 15
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


@dataclass(frozen=True, eq=False)
class Strip:
    """frames: COLUMNS of them, reduced to the sheet's size."""

    prompt: str
    frames: Frames


def strip_of(prompt: str, clip: Clip) -> Strip:
    """The first and the last frame, and what lies evenly between."""
    picked = clip.frames[np.linspace(0, len(clip.frames) - 1, COLUMNS).round().astype(int)]
    height = round(_FRAME_WIDTH * picked.shape[1] / picked.shape[2])
    small = [Image.fromarray(one).resize((_FRAME_WIDTH, height), Image.Resampling.LANCZOS) for one in picked]
    return Strip(prompt, np.stack([np.asarray(one) for one in small]))


def shown_cases(cases: Sequence[Case], count: int) -> set[int]:
    """Places of the cases that the sheet shows: motions that it does not show yet come first. How well they turn
    out plays no part."""
    chosen: list[int] = []
    seen: set[str] = set()
    for place, case in enumerate(cases):
        motions = {one.motion for one in case.scene.objects}
        if len(chosen) < count and not motions & seen:
            chosen.append(place)
            seen |= motions
    rest = [place for place in range(len(cases)) if place not in chosen]
    return {*chosen, *rest[: max(0, count - len(chosen))]}


def write_sheet(path: Path, strips: Sequence[Strip]) -> None:
    """A PNG. Raises ValueError without a strip."""
    if not strips:
        raise ValueError("a contact sheet needs at least one clip: run the row `prompts`")
    frame_height, frame_width = strips[0].frames.shape[1:3]
    width = COLUMNS * (frame_width + _GAP) - _GAP
    height = _TEXT_HEIGHT + frame_height + _MARGIN
    beside = min(STRIPS_BESIDE, len(strips))
    rows = -(-len(strips) // beside)
    sheet = Image.new("RGB", (beside * (width + _MARGIN) + _MARGIN, rows * height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT_SIZE)
    for place, strip in enumerate(strips):
        left = _MARGIN + place % beside * (width + _MARGIN)
        top = _MARGIN + place // beside * height
        draw.text((left, top), _fitted(draw, font, strip.prompt, width), _INK, font)
        for column, pixels in enumerate(strip.frames):
            sheet.paste(Image.fromarray(pixels), (left + column * (frame_width + _GAP), top + _TEXT_HEIGHT))
    sheet.save(path, optimize=True)


def _fitted(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str, width: int
) -> str:
    """The text, cut at a word where it is wider than `width` pixels."""
    words = text.split()
    kept = len(words)
    while (
        kept > 1 and draw.textlength(" ".join(words[:kept]) + ("" if kept == len(words) else " ..."), font) > width
    ):
        kept -= 1
    return " ".join(words[:kept]) + ("" if kept == len(words) else " ...")
