"""The files of one recording, written by one thread: a new part where the picture changes, and an end that holds
what was written when the disk is full."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from scope_streaming.media.encoder import EncodedPacket
from scope_streaming.media.fragmented_mp4 import FragmentedMp4, PictureChangedError, whole_boxes_nbytes
from scope_streaming.media.timeline import TICKS_PER_SECOND

OpenFile = Callable[[Path], BinaryIO]


def open_exclusive(path: Path) -> BinaryIO:
    """Unbuffered, and never over a file that is there."""
    return path.open("x+b", buffering=0)


class _Disk:
    """A file as the muxer sees it: one that always takes everything. A muxer that was told of an error cannot be
    closed any more, so the first one is kept in `error`, and what comes after it is dropped."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.nbytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest and self.error is None:
                rest = rest[self.file.write(rest) or 0 :]
        except OSError as error:
            self.error = error
        self.nbytes += len(data) - len(rest)
        return len(data)


class RecordingFiles:
    """path: of the first part; the second is called NAME-2.mp4. One thread at a time.

    `write` and `close` raise OSError; what was written until then is whole and can be played.
    """

    def __init__(self, path: Path, open_file: OpenFile = open_exclusive) -> None:
        self._first = path
        self._open_file = open_file
        self._mp4: FragmentedMp4 | None = None
        self._disk: _Disk | None = None
        self._synced_ticks = 0
        self._done_s = 0.0
        self._done_nbytes = 0
        self.paths: tuple[Path, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all parts. Any thread may ask."""
        mp4 = self._mp4
        return self._done_s + (mp4.seconds if mp4 else 0.0)

    @property
    def nbytes(self) -> int:
        disk = self._disk
        return self._done_nbytes + (disk.nbytes if disk else 0)

    def write(self, packet: EncodedPacket) -> None:
        """The next packet. Nothing is written before the first keyframe."""
        if self._mp4 is None and not self._begin(packet):
            return
        assert self._mp4 is not None
        try:
            self._mp4.write(packet)
        except PictureChangedError:
            self.close()
            self.write(packet)
            return
        self._require_written()
        self._sync(packet.ticks)

    def close(self) -> None:
        """Finish the last part."""
        if self._mp4 is None:
            return
        self._mp4.close()
        self._require_written()
        self._end_part()

    def _begin(self, packet: EncodedPacket) -> bool:
        if packet.stream == "audio" or not packet.keyframe:
            return False
        number = len(self.paths) + 1
        path = self._first if number == 1 else self._first.with_stem(f"{self._first.stem}-{number}")
        self._disk = _Disk(self._open_file(path))
        self.paths = (*self.paths, path)
        try:
            self._mp4 = FragmentedMp4(self._disk, packet)
        except BaseException:
            self._end_part()
            raise
        self._synced_ticks = packet.ticks
        self._require_written()
        return True

    def _require_written(self) -> None:
        """Raises what the disk has refused, after what is no whole fragment was cut off."""
        disk = self._disk
        if disk is None or disk.error is None:
            return
        disk.nbytes = whole_boxes_nbytes(disk.file)
        disk.file.truncate(disk.nbytes)
        self._end_part()
        raise disk.error

    def _end_part(self) -> None:
        assert self._disk is not None
        self._done_s += self._mp4.seconds if self._mp4 else 0.0
        self._done_nbytes += self._disk.nbytes
        self._disk.file.close()
        if self._mp4 is not None:
            self._mp4.close()
        self._mp4 = self._disk = None

    def _sync(self, ticks: int) -> None:
        """Once a second, so that a machine which loses power keeps the recording too."""
        if ticks - self._synced_ticks >= TICKS_PER_SECOND and self._disk is not None:
            self._synced_ticks = ticks
            try:
                os.fsync(self._disk.file.fileno())
            except OSError as error:
                self._disk.error = error
                self._require_written()
