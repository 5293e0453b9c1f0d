"""Reference frames from a directory of images, in natural order (frame2 before frame10), at a stated rate."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from scope_ltx.at_end import continued
from scope_ltx.media_in.errors import MediaInputError
from scope_ltx.media_in.fit import FitMode, fit_array
from scope_ltx.media_in.frame_times import FrameTimes
from scope_ltx.media_in.images import load_image
from scope_ltx.media_in.reference import AtEnd, Frames, checked_at_end


class ImageFolderReference:
    """The images of one directory as a clip of `frame_rate`. Files are listed once and opened as they are needed.

    Hidden files and files that are not named as images are passed over. Raises MediaInputError when none is left,
    and when one cannot be read.
    """

    def __init__(self, folder: str | Path, frame_rate: Fraction, at_end: AtEnd) -> None:
        if frame_rate <= 0:
            raise ValueError(f"frame_rate must be positive, got {frame_rate}")
        self._frame_rate = frame_rate
        self._at_end = checked_at_end(at_end)
        self._files = image_files(Path(folder))

    def frames(self, times: FrameTimes, height: int, width: int, mode: FitMode) -> Frames:
        """See ReferenceSource."""
        out = np.empty((times.count, height, width, 3), np.uint8)
        loaded: Path | None = None
        for i, at_s in enumerate(times.lookups_s()):
            file = self._on_show(int(at_s * self._frame_rate))
            out[i] = out[i - 1] if file is loaded else fit_array(load_image(file), height, width, mode)
            loaded = file
        return out

    def end_with(self, at_end: AtEnd, at_s: Fraction) -> Fraction:
        """See Clip."""
        before, self._at_end = self._at_end, checked_at_end(at_end)
        return continued(at_s, len(self._files) / self._frame_rate, before, at_end)

    def close(self) -> None:
        """Nothing is open."""

    def _on_show(self, index: int) -> Path:
        last = len(self._files) - 1
        return self._files[index % (last + 1) if self._at_end == "loop" else min(index, last)]


def image_files(folder: Path) -> tuple[Path, ...]:
    """The image files of a directory in natural order. Raises MediaInputError when there is none."""
    if not folder.is_dir():
        problem = "a directory of images is expected, this is a file" if folder.exists() else "no such directory"
        raise MediaInputError(folder, problem, "Check the path")
    known = Image.registered_extensions()
    found = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in known and not file.name.startswith(".") and file.is_file()
    ]
    if not found:
        raise MediaInputError(folder, "there is no image in this directory", "Put PNG or JPEG files into it")
    return tuple(sorted(found, key=_natural))


def _natural(file: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Runs of digits compare as numbers, the rest as text whatever its case; the name itself breaks ties."""
    parts = re.findall(r"[0-9]+|[^0-9]+", file.name)
    keys = [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part.casefold()) for part in parts]
    return keys, file.name
