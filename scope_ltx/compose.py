"""Several reference images side by side in one: `python -m scope_ltx.compose left.png right.png -o both.png`.

A frame takes one pinned image. To have two people in the first frame, put both into one picture and pin that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from scope_ltx.media_in.fit import FitMode


def side_by_side(
    images: Sequence[npt.NDArray[np.uint8]], height: int, width: int, mode: FitMode, gap: int
) -> npt.NDArray[np.uint8]:
    """Images, uint8 RGB (H, W, 3) of any sizes, from left to right on one canvas (height, width, 3).

    Each gets an equal share of the width (the first ones a pixel more where it does not divide) and is cropped to
    it or letterboxed in it. `gap` pixels between them are black. Raises ValueError when there is no room.
    """
    import numpy as np  # noqa: PLC0415 - `--help` needs no pixels

    from scope_ltx.media_in.fit import fit  # noqa: PLC0415

    if not images:
        raise ValueError("side_by_side needs at least one image, got none")
    if gap < 0:
        raise ValueError(f"the gap is 0 pixels or more, got {gap}")
    room = width - gap * (len(images) - 1)
    if height < 1 or room < len(images):
        raise ValueError(
            f"{len(images)} images with gaps of {gap} pixels do not fit on {width}x{height}: make it wider"
        )
    canvas = np.zeros((height, width, 3), np.uint8)
    left = 0
    for i, image in enumerate(images):
        panel = room // len(images) + (i < room % len(images))
        canvas[:, left : left + panel] = fit(image, height, panel, mode)
        left += panel + gap
    return canvas


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from "1280x704" (width first, as sizes are spoken). Raises ValueError."""
    width, times, height = text.lower().partition("x")
    if not (times and width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
        raise ValueError(f"a size is WIDTHxHEIGHT in pixels, such as 1280x704, got {text!r}")
    return int(height), int(width)


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The PNG to write.")
@click.option("--size", default="1280x704", show_default=True, metavar="WxH", help="Its size in pixels.")
@click.option(
    "--fit",
    "mode",
    default="crop",
    show_default=True,
    type=click.Choice(["crop", "letterbox"]),
    help="Crop each image to its panel, or show all of it between black bars.",
)
@click.option("--gap", default=0, show_default=True, help="Black pixels between the images.")
def main(images: tuple[Path, ...], output: Path, size: str, mode: FitMode, gap: int) -> None:
    """Put IMAGES side by side, from left to right, into one picture for a single image pin."""
    from PIL import Image  # noqa: PLC0415

    from scope_ltx.media_in.images import load_image  # noqa: PLC0415

    try:
        height, width = parse_size(size)
        if output.suffix.lower() != ".png":
            raise ValueError(f"the output is a .png, got {output.name!r}")
        canvas = side_by_side([load_image(path) for path in images], height, width, mode, gap)
        Image.fromarray(canvas).save(output)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {len(images)} images on {width}x{height}")


if __name__ == "__main__":
    main()
