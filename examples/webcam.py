"""A camera steers the picture while it runs: live frames, their edges drawn, and the Union Control LoRA.

    python examples/webcam.py -o webcam.mp4
    python examples/webcam.py -o webcam.mp4 --model models --camera /dev/video0 --chunks 10 --prompt "A statue."

Each chunk is guided by what the camera saw in the time that a chunk lasts. Without --camera a disc goes round. On
macOS use --camera 0 --format avfoundation, on Windows --camera "video=NAME" --format dshow. Width and height are
multiples of 64: the LoRA takes its reference at half the size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import av
import numpy as np
from drawn import Frame, moving_shape
from running import configured, generate, options_parser

from scope_ltx.config import LTX2Config
from scope_ltx.request import Generator
from scope_ltx.session import Session
from scope_streaming.media.segment import Segment

Camera = Iterator[tuple[Frame, float]]
"""Frames, each with its time in seconds."""


class GuidedSession(Session):
    """A session that watches a camera for as long as a chunk lasts before it makes one."""

    def __init__(self, generator: Generator, config: LTX2Config, prompt: str, camera: Camera) -> None:
        super().__init__(generator, config, prompt)
        self._camera = camera
        self._seen_until_s = 0.0

    def next_segment(self) -> Segment:
        self._seen_until_s += self.config.num_frames / self.config.frame_rate
        for frame, at_s in self._camera:
            self.push_frame(frame, at_s)
            if at_s >= self._seen_until_s:
                break
        return super().next_segment()


def drawn_camera(width: int, height: int, colour: str) -> Camera:
    return ((moving_shape(index, width, height, colour), index / 24) for index in itertools.count())


def real_camera(device: str, file_format: str) -> Camera:
    with av.open(device, format=file_format) as file:
        first_s: float | None = None
        for frame in file.decode(video=0):
            first_s = frame.time if first_s is None else first_s
            yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False), frame.time - first_s


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options_parser(__doc__, width=320, height=384, frames=49)
    parser.add_argument("--prompt", default="A blue sea and a green field.")
    parser.add_argument("--camera", help="the device, as FFmpeg calls it")
    parser.add_argument("--format", default="v4l2", help="v4l2, avfoundation or dshow")
    parser.add_argument(
        "--control", default="canny", help="what is drawn from a frame: canny, depth, pose or none"
    )
    parser.add_argument("--colour", default="#f0c020", help="of the disc that is drawn without a camera")
    options = parser.parse_args(arguments)
    config = configured(options, control_group=options.control, loras=[{"path": "union-control"}])
    drawn = drawn_camera(config.width, config.height, options.colour)
    camera = real_camera(options.camera, options.format) if options.camera else drawn
    generate(options, config, lambda generator: GuidedSession(generator, config, options.prompt, camera))


if __name__ == "__main__":
    main()
