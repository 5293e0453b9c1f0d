"""A file's sound as stereo float32, decoded from its start in the order it is asked for.

Any file that FFmpeg's libraries (PyAV) decode, a video's sound too. Nothing but what is asked for is held, so
hours of sound cost no memory. Mono goes to both sides as it is; more than two channels are mixed down the way
FFmpeg does (centre and surrounds at -3 dB, no low-frequency channel); what exceeds full scale is clipped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from scope_ltx.errors import ScopeLtxError
from scope_ltx.sound_in.resample import Samples

LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000
"""A file outside of this is damaged; one that says 1 Hz would become gigabytes."""

STATES_ITS_LENGTH = frozenset({"wav", "flac", "aiff", "caf", "w64", "mov,mp4,m4a,3gp,3g2,mj2"})
"""Formats whose header holds the true length. An MP3's may be an estimate from its first frames."""

_CUT_SHORT_S = 0.5
_CUT_SHORT_SHARE = 0.01
"""Half a second or 1 %, whichever is more, may be missing: encoders round to whole packets."""

_ANOTHER_FILE = "Choose a file with sound: WAV, FLAC, MP3, M4A, Ogg, or a video."


class SoundFileError(ScopeLtxError, ValueError):
    """A file cannot be used as sound. Says which file, what is wrong and what to do. Also a ValueError: it is a
    value that was given."""

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        self.path = path
        self.problem = problem
        self.advice = advice
        super().__init__(f"{path}: {problem}. {advice}")


class SoundReader:
    """Reads forward through the first sound track of `path`; use with `with`, or `close` it. One thread at a time.

    rate: Hz of what it gives: the given one, else the file's own.
    Opening decodes the first samples, so that a file which is no sound is refused at once.
    Raises SoundFileError, here and from `read`.
    """

    def __init__(self, path: Path, rate: int | None = None) -> None:
        self._path = path
        self.rate = rate or 0
        self._decoded = 0
        self._heard_until_s = 0.0
        self._failure: SoundFileError | None = None
        container = self._open()
        self._container: InputContainer | None = container
        try:
            self._stream = self._first_sound(container)
            self._blocks = self._decode(container)
            self._rest = self._next_block()
        except BaseException:
            container.close()
            raise
        if self._failure is not None:
            self.close()
            raise self._failure
        if self._rest is None:
            self.close()
            raise SoundFileError(path, "the sound track holds no samples", _ANOTHER_FILE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back. What is read afterwards is the end."""
        self._rest = None
        if self._container is not None:
            self._blocks.close()
            self._container.close()
            self._container = None

    def read(self, count: int) -> Samples:
        """The next (2, count); fewer only at the end, and (2, 0) after it.

        Raises SoundFileError where nothing more can be decoded, once what was decoded before has been read; again
        every time.
        """
        taken: list[Samples] = []
        missing = count
        while missing > 0 and self._rest is not None:
            block = self._rest[:, :missing]
            taken.append(block)
            missing -= block.shape[1]
            self._rest = self._rest[:, block.shape[1] :]
            if self._rest.shape[1] == 0:
                self._rest = self._next_block()
        if not taken and count > 0 and self._failure is not None and self._container is not None:
            raise self._failure
        return np.concatenate(taken, axis=1) if taken else np.zeros((2, 0), np.float32)

    def _next_block(self) -> Samples | None:
        try:
            return next(self._blocks, None)
        except SoundFileError as error:
            self._failure = error
            return None

    def _open(self) -> InputContainer:
        if not self._path.exists():
            raise SoundFileError(self._path, "there is no such file", "Check the path.")
        if not self._path.is_file():
            raise SoundFileError(self._path, "this is no file", "Give the path of a file, not of a folder.")
        try:
            with self._path.open("rb") as file:
                beginning = file.read(512)
        except OSError as error:
            raise SoundFileError(
                self._path, f"it cannot be read ({error.strerror})", "Check its permissions."
            ) from error
        if not beginning:
            raise SoundFileError(self._path, "the file is empty", "Download or export it again.")
        if beginning.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            raise SoundFileError(
                self._path, "this is a web page, not sound", "The link led to a page: download the file itself."
            )
        try:
            # A playlist is a file too: it may lead nowhere but to other files of this machine.
            return av.open(str(self._path.absolute()), options={"protocol_whitelist": "file"})
        except (av.FFmpegError, ValueError) as error:
            raise SoundFileError(
                self._path, f"this is no media file, or it is damaged ({_reason(error)})", _ANOTHER_FILE
            ) from error

    def _first_sound(self, container: InputContainer) -> AudioStream:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise SoundFileError(self._path, f"it has no sound track (it has: {kinds})", _ANOTHER_FILE)
        stream = container.streams.audio[0]
        # Without a decoder there is no codec context, whatever its type says.
        context: Any = stream.codec_context
        if context is None:
            raise SoundFileError(
                self._path,
                "its sound is coded in a way that cannot be decoded here",
                "Convert it to WAV or FLAC.",
            )
        return stream

    def _decode(self, container: InputContainer) -> Generator[Samples, None, None]:
        """Blocks of at least one sample. The conversion begins anew where the file changes its own format."""
        converter: AudioResampler | None = None
        kind: tuple[Any, ...] = ()
        try:
            for frame in container.decode(self._stream):
                now = (frame.format.name, frame.layout.name, frame.sample_rate)
                if converter is None or now != kind:
                    yield from self._finish(converter)
                    converter, kind = self._converter(frame), now
                if frame.pts is not None and frame.time_base is not None:
                    begins_s = float(frame.pts * frame.time_base) - self._starts_s
                    self._heard_until_s = begins_s + frame.samples / frame.sample_rate
                # A file's samples follow one another, whatever its timestamps say.
                frame.pts = None
                for converted in converter.resample(frame):
                    yield from self._checked(converted)
            yield from self._finish(converter)
        except SoundFileError:
            raise
        except (av.FFmpegError, ValueError) as error:
            raise SoundFileError(
                self._path,
                f"it cannot be decoded any further after {self._decoded_s:.2f} s ({_reason(error)})",
                "The file is damaged or cut short: download or export it again.",
            ) from error
        self._check_length(container.format.name)

    def _finish(self, converter: AudioResampler | None) -> Iterator[Samples]:
        for converted in converter.resample(None) if converter is not None else ():
            # What passes frames through unchanged has nothing left, and says so with None.
            if converted is not None:
                yield from self._checked(converted)

    def _converter(self, frame: AudioFrame) -> AudioResampler:
        if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
            raise SoundFileError(
                self._path,
                f"its sample rate is {frame.sample_rate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}",
                "The file is damaged: download or export it again.",
            )
        self.rate = self.rate or frame.sample_rate
        # To make mono stereo FFmpeg would lower it by 3 dB.
        layout = frame.layout.name if frame.layout.nb_channels <= 2 else "stereo"
        return AudioResampler("fltp", layout, self.rate)

    def _checked(self, converted: AudioFrame) -> Iterator[Samples]:
        samples = converted.to_ndarray().astype(np.float32, copy=False)
        if samples.shape[1] == 0:
            return
        if not np.isfinite(samples).all():
            raise SoundFileError(
                self._path,
                f"it holds values that are no numbers (NaN or infinity) after {self._decoded_s:.2f} s",
                "Export it again.",
            )
        self._decoded += samples.shape[1]
        if samples.shape[0] == 1:
            samples = np.repeat(samples, 2, axis=0)
        yield np.clip(samples, -1.0, 1.0)

    def _check_length(self, container_format: str) -> None:
        """Raises SoundFileError when the header promised clearly more than there was. A pause in a recording has a
        length and no samples."""
        duration, time_base = self._stream.duration, self._stream.time_base
        if container_format not in STATES_ITS_LENGTH or duration is None or time_base is None:
            return
        stated_s = float(duration * time_base)
        if stated_s - max(self._decoded_s, self._heard_until_s) > max(_CUT_SHORT_S, _CUT_SHORT_SHARE * stated_s):
            raise SoundFileError(
                self._path,
                f"it is cut short: it ends after {self._decoded_s:.2f} s, and its header says {stated_s:.2f} s",
                "Download or export it again.",
            )

    @property
    def _starts_s(self) -> float:
        start, time_base = self._stream.start_time, self._stream.time_base
        return 0.0 if start is None or time_base is None else float(start * time_base)

    @property
    def _decoded_s(self) -> float:
        return self._decoded / self.rate if self.rate else 0.0


def _reason(error: Exception) -> str:
    """FFmpeg's own words without its numbers."""
    return str(getattr(error, "strerror", None) or error)
