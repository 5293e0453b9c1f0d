"""Opens one uploaded file in a process of its own, decodes all of it, and prints what it is as a line of JSON.

    python -m scope_ltx.hosts.live.uploads.check PATH '{"demuxers": [...], ...}'

A file that crashes a decoder, or takes all memory or time, ends this process and not the server. A picture is
written anew as PNG: what the server opens later was encoded here. Sound and clips stay as they are.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

MEMORY_NBYTES = 4 * 2**30
"""Of address space: a picture of 64 megapixels takes 1 GiB at its peak, the libraries alone map 1 GiB."""
CPU_S = 90
LONGEST_SIDE = 4096
"""Of a picture that is kept: twice the largest output. A larger one is made smaller."""
REFUSED = 3


@dataclass(frozen=True)
class CheckLimits:
    """demuxers: FFmpeg's names of the formats it may be read as; none: it is a picture. The rest is the most that
    is taken."""

    demuxers: tuple[str, ...]
    image_pixels: int
    video_pixels: int
    audio_s: float
    video_s: float


@dataclass(frozen=True)
class Checked:
    """`file` is the name of what to keep. Sizes are of a picture, seconds of what plays."""

    kind: str
    file: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None


class RefusedFileError(ValueError):
    """The text is a sentence for whoever has sent the file."""


def check(path: Path, limits: CheckLimits) -> Checked:
    """Raises RefusedFileError, and what the decoders raise."""
    if not limits.demuxers:
        return _check_picture(path, limits)
    _check_container(path, limits)
    return _check_clip(path, limits) if _has_video(path) else _check_sound(path, limits)


def _check_picture(path: Path, limits: CheckLimits) -> Checked:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only the kind that came is imported

    from scope_ltx.media_in.images import load_image  # noqa: PLC0415

    most = f"at most {limits.image_pixels // 1_000_000} megapixels are taken"
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise RefusedFileError(f"the image has far too many pixels, {most}") from error
    except UnidentifiedImageError as error:
        raise RefusedFileError("the image is damaged: save it again") from error
    if width * height > limits.image_pixels:
        raise RefusedFileError(f"the image has {width}x{height} pixels, {most}")
    picture = Image.fromarray(load_image(path))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    kept = path.with_suffix(".png")
    picture.save(kept.with_suffix(".new"), format="PNG", compress_level=1)
    kept.with_suffix(".new").replace(kept)
    return Checked("image", kept.name, picture.width, picture.height)


def _check_container(path: Path, limits: CheckLimits) -> None:
    """Read as what its first bytes say or not at all: a playlist would lead to other files, or to addresses."""
    import av  # noqa: PLC0415

    options = {"format_whitelist": ",".join(limits.demuxers), "protocol_whitelist": "file"}
    try:
        av.open(f"file:{path}", options=options).close()
    except av.FFmpegError as error:
        raise RefusedFileError(f"the file is damaged, or not what it looks like ({error.strerror})") from error


def _has_video(path: Path) -> bool:
    import av  # noqa: PLC0415

    with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
        # The cover of a song is a picture that is attached, no clip.
        return any(not stream.disposition & stream.disposition.attached_pic for stream in container.streams.video)


def _check_sound(path: Path, limits: CheckLimits) -> Checked:
    from scope_ltx.sound_in.files import SoundReader  # noqa: PLC0415

    with SoundReader(path) as reader:
        samples = 0
        while count := reader.read(reader.rate).shape[1]:
            samples += count
            if samples > limits.audio_s * reader.rate:
                raise RefusedFileError(f"the sound is longer than {limits.audio_s / 60:g} minutes: cut it")
        return Checked("audio", path.name, seconds=round(samples / reader.rate, 3))


def _check_clip(path: Path, limits: CheckLimits) -> Checked:
    import av  # noqa: PLC0415

    with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > limits.video_pixels:
            raise RefusedFileError(f"the clip is {width}x{height}, at most 4096x2304 is taken: make it smaller")
        if container.duration and container.duration > limits.video_s * av.time_base:
            raise RefusedFileError(f"the clip is longer than {limits.video_s / 60:g} minutes: cut it")
        stream.thread_type = "AUTO"
        first = last = None
        for frame in container.decode(stream):
            if frame.width * frame.height > limits.video_pixels:
                raise RefusedFileError("the clip changes to a size above 4096x2304 within itself: convert it")
            last = frame.time if frame.time is not None else last
            first = last if first is None else first
            if first is not None and last is not None and last - first > limits.video_s:
                raise RefusedFileError(f"the clip is longer than {limits.video_s / 60:g} minutes: cut it")
    if first is None or last is None:
        raise RefusedFileError("no picture of the clip can be decoded")
    return Checked("video", path.name, width, height, round(last - first, 3))


def limit_this_process() -> None:
    """Memory, CPU time, and no file larger than a picture's PNG. Nothing on a system that has no such limits."""
    if sys.platform == "win32":
        return
    import os  # noqa: PLC0415
    import resource  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_NBYTES, MEMORY_NBYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)


def main(arguments: list[str]) -> int:
    """0 and the result, REFUSED and a sentence; anything else is a crash."""
    limit_this_process()
    path, wanted = Path(arguments[0]), json.loads(arguments[1])
    limits = CheckLimits(**{**wanted, "demuxers": tuple(wanted["demuxers"])})
    try:
        result = check(path, limits)
    except Exception as error:
        # The name on the server means nothing to whoever has sent the file under another.
        sentence = str(error).replace(str(path), "the file") or type(error).__name__
        sys.stdout.write(json.dumps({"refused": sentence}) + "\n")
        return REFUSED
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
