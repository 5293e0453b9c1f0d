"""A still picture from a file: upright, sRGB, opaque, uint8.

Every format that Pillow decodes by itself; EPS is refused, because Pillow would run another program for it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from scope_ltx.media_in.errors import MediaInputError

Rgb: TypeAlias = npt.NDArray[np.uint8]
"""One picture: uint8 RGB (H, W, 3)."""
Colour: TypeAlias = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)

MAX_PIXELS = 100_000_000
"""400 MB once opened as RGBA. A small file can claim far more than that."""
MAX_16_BIT = 65_535


def load_image(path: str | Path, background: Colour = BLACK) -> Rgb:
    """The picture in a file, uint8 RGB (H, W, 3), as a viewer would show it.

    EXIF orientation is applied. An embedded colour profile is converted to sRGB (one that cannot be read is
    ignored, as viewers do). Transparent parts show `background`. 16-bit greyscale is scaled to 8 bits. Of an
    animation the first frame is taken.

    Raises MediaInputError (a ValueError) for a file that is missing, no image, damaged, or above 100 megapixels.
    """
    file = Path(path)
    _check_file(file)
    try:
        with Image.open(file) as image:
            _check_image(file, image)
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.asarray(_opaque(file, upright, background), dtype=np.uint8).copy()
    except MediaInputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(file) from error
    except UnidentifiedImageError as error:
        raise _not_an_image(file) from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        problem = f"the image cannot be read ({error})"
        raise MediaInputError(file, problem, "The file may be damaged or incomplete: save it again") from error


def _check_file(file: Path) -> None:
    if not file.exists():
        raise MediaInputError(file, "there is no such file", "Check the path")
    if not file.is_file():
        raise MediaInputError(file, "an image file is expected, this is a directory", "Name a file in it")


def _check_image(file: Path, image: Image.Image) -> None:
    """Before any pixel is decoded."""
    if image.format == "EPS":
        raise MediaInputError(file, "EPS is a program that draws, not an image", "Export it as PNG")
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(file, f"{image.width}x{image.height}")


def _too_large(file: Path, size: str = "far more") -> MediaInputError:
    limit = f"{MAX_PIXELS // 1_000_000} megapixels"
    return MediaInputError(file, f"an image of at most {limit} is expected, got {size}", "Make it smaller")


def _not_an_image(file: Path) -> MediaInputError:
    with file.open("rb") as opened:
        head = opened.read(512)
    text = head.lstrip().lower()
    if not head:
        return MediaInputError(file, "the file is empty", "Copy or download it again")
    if text.startswith((b"<!doctype", b"<html")):
        return MediaInputError(file, "this is a web page, not an image", "Download the image itself")
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"mif1", b"msf1"}:
        return MediaInputError(file, "HEIC images cannot be read", "Export it as JPEG or PNG")
    if head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3"):
        return MediaInputError(file, "this is a video, not an image", "Save one of its frames as PNG")
    return MediaInputError(file, "this is not an image in a known format", "Use PNG, JPEG, WebP or TIFF")


def _opaque(file: Path, image: Image.Image, background: Colour) -> Image.Image:
    """RGB without transparency."""
    image = _eight_bit(file, image)
    if not image.has_transparency_data:
        return _srgb(image)
    with_alpha = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    # The profile describes RGB; converted after the palette is resolved, and apart from the alpha channel.
    colours = with_alpha.convert("RGB")
    colours.info = dict(image.info)
    canvas.paste(_srgb(colours), mask=with_alpha.getchannel("A"))
    return canvas


def _eight_bit(file: Path, image: Image.Image) -> Image.Image:
    """Pillow's own conversion of wide greyscale clips at 255: white from mid-grey up."""
    if image.mode == "F":
        problem = "floating-point pixels have no fixed white"
        raise MediaInputError(file, problem, "Save it with 8 or 16 bits per channel")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > MAX_16_BIT:
        problem = f"greyscale from 0 to {MAX_16_BIT} is expected, got {values.min()} to {values.max()}"
        raise MediaInputError(file, problem, "Save it with 8 or 16 bits per channel")
    eight = Image.fromarray(((values * 255 + MAX_16_BIT // 2) // MAX_16_BIT).astype(np.uint8))
    if "icc_profile" in image.info:
        eight.info["icc_profile"] = image.info["icc_profile"]
    return eight


def _srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    source = image if image.mode in {"RGB", "L", "CMYK"} else image.convert("RGB")
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(source, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return source.convert("RGB")
    assert converted is not None, "only an in-place conversion returns nothing"
    return converted
