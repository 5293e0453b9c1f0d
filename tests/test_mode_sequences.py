"""Any sequence of modes, sizes, rates, failures and cancellations over 50 chunks: picture and sound stay whole."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from scope_ltx.config import LTX2Config
from scope_ltx.errors import GenerationCancelled
from scope_ltx.request import Chunk, ChunkRequest, ChunkStats
from scope_ltx.sampling.geometry import overlap_frames
from scope_ltx.session import Session
from scope_ltx.sound_in.track import TrackEnded
from scope_streaming.media.segment import Segment
from scope_streaming.media.timeline import exact_frame_rate, segment_samples
from tests.fakes.clock import FakeClock
from tests.fakes.generator import SAMPLE_RATE, draw_counter, read_counter
from tests.fakes.sounds import hiss, write_sound
from tests.fakes.whole_chunks import WholeChunks

CHUNKS = 50
TAKE = 4096
"""A frame's number is TAKE times its take, and its place in it."""
TURN = 48_000
"""Samples in which the sound of a take goes round once: a cosine and a sine, so that two values give the place."""
TRACKS = {"short.wav": 30_000, "long.wav": 100_000}


class Takes(WholeChunks):
    """A chunk that has a tail goes on with its take, in picture and sound; any other begins a take of its own."""

    def __init__(self) -> None:
        self.takes = 0
        self.mishap: type[Exception] | None = None
        self.last: ChunkRequest | None = None

    def generate(self, request: ChunkRequest) -> Chunk:
        self.last = request
        if self.mishap is not None:
            raise self.mishap("as the test asks")
        config, inputs = request.config, request.inputs
        first, place = self.takes * TAKE, 0.0
        if inputs.tail is None:
            self.takes += 1
        else:
            first = read_counter(inputs.tail.frames[0])
            place = 0.0 if inputs.tail.samples is None else places(inputs.tail.samples[:, :1])[0]
        frames = np.full((config.num_frames, config.height, config.width, 3), 96, np.uint8)
        for index, frame in enumerate(frames):
            draw_counter(frame, first + index)
        if inputs.driving is not None:
            samples = inputs.driving.output
        else:
            length = segment_samples(config.num_frames, exact_frame_rate(config.frame_rate), SAMPLE_RATE)
            turns = (place + np.arange(length)) * (2 * np.pi / TURN)
            samples = (0.5 * np.stack([np.cos(turns), np.sin(turns)])).astype(np.float32)
        return Chunk(frames, samples, SAMPLE_RATE, ChunkStats(0.0, 0.1, 0.0, config.num_steps))


def places(samples: np.ndarray[Any, Any]) -> Any:
    """Where in its turn each sample of a take lies."""
    return np.arctan2(samples[1].astype(float), samples[0].astype(float)) % (2 * np.pi) * TURN / (2 * np.pi)


@dataclass
class Expected:
    """What a stream must show, told from the parameters alone."""

    folder: Path
    end: int = 0
    frames: list[int] = field(default_factory=list)
    place: float | None = None
    track: str | None = None
    at_end: str = "loop"
    position: int = 0
    tracks: dict[str, Any] = field(default_factory=dict)

    def opened(self, config: LTX2Config) -> None:
        """Another track begins at its first sample; one that stays goes on, also when its end is to be another."""
        driven = config.audio_mode == "driving" and config.audio_input is not None
        track = str(config.audio_input) if driven else None
        if track != self.track:
            self.track, self.position = track, 0
        elif track is not None and config.audio_at_end != self.at_end:
            length = self.tracks[Path(track).name].shape[1]
            if self.position >= length and config.audio_at_end == "loop":
                self.position = 0
            elif self.at_end == "loop":
                self.position %= length
        self.at_end = config.audio_at_end

    def check(self, segment: Segment, config: LTX2Config, continues: bool) -> None:
        assert segment.times.start == self.end
        self.end = segment.times.end
        repeated = overlap_frames(config.overlap_latents) if continues else 0
        assert len(segment.frames) == config.num_frames - repeated - config.trim_tail
        assert segment.samples.shape == (2, segment.times.samples)
        numbers = [read_counter(frame) for frame in segment.frames]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        if continues:
            assert numbers[0] == self.frames[-1] + 1
        else:
            assert numbers[0] % TAKE == 0
            assert not self.frames or numbers[0] > self.frames[-1]
        self.frames += numbers
        if self.track is None:
            self._check_turning(segment.samples, continues)
        else:
            assert np.array_equal(segment.samples, self._driving(segment.samples.shape[1]))
            self.position += segment.samples.shape[1]
            self.place = None

    def _check_turning(self, samples: np.ndarray[Any, Any], continues: bool) -> None:
        """No click: each sample lies a place after the one before it, at a border too, to a sample's rounding."""
        found = places(samples)
        if continues and self.place is not None:
            found = np.concatenate([[self.place], found])
        steps = (np.diff(found) + TURN / 2) % TURN - TURN / 2
        assert ((steps > 0.4) & (steps < 2.1))[1:].all()
        # Frames that last no whole number of samples: a chunk may have one less than the overlap leaves to show.
        assert -0.1 < steps[0] < 2.1
        self.place = float(found[-1])

    def _driving(self, count: int) -> Any:
        assert self.track is not None
        sound = self.tracks[Path(self.track).name]
        at = np.arange(self.position, self.position + count)
        if self.at_end == "loop":
            return sound[:, at % sound.shape[1]]
        return np.where(at < sound.shape[1], sound[:, np.minimum(at, sound.shape[1] - 1)], 0)

    def has_ended(self) -> bool:
        if self.track is None or self.at_end != "stop":
            return False
        return bool(self.position >= self.tracks[Path(self.track).name].shape[1])


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("media")
    tracks = {name: hiss(length, seed=length) for name, length in TRACKS.items()}
    for name, samples in tracks.items():
        write_sound(folder / name, samples, SAMPLE_RATE, "pcm_f32le")
    (folder / "guide").mkdir()
    for index in range(12):
        Image.new("RGB", (64, 64), (index * 20, 0, 0)).save(folder / "guide" / f"{index:02}.png")
    Image.new("RGB", (70, 50), (9, 200, 9)).save(folder / "pin.png")
    return {"folder": folder, "tracks": tracks}


SOUND = st.sampled_from(
    [("driving", None), ("driving", "short.wav"), ("driving", "long.wav"), ("id_lora", "long.wav")]
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "num_frames": st.sampled_from([9, 17, 25, 33]),
        "size": st.sampled_from([(64, 320), (96, 320)]),
        "frame_rate": st.sampled_from([24.0, 25.0, 30.0, 23.976, 29.97]),
        "continuity": st.sampled_from(["cut", "extend"]),
        "overlap_latents": st.integers(1, 2),
        "trim_tail": st.integers(0, 8),
        "i2v_image": st.sampled_from([None, "pin.png"]),
        "pinned": st.sampled_from([(), (8,)]),
        "reference_video": st.sampled_from([None, "guide"]),
        "reference_at_end": st.sampled_from(["loop", "hold"]),
        "sound": SOUND,
        "audio_at_end": st.sampled_from(["loop", "silence", "stop"]),
    },
)
STEP = st.tuples(CHANGES, st.sampled_from([None, None, None, None, OSError, GenerationCancelled]))


def parameters(changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As a page would send them."""
    sent = dict(changes)
    for name in ("i2v_image", "reference_video"):
        if sent.get(name) is not None:
            sent[name] = str(folder / sent[name])
    if "size" in sent:
        sent["height"], sent["width"] = sent.pop("size")
    if "pinned" in sent:
        sent["images"] = [{"path": str(folder / "pin.png"), "frame_idx": index} for index in sent.pop("pinned")]
    if "sound" in sent:
        mode, track = sent.pop("sound")
        sent |= {"audio_mode": mode, "audio_input": None if track is None else str(folder / track)}
    return sent


def continues(session: Session, before: LTX2Config | None) -> bool:
    """From the parameters of the last chunk that was made, and of the next one."""
    now = session.config
    if before is None or "cut" in (before.continuity, now.continuity):
        return False
    same = ("height", "width", "frame_rate", "overlap_latents")
    return all(getattr(before, name) == getattr(now, name) for name in same)


def open_files() -> int:
    return psutil.Process().num_fds()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    gc.collect()
    files, threads = open_files(), set(threading.enumerate())
    yield
    gc.collect()
    # Less is no leak: threads of tests before this one may end meanwhile.
    assert open_files() <= files
    assert set(threading.enumerate()) <= threads


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(STEP, min_size=CHUNKS, max_size=CHUNKS))
def test_picture_and_sound_stay_whole(
    media: dict[str, Any], nothing_left: None, steps: list[tuple[dict[str, Any], type[Exception] | None]]
) -> None:
    generator = Takes()
    start = LTX2Config(height=64, width=320, num_frames=17, num_steps=4)
    session = Session(generator, start, "a red ball", "test", FakeClock())
    expected = Expected(media["folder"], tracks=media["tracks"])
    made_with: LTX2Config | None = None
    for changes, mishap in steps:
        generator.mishap = mishap
        try:
            session.update(**parameters(changes, media["folder"]))
        except ValidationError as refused:
            # The only parameters of this test that can contradict each other: nothing was changed then.
            named = {name for error in refused.errors() for name in error["loc"]}
            assert named <= {"overlap_latents", "trim_tail"}
        config, goes_on = session.config, continues(session, made_with)
        expected.opened(config)
        if mishap is not None:
            with pytest.raises((mishap, TrackEnded)):
                session.next_segment()
        elif expected.has_ended():
            with pytest.raises(TrackEnded, match="has ended after"):
                session.next_segment()
        else:
            segment = session.next_segment()
            expected.check(segment, config, goes_on)
            made_with = config
        request = generator.last
        if request is not None and request.inputs.reference is not None:
            wanted = request.config
            assert request.inputs.reference.shape == (wanted.num_frames, wanted.height, wanted.width, 3)
    session.close()
    session.close_sources()
    with pytest.raises(GenerationCancelled):
        session.next_segment()
