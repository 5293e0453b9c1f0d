"""What an uploaded file is by its own first bytes, and how much of each kind is taken. Names and types that come
with it are not asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "audio", "video"]

HEAD_NBYTES = 64
MEBI = 2**20


@dataclass(frozen=True)
class Limits:
    """Of one upload by kind, and of the whole directory. Seconds are of media."""

    image_nbytes: int = 64 * MEBI
    audio_nbytes: int = 256 * MEBI
    video_nbytes: int = 512 * MEBI
    image_pixels: int = 64_000_000
    video_pixels: int = 4096 * 2304
    audio_s: float = 3600.0
    video_s: float = 600.0
    total_nbytes: int = 4096 * MEBI

    def nbytes(self, kind: Kind) -> int:
        return {"image": self.image_nbytes, "audio": self.audio_nbytes, "video": self.video_nbytes}[kind]


@dataclass(frozen=True)
class FileType:
    """`demuxers`: FFmpeg's names of the formats that this may be read as, none for a picture."""

    kind: Kind
    suffix: str
    demuxers: tuple[str, ...] = ()


_STARTS: tuple[tuple[bytes, FileType], ...] = (
    (b"\x89PNG\r\n\x1a\n", FileType("image", ".png")),
    (b"\xff\xd8\xff", FileType("image", ".jpg")),
    (b"\x1a\x45\xdf\xa3", FileType("video", ".mkv", ("matroska", "webm"))),
    (b"OggS", FileType("audio", ".ogg", ("ogg",))),
    (b"fLaC", FileType("audio", ".flac", ("flac",))),
    (b"ID3", FileType("audio", ".mp3", ("mp3",))),
)
_RIFF = {b"WEBP": FileType("image", ".webp"), b"WAVE": FileType("audio", ".wav", ("wav",))}
_MP4 = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2")
TAKEN = "PNG, JPEG or WebP; WAV, MP3, FLAC, Ogg or M4A; MP4, MOV, MKV or WebM"


def sniff(head: bytes) -> FileType | None:
    """The type of a file that starts with `head`, HEAD_NBYTES of it; None for what is not taken.

    An MP4, Matroska or Ogg file with sound alone is found out when it is opened.
    """
    for start, found in _STARTS:
        if head.startswith(start):
            return found
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _mp4(head[8:12])
    # An MPEG audio frame without a tag: 11 bits of sync, layer 3, a bit rate and a sample rate that exist.
    if (
        len(head) > 3
        and head[0] == 0xFF
        and head[1] & 0xE6 == 0xE2
        and 0 < head[2] >> 4 < 15
        and head[2] & 12 != 12
    ):
        return FileType("audio", ".mp3", ("mp3",))
    return None


def _mp4(brand: bytes) -> FileType | None:
    if brand in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"):
        return None
    if brand == b"M4A ":
        return FileType("audio", ".m4a", _MP4)
    return FileType("video", ".mov" if brand == b"qt  " else ".mp4", _MP4)
