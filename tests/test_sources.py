"""What a configuration names, read chunk after chunk: positions, live pictures and sound, pins, voices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scope_ltx.config import LTX2Config
from scope_ltx.inputs import ChunkInputs
from scope_ltx.media_in.errors import MediaInputError
from scope_ltx.sound_in.track import TrackEnded
from scope_ltx.sources import ChunkSources, Taken
from scope_ltx.splice import Cut
from tests.fakes.clock import FakeClock
from tests.fakes.sounds import hiss, write_sound

CONFIG = LTX2Config(height=64, width=64, num_frames=9, frame_rate=24)
CHUNK = 18_000
"""Samples of a chunk."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sources(clock: FakeClock) -> Iterator[ChunkSources]:
    made = ChunkSources(clock)
    yield made
    made.close()


def config(**parameters: Any) -> LTX2Config:
    return LTX2Config.model_validate(CONFIG.model_dump() | parameters)


def take(sources: ChunkSources, wanted: LTX2Config) -> Taken:
    return sources.take(wanted, Cut.of(wanted, continues=False, driven=sources.drives(wanted)), None)


def made(sources: ChunkSources, wanted: LTX2Config) -> ChunkInputs:
    """Of a chunk that was made."""
    taken = take(sources, wanted)
    taken.commit()
    return taken.inputs


def red(level: int, size: int = 64) -> np.ndarray[Any, Any]:
    return np.full((size, size, 3), (level, 0, 0), np.uint8)


def reds(inputs: ChunkInputs) -> list[int]:
    assert inputs.reference is not None
    return [int(frame[0, 0, 0]) for frame in inputs.reference]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip of 12 frames, each of its own red."""
    path = tmp_path / "guide"
    path.mkdir()
    for index in range(12):
        Image.fromarray(red(index * 20)).save(path / f"{index:02}.png")
    return path


def test_a_reference_goes_on_where_the_last_chunk_that_was_made_ended(sources: ChunkSources, folder: Path) -> None:
    wanted = config(reference_video=str(folder))
    first = [index * 20 for index in range(9)]
    assert reds(take(sources, wanted).inputs) == first
    assert reds(made(sources, wanted)) == first
    assert reds(made(sources, wanted)) == [180, 200, 220, *first[:6]]
    held = config(reference_video=str(folder), reference_at_end="hold")
    # It goes on within the round, and does not begin anew.
    assert reds(made(sources, held)) == [120, 140, 160, 180, 200] + [220] * 4
    assert reds(made(sources, held)) == [220] * 9
    assert reds(made(sources, wanted)) == first
    assert made(sources, CONFIG).reference is None
    assert reds(made(sources, held)) == first


def test_a_reference_that_comes_while_chunks_extend_shows_every_frame_once(
    sources: ChunkSources, folder: Path
) -> None:
    """What a chunk repeats of the one before was made without it."""
    wanted = config(reference_video=str(folder), continuity="extend", overlap_latents=1, num_frames=17)
    cut = Cut.of(wanted, continues=True, driven=False)
    shown = []
    for _ in range(2):
        taken = sources.take(wanted, cut, None)
        taken.commit()
        shown += reds(taken.inputs)[cut.splice.shown]
    assert shown == [index % 12 * 20 for index in range(len(shown))]


def test_live_frames_are_the_reference_while_they_come(
    sources: ChunkSources, clock: FakeClock, folder: Path
) -> None:
    wanted = config(reference_video=str(folder))
    for index in range(24):
        sources.push_frame(red(100 + index), index / 24)
        clock.advance(1 / 24)
    taken = take(sources, wanted)
    assert reds(taken.inputs)[-1] == 123
    assert np.diff(reds(taken.inputs)).tolist() == [1] * 7 + [0]
    assert taken.notes == ()
    clock.advance(2.0)
    silent = take(sources, wanted)
    assert reds(silent.inputs) == [123] * 9
    assert silent.notes == ("the live source sends no picture: its last one is held for 5 s",)
    clock.advance(4.0)
    assert not sources.live
    lost = take(sources, wanted)
    assert reds(lost.inputs)[:3] == [0, 20, 40]
    assert lost.notes == (
        f"the live source was lost: no picture for over 5 s, so the stream goes on from {folder}",
    )
    assert take(sources, CONFIG).inputs.reference is None
    assert "goes on from the prompt alone" in take(sources, CONFIG).notes[0]
    clock.advance(60.0)
    assert take(sources, CONFIG).notes == ()
    sources.push_frame(red(7), 90.0)
    back = take(sources, wanted)
    assert (reds(back.inputs)[-1], back.notes) == (7, ())


def test_a_driving_track_goes_on_and_ends_as_told(sources: ChunkSources, tmp_path: Path) -> None:
    sound = hiss(2 * CHUNK - 1000)
    path = str(write_sound(tmp_path / "track.wav", sound, 48_000, "pcm_f32le"))
    wanted = config(audio_input=path, audio_at_end="stop")
    assert sources.drives(wanted)
    for _ in range(2):
        peeked = take(sources, wanted).inputs.driving
        assert peeked is not None
        assert np.array_equal(peeked.output, sound[:, :CHUNK])
    made(sources, wanted)
    rest = made(sources, wanted).driving
    assert rest is not None
    assert np.array_equal(rest.output[:, :-1000], sound[:, CHUNK:])
    assert not rest.output[:, -1000:].any()
    with pytest.raises(TrackEnded, match=r"track\.wav has ended after"):
        take(sources, wanted)


class Interrupted(FakeClock):
    """Lets another thread in whenever it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None

    def now(self) -> float:
        other, self.meanwhile = self.meanwhile, None
        if other is not None:
            other()
        return super().now()


def test_sound_that_comes_after_silence_is_kept_however_soon_a_chunk_looks() -> None:
    clock = Interrupted()
    sources = ChunkSources(clock)
    sources.push_audio(hiss(CHUNK), 0)
    clock.advance(6.0)
    assert not sources.drives(CONFIG)
    sound = hiss(2 * CHUNK)
    clock.meanwhile = lambda: sources.drives(CONFIG)
    sources.push_audio(sound)
    driving = made(sources, CONFIG).driving
    assert driving is not None
    assert np.array_equal(driving.output, sound[:, :CHUNK])
    sources.close()


def test_live_sound_drives_while_it_comes(sources: ChunkSources, clock: FakeClock) -> None:
    assert not sources.drives(CONFIG)
    sound = hiss(3 * CHUNK)
    sources.push_audio(sound, 0)
    assert sources.drives(CONFIG)
    for start in (0, CHUNK):
        driving = made(sources, CONFIG).driving
        assert driving is not None
        assert np.array_equal(driving.output, sound[:, start : start + CHUNK])
    clock.advance(6.0)
    assert not sources.drives(CONFIG)
    # Cut as a driven chunk a moment before: silent, and not the sound of 6 seconds ago.
    late = sources.take(CONFIG, Cut.of(CONFIG, continues=False, driven=True), None).inputs.driving
    assert late is not None
    assert not late.output.any()
    assert take(sources, CONFIG).inputs.driving is None


def test_pins_are_read_once_and_again_when_the_file_was_replaced(sources: ChunkSources, tmp_path: Path) -> None:
    path = tmp_path / "pin.png"
    Image.fromarray(red(200)).save(path)
    wanted = config(i2v_image=str(path), images=[{"path": str(path), "frame_idx": 8, "strength": 0.5}])
    first = take(sources, wanted).inputs.pins
    assert [(pin.frame_idx, pin.strength) for pin in first] == [(0, 1.0), (8, 0.5)]
    assert first[0].pixels is first[1].pixels is take(sources, wanted).inputs.pins[0].pixels
    Image.fromarray(np.full((32, 96, 3), 90, np.uint8)).save(path)
    again = take(sources, wanted).inputs.pins[0].pixels
    assert abs(int(again[0, 0, 0]) - 90) < 6
    path.unlink()
    with pytest.raises(MediaInputError, match=r"pin\.png"):
        take(sources, wanted)


def test_a_pin_at_frame_0_gives_way_to_the_tail_and_says_so(sources: ChunkSources, tmp_path: Path) -> None:
    path = tmp_path / "pin.png"
    Image.fromarray(red(200)).save(path)
    wanted = config(i2v_image=str(path), continuity="extend", overlap_latents=1)
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    kept = Cut.of(wanted, continues=False, driven=False).kept(
        frames, np.zeros((2, CHUNK), np.float32), np.zeros((2, 0), np.float32)
    )
    assert kept is not None
    taken = sources.take(wanted, Cut.of(wanted, continues=True, driven=False), kept)
    assert taken.inputs.pins == ()
    assert taken.inputs.tail is kept.tail
    assert "this one goes on from the chunk before" in taken.notes[0]


def test_a_pin_among_the_frames_that_are_repeated_gives_way_as_well(sources: ChunkSources, tmp_path: Path) -> None:
    path = tmp_path / "pin.png"
    Image.fromarray(red(200)).save(path)
    pins = [{"path": str(path), "frame_idx": place} for place in (8, 16)]
    wanted = config(images=pins, continuity="extend", overlap_latents=2, num_frames=25)
    frames = np.zeros((25, 64, 64, 3), np.uint8)
    kept = Cut.of(wanted, continues=False, driven=False).kept(
        frames, np.zeros((2, 50_000), np.float32), np.zeros((2, 0), np.float32)
    )
    taken = sources.take(wanted, Cut.of(wanted, continues=True, driven=False), kept)
    assert [pin.frame_idx for pin in taken.inputs.pins] == [16]
    (note,) = taken.notes
    assert "the image at frame 8 held the first chunk" in note
    assert "repeats 9 frames" in note


def test_a_damaged_song_is_told_in_every_chunk_after_its_end(sources: ChunkSources, tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "long.flac", hiss(4 * CHUNK), 48_000, "flac").read_bytes()
    path = tmp_path / "cut.flac"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    wanted = config(audio_input=str(path), audio_at_end="silence")
    notes = []
    for _ in range(5):
        taken = take(sources, wanted)
        taken.commit()
        notes.append(taken.notes)
    assert notes[0] == ()
    assert "cut.flac: it cannot be decoded any further" in notes[-1][0]


@pytest.mark.parametrize("rate", [8, 12])
def test_a_long_chunk_takes_live_picture_and_sound(sources: ChunkSources, clock: FakeClock, rate: int) -> None:
    wanted = config(num_frames=257, frame_rate=rate)
    sources.push_frame(red(7))
    sources.push_audio(hiss(CHUNK))
    taken = take(sources, wanted).inputs
    assert taken.driving is not None
    assert set(reds(taken)) == {7}


def test_live_sound_alone_never_falls_far_behind(sources: ChunkSources) -> None:
    for _ in range(80):
        sources.push_audio(hiss(48_000))
    driving = made(sources, CONFIG).driving
    assert driving is not None
    assert np.array_equal(driving.output, hiss(48_000)[:, 48_000 - CHUNK :])


def test_a_voice_is_read_in_its_mode_only(sources: ChunkSources, tmp_path: Path) -> None:
    path = str(write_sound(tmp_path / "voice.wav", hiss(3 * 48_000), 48_000, "pcm_f32le"))
    voiced = config(audio_input=path, audio_mode="id_lora")
    inputs = take(sources, voiced).inputs
    assert inputs.voice is not None
    assert inputs.voice.shape[0] == 2
    assert inputs.driving is None
    assert take(sources, voiced).inputs.voice is inputs.voice
    assert take(sources, config(audio_input=path)).inputs.voice is None
    assert take(sources, config(audio_mode="id_lora")).inputs.voice is None


def test_paths_that_lead_nowhere_are_named(sources: ChunkSources, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing.mp4")
    with pytest.raises(MediaInputError, match=r"nothing\.mp4"):
        take(sources, config(reference_video=missing))
    with pytest.raises(Exception, match=r"nothing\.mp4"):
        take(sources, config(audio_input=missing))
