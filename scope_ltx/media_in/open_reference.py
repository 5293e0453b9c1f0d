"""Which source a path means: a directory of images, one still, or a video file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from scope_ltx.media_in.image_folder import ImageFolderReference
from scope_ltx.media_in.images import load_image
from scope_ltx.media_in.reference import AtEnd, Clip, StillReference
from scope_ltx.media_in.video_file import VideoFileReference

STILL_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".avif"})
"""GIF and WebP may move: they are read as video."""


def open_reference(path: str | Path, folder_frame_rate: Fraction, at_end: AtEnd) -> Clip:
    """The reference source of a path; `folder_frame_rate` is used for a directory only. Close it when done.

    Raises MediaInputError.
    """
    file = Path(path)
    if file.is_dir():
        return ImageFolderReference(file, folder_frame_rate, at_end)
    if file.suffix.lower() in STILL_SUFFIXES:
        return StillReference(load_image(file))
    return VideoFileReference(file, at_end)
