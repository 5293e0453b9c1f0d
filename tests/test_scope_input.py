"""What guides the picture in the host: a camera in video mode, and pictures that come once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scope_ltx.config import LTX2Config
from scope_ltx.hosts.scope.once import OncePinned
from scope_ltx.hosts.scope.reference import InputFrames, smaller
from scope_ltx.inputs import Pixels
from scope_ltx.request import ChunkRequest
from tests.fakes.generator import Unfinished
from tests.fakes.scope_api import MediaTimestamp
from tests.fakes.scope_time import (
    CountingGenerator,
    VirtualSession,
    VirtualTime,
    brightness,
    longest_gap_s,
    number_of,
    skews_s,
)

SMALL = {"height": 32, "width": 32, "num_frames": 25}
GUIDE = {"loras": [{"path": "guide.safetensors", "scale": 1.0}]}


def filmed_session(time: VirtualTime, frame_rate: float = 30.0, **parameters: object) -> VirtualSession:
    session = time.session(**{"prompts": "a cat", "input_mode": "video", **parameters})
    session.film(frame_rate, 64, 64)
    return session


def reference_of(request: ChunkRequest) -> Pixels:
    assert request.inputs.reference is not None
    return request.inputs.reference


# a camera


def test_a_camera_guides_and_the_stream_plays_on(caplog: pytest.LogCaptureFixture) -> None:
    time = VirtualTime(2.0)
    time.host.load(**SMALL, **GUIDE)
    session = filmed_session(time)
    time.run(22)
    wire = session.wire
    assert [number_of(picture) for _, _, picture in wire.shown] == list(range(len(wire.shown)))
    assert len(wire.shown) >= 0.99 * 20 * 24
    assert longest_gap_s(wire) <= 0.07
    assert max(abs(skew) for skew in skews_s(wire, 24.0)) <= 0.04
    for request in time.generator.requests:
        assert reference_of(request).shape == (25, 32, 32, 3)
    assert caplog.text == ""


def test_a_chunk_shows_the_newest_pictures_at_their_own_pace() -> None:
    time = VirtualTime(2.0)
    time.host.load(**SMALL, **GUIDE)
    session = filmed_session(time)
    for _ in range(5):
        begun = len(time.generator.requests)
        time.run(10, until=lambda begun=begun: len(time.generator.requests) > begun)  # type: ignore[misc]
        shown = reference_of(time.generator.requests[-1])[:, 0, 0, 0].astype(int)
        newest = session.filmed
        behind = (brightness(newest) - shown[-1]) % 250
        assert behind <= 18, "0.6 s: two batches of the host"
        steps = np.diff(shown) % 250
        if len(time.generator.requests) > 2:
            assert set(steps) <= {1, 2}, "30 fps shown at 24"


def test_the_first_chunk_waits_for_the_first_picture() -> None:
    time = VirtualTime()
    time.host.load(**SMALL, **GUIDE)
    session = time.session(prompts="a cat", input_mode="video")
    time.run(3)
    assert time.generator.requests == []
    session.film(30.0, 64, 64)
    time.run(1)
    assert reference_of(time.generator.requests[0]).any()


def test_a_camera_that_stops_does_not_stop_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    time = VirtualTime(2.0)
    time.host.load(**SMALL, **GUIDE)
    session = filmed_session(time)
    time.run(5)
    session.film(0.0, 64, 64)
    time.run(4)
    last = reference_of(time.generator.requests[-1])
    assert (last == last[-1]).all(), "its last picture is held"
    time.run(10)
    assert longest_gap_s(session.wire) <= 0.07
    inputs = time.generator.requests[-1].inputs
    assert inputs.reference is None, "then the prompt governs alone"
    assert inputs.camera_may_come, "so that its LoRA rests"
    assert caplog.text.count("the live source was lost") == 1
    session.film(30.0, 64, 64)
    time.run(5)
    assert reference_of(time.generator.requests[-1]).any()


def test_without_a_lora_that_looks_at_it_the_camera_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    time = VirtualTime()
    time.host.load(**SMALL)
    session = time.session(prompts="a cat", input_mode="video")
    time.run(3)
    assert session.wire.shown, "a camera that does not come is not waited for"
    session.film(30.0, 64, 64)
    time.run(3)
    assert all(request.inputs.reference is None for request in time.generator.requests)
    assert caplog.text.count("input frames guide the picture through an in-context LoRA") == 1
    session.worker.update(**GUIDE)
    time.run(5)
    assert reference_of(time.generator.requests[-1]).any(), "one that comes later counts"


def frames_taken(video: object, stamps: object, size: tuple[int, int] = (32, 32)) -> tuple[list[float], list[str]]:
    notes: list[str] = []
    times: list[float] = []
    frames = InputFrames(notes.append)
    frames.take(video, stamps, size, 100.0)
    frames.push_due(101.0, lambda pixels, at_s: times.append(at_s))
    return times, notes


def stamps_at(*seconds: float) -> list[MediaTimestamp]:
    return [MediaTimestamp(round(one * 1000), Fraction(1, 1000)) for one in seconds]


PICTURE = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)


def test_times_of_the_source_are_kept_and_others_are_made_up() -> None:
    assert frames_taken([PICTURE] * 3, stamps_at(5.0, 5.1, 5.2))[0] == [5.0, 5.1, 5.2]
    for broken in (None, [], stamps_at(5.0), stamps_at(5.0, 5.0, 5.1), [MediaTimestamp()] * 3, "no list"):
        times, _ = frames_taken([PICTURE] * 3, broken)
        assert times == pytest.approx([100 - 2 / 30, 100 - 1 / 30, 100])


@pytest.mark.parametrize(
    "item",
    [
        None,
        "no picture",
        torch.zeros((1, 64, 64, 3)),
        torch.zeros((64, 64), dtype=torch.uint8),
        torch.zeros((2, 64, 64, 3), dtype=torch.uint8),
        torch.zeros((1, 64, 64, 4), dtype=torch.uint8),
        torch.zeros((1, 0, 64, 3), dtype=torch.uint8),
        torch.zeros((1, 10_000, 2, 3), dtype=torch.uint8),
    ],
)
def test_what_is_no_picture_is_left_out(item: object) -> None:
    times, notes = frames_taken([PICTURE, item], stamps_at(1.0, 2.0))
    assert times == [1.0]
    assert len(notes) == 1
    assert frames_taken(item, None)[0] == []


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(64, 64, (32, 32)), (720, 1280, (33, 59)), (40, 90, (40, 90))]
)
def test_large_pictures_are_averaged_down(height: int, width: int, expected: tuple[int, int]) -> None:
    frame = torch.arange(height, dtype=torch.uint8)[:, None, None].expand(height, width, 3)
    made = smaller(frame, (32, 32))
    assert made.shape == (*expected, 3)
    assert abs(float(made.mean()) - float(frame.float().mean())) < 2


# pictures that come once


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "red.png"
    Image.new("RGB", (48, 48), (200, 10, 10)).save(path)
    return str(path)


def pins(generator: CountingGenerator | Unfinished) -> list[list[int]]:
    return [[pin.frame_idx for pin in request.inputs.pins] for request in generator.requests]


def test_a_first_and_a_last_picture_hold_for_one_chunk(picture: str) -> None:
    time = VirtualTime(2.0)
    time.host.load(**SMALL)
    session = time.session(prompts="a cat", first_frame_image=picture)
    time.run(3)
    assert pins(time.generator)[0] == [0]
    assert not any(pins(time.generator)[1:])
    begun = len(time.generator.requests)
    session.worker.update(last_frame_image=picture)
    time.run(4)
    assert sorted(pins(time.generator)[begun:])[-1] == [24]
    assert sum(map(bool, pins(time.generator)[begun:])) == 1


def test_one_is_not_used_up_by_a_chunk_that_failed(picture: str) -> None:
    time = VirtualTime()
    time.host.load(**SMALL)
    time.generator.failures = [RuntimeError("the LoRA is damaged")] * 2
    time.session(prompts="a cat", first_frame_image=picture)
    time.run(4)
    assert pins(time.generator)[:3] == [[0]] * 3
    assert not any(pins(time.generator)[3:])


@pytest.mark.parametrize(("since", "next_pins"), [({}, [0]), ({"first_frame_image": None}, [])])
def test_one_that_was_taken_back_does_not_come_again_after_a_failure(
    picture: str, since: dict[str, str | None], next_pins: list[int]
) -> None:
    generator = Unfinished()
    once = OncePinned(generator, lambda _: None)
    request = ChunkRequest(LTX2Config(height=32, width=32, num_frames=25), "a cat", 1)
    once.latch({"first_frame_image": picture})
    once.submit(request)
    once.latch(since)
    generator.chunks[0].set_exception(RuntimeError("the decoder broke"))
    once.submit(request)
    generator.chunks[1].set_exception(RuntimeError("the decoder broke"))
    assert pins(generator) == [[0], next_pins]


def test_one_that_cannot_be_read_is_told_and_the_chunk_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time = VirtualTime()
    time.host.load(**SMALL)
    session = time.session(prompts="a cat", first_frame_image=str(tmp_path / "gone.png"))
    time.run(2)
    assert session.wire.shown
    assert "gone.png" in caplog.text
    assert "first_frame_image" in caplog.text


def test_one_that_comes_before_the_prompt_waits_for_it(picture: str) -> None:
    """The host takes it away after the first call."""
    time = VirtualTime()
    time.host.load(**SMALL)
    session = time.session(first_frame_image=picture)
    time.run(1)
    session.worker.update(prompts="a cat")
    time.run(1)
    assert pins(time.generator)[0] == [0]


def test_a_picture_to_start_from_is_cleared_by_null(picture: str) -> None:
    time = VirtualTime()
    time.host.load(**SMALL)
    session = time.session(prompts="a cat", i2v_image=picture)
    time.run(2)
    assert pins(time.generator)[-1] == [0]
    session.worker.update(i2v_image=None)
    time.run(4)
    assert pins(time.generator)[-1] == []
