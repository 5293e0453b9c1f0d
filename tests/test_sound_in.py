"""Sound on its way in: files of every kind, lengths, resampling, and voice clips."""

from __future__ import annotations

import random
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.sampling.geometry import audio_tokens_covering
from scope_ltx.sound_in.files import SoundFileError, SoundReader
from scope_ltx.sound_in.lengths import (
    mel_frames_of,
    model_samples_for,
    tokens_of,
    tokens_within,
)
from scope_ltx.sound_in.resample import HannSincResampler
from scope_ltx.sound_in.voice import level_dbfs, read_voice
from tests.fakes.sounds import (
    at_places,
    chirp,
    hiss,
    read_all,
    resampled,
    write_sound,
)

RATE = 48_000
DEFAULT = 258_000
"""Samples of a chunk of 129 frames at 24 fps."""


# Files


@pytest.mark.parametrize(
    ("name", "codec", "rate", "mean_error"),
    [
        ("a.wav", "pcm_s16le", 48_000, 1e-5),
        ("a.wav", "pcm_f32le", 48_000, 0.0),
        ("a.wav", "pcm_f32le", 44_100, 1e-5),
        ("a.flac", "flac", 48_000, 1e-5),
        ("a.mp3", "libmp3lame", 44_100, 0.02),
        ("a.m4a", "aac", 44_100, 0.01),
        ("a.mp4", "aac", 48_000, 0.01),
        ("a.ogg", "libopus", 48_000, 0.01),
        ("a.mkv", "libopus", 48_000, 0.01),
    ],
)
def test_a_file_of_any_kind_is_its_sound_at_its_place(
    tmp_path: Path, name: str, codec: str, rate: int, mean_error: float
) -> None:
    path = write_sound(tmp_path / name, chirp(3, rate), rate, codec, picture=name == "a.mp4")
    sound = read_all(path)
    expected = chirp(3, RATE)
    assert sound.dtype == np.float32
    # Lossy encoders round up to their packets.
    assert expected.shape[1] <= sound.shape[1] <= expected.shape[1] + 2048
    middle = slice(2_000, expected.shape[1] - 2_000)
    assert float(np.abs(sound[:, middle] - expected[:, middle]).mean()) <= mean_error
    one_late = expected[:, 1_999 : expected.shape[1] - 2_001]
    assert float(np.abs(one_late - expected[:, middle]).mean()) > 0.03, "a sample's delay must show"


def test_mono_goes_to_both_sides_as_loud_as_it_is(tmp_path: Path) -> None:
    samples = chirp(0.5, RATE, channels=1)
    sound = read_all(write_sound(tmp_path / "mono.wav", samples, RATE, "pcm_f32le", "mono"))
    np.testing.assert_array_equal(sound, np.repeat(samples, 2, axis=0))


def test_six_channels_are_mixed_down(tmp_path: Path) -> None:
    samples = chirp(0.5, RATE, channels=6) * np.float32(0.5)
    sound = read_all(write_sound(tmp_path / "six.wav", samples, RATE, "pcm_f32le", "5.1"))
    half = 0.5**0.5
    left, right, centre, _low, left_back, right_back = samples
    np.testing.assert_allclose(sound[0], left + half * centre + half * left_back, atol=1e-5)
    np.testing.assert_allclose(sound[1], right + half * centre + half * right_back, atol=1e-5)


def test_what_exceeds_full_scale_is_clipped(tmp_path: Path) -> None:
    samples = chirp(0.2, RATE) * 4
    sound = read_all(write_sound(tmp_path / "hot.wav", samples, RATE, "pcm_f32le"))
    np.testing.assert_array_equal(sound, np.clip(samples, -1, 1))


def test_the_own_rate_is_kept_when_none_is_given(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "own.wav", chirp(0.5, 22_050), 22_050, "pcm_f32le")
    with SoundReader(path) as reader:
        assert reader.rate == 22_050
        np.testing.assert_array_equal(reader.read(50_000), chirp(0.5, 22_050))


@given(blocks=st.lists(st.integers(0, 9_000), max_size=30))
@settings(max_examples=15)
def test_reading_in_any_blocks_gives_the_same(tmp_path_factory: pytest.TempPathFactory, blocks: list[int]) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks.flac"
    if not path.exists():
        write_sound(path, chirp(1.5, 44_100), 44_100, "flac")
    whole = read_all(path)
    with SoundReader(path, RATE) as reader:
        parts = [reader.read(count) for count in blocks]
    joined = np.concatenate([np.zeros((2, 0), np.float32), *parts], axis=1)
    assert joined.shape[1] == min(sum(blocks), whole.shape[1])
    np.testing.assert_array_equal(joined, whole[:, : joined.shape[1]])


def damaged_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> file and the words that its error must say."""
    (folder / "folder").mkdir()
    (folder / "page.mp3").write_text("\n <!DOCTYPE html><html><body>Not found</body></html>" * 50)
    (folder / "text.wav").write_text("these are notes, not sound " * 100)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    )
    sound = write_sound(folder / "none.wav", chirp(0.1, RATE), RATE, "pcm_s16le").read_bytes()
    (folder / "none.wav").write_bytes(sound[: sound.index(b"data") + 4] + bytes(4))
    nan = chirp(0.5, RATE)
    nan[0, 10_000] = np.nan
    write_sound(folder / "nan.wav", nan, RATE, "pcm_f32le")
    silent_film = folder / "film.mp4"
    write_film(silent_film)
    whole = write_sound(folder / "whole.m4a", chirp(2, RATE), RATE, "aac").read_bytes()
    (folder / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    flac = write_sound(folder / "whole.flac", chirp(2, RATE), RATE, "flac").read_bytes()
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    wav = write_sound(folder / "whole.wav", chirp(2, RATE), RATE, "pcm_f32le").read_bytes()
    (folder / "cut.wav").write_bytes(wav[: len(wav) // 2])
    slow = bytearray(write_sound(folder / "slow.wav", chirp(0.1, RATE), RATE, "pcm_s16le").read_bytes())
    slow[24:28] = (1).to_bytes(4, "little")
    (folder / "slow.wav").write_bytes(slow)
    words = {
        "missing.wav": "there is no such file",
        "folder": "this is no file",
        "page.mp3": "web page",
        "text.wav": "no media file",
        "list.m3u8": "no media file",
        "empty.wav": "the file is empty",
        "none.wav": "holds no samples",
        "nan.wav": "no numbers (NaN or infinity) after 0.",
        "film.mp4": "no sound track (it has: video)",
        "cut.m4a": "no media file, or it is damaged",
        "cut.flac": "cannot be decoded any further after",
        "cut.wav": "cut short: it ends after 1.00 s, and its header says 2.00 s",
        "slow.wav": "sample rate is 1 Hz",
    }
    return {name: (folder / name, text) for name, text in words.items()}


def write_film(path: Path) -> None:
    """A video without sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=24)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))


def test_every_unusable_file_says_what_is_wrong(tmp_path: Path) -> None:
    for name, (path, words) in damaged_files(tmp_path).items():
        with pytest.raises(SoundFileError) as caught:
            read_all(path)
        message = str(caught.value)
        assert message.startswith(str(path)), name
        assert words in message, f"{name}: {message}"
        assert caught.value.advice in message
        assert caught.value.advice


@pytest.mark.parametrize(("name", "codec"), [("f.flac", "flac"), ("f.mp3", "libmp3lame"), ("f.m4a", "aac")])
def test_a_damaged_file_gives_sound_or_that_error_and_nothing_else(tmp_path: Path, name: str, codec: str) -> None:
    whole = write_sound(tmp_path / name, chirp(0.6, 44_100), 44_100, codec).read_bytes()
    chance = random.Random(7)
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
        for _ in range(chance.randrange(12)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"damaged.{name}"
        path.write_bytes(damaged)
        try:
            sound = read_all(path)
        except SoundFileError:
            refused += 1
        else:
            assert np.isfinite(sound).all()
            assert sound.shape[1] < 10 * RATE
    assert refused >= 1


# Lengths


@given(tokens=st.integers(1, 2_000))
def test_the_encoder_makes_the_wanted_tokens_of_that_many_samples(tokens: int) -> None:
    count = model_samples_for(tokens)
    assert tokens_of(count) == tokens
    assert mel_frames_of(count) <= 4 * tokens
    # The last frame that the last token hears, 4 tokens - 4, lies wholly inside.
    assert (4 * tokens - 4) * 160 + 512 <= count


def test_sizes_of_the_default_chunk() -> None:
    assert audio_tokens_covering(DEFAULT) == 136
    assert model_samples_for(136) == 86_913
    assert (mel_frames_of(86_000), tokens_of(86_000), tokens_of(80_000)) == (538, 135, 126)
    with pytest.raises(ValueError, match="at least one token, got 0"):
        model_samples_for(0)


@given(samples=st.integers(0, 400_000))
def test_tokens_within_end_within(samples: int) -> None:
    tokens = tokens_within(samples)
    ends = [(4 * i + 1) * 480 for i in range(tokens + 1)]
    assert all(end <= samples for end in ends[:tokens])
    assert ends[tokens] > samples


# Resampling


@pytest.mark.parametrize("source", [48_000, 44_100, 22_050, 8_000])
def test_resampling_is_the_published_formula(source: int) -> None:
    samples = hiss(source // 20, seed=source)
    ours = HannSincResampler(source, 16_000).whole(samples)
    assert ours.shape == (2, -(-samples.shape[1] * 16_000 // source))
    plain = resampled(at_places(samples), source, 16_000, 0, ours.shape[1])
    np.testing.assert_allclose(ours, plain, atol=2e-6)


def test_the_same_rate_changes_nothing() -> None:
    samples = hiss(1_000)
    np.testing.assert_array_equal(HannSincResampler(16_000, 16_000).whole(samples), samples)


def test_a_stretch_too_short_for_its_results_is_refused() -> None:
    with pytest.raises(ValueError, match="10 results need 68 samples, got 67"):
        HannSincResampler(48_000, 16_000).stretch(hiss(67), 10)


def test_a_pause_in_a_recording_is_no_damage(tmp_path: Path) -> None:
    """Its timestamps leap over 2 s, so its header says 6 s for 4 s of samples: as recorders do that are paused."""
    path, sound = tmp_path / "paused.mp4", hiss(4 * RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        for first in range(0, 4 * RATE, 1024):
            block = np.ascontiguousarray(sound[:, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = RATE, first + (2 * RATE if first >= 2 * RATE else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert (container.duration or 0) > 5.5e6
    assert read_all(path).shape[1] == pytest.approx(4 * RATE, abs=2048)


# Voice clips


def test_a_voice_clip_keeps_its_loudness(tmp_path: Path) -> None:
    samples = chirp(5, 44_100) * np.float32(0.02)
    clip = read_voice(write_sound(tmp_path / "voice.wav", samples, 44_100, "pcm_f32le"))
    assert clip.samples.shape == (2, 80_000)
    assert clip.seconds == 5.0
    assert clip.notes == ()
    assert abs(clip.level_dbfs - level_dbfs(samples)) < 0.01
    assert abs(level_dbfs(clip.samples) - level_dbfs(samples)) < 0.1
    plain = resampled(at_places(samples), 44_100, 16_000, 44_100, 200)
    np.testing.assert_allclose(clip.samples[:, 16_000:16_200], plain, atol=1e-6)


def test_a_long_clip_is_cut_and_a_short_one_advised(tmp_path: Path) -> None:
    long = read_voice(write_sound(tmp_path / "long.wav", chirp(10.5, 16_000), 16_000, "pcm_f32le"))
    np.testing.assert_array_equal(long.samples, chirp(10.5, 16_000)[:, :160_000])
    assert long.notes == ("the voice clip is longer than 10 s: only its first 10 s are used",)
    short = read_voice(write_sound(tmp_path / "short.wav", chirp(1, 16_000), 16_000, "pcm_f32le"))
    assert short.notes == ("the voice clip lasts 1.0 s: about 5 s imitate a voice better",)
    exact = read_voice(write_sound(tmp_path / "exact.wav", chirp(10, 16_000), 16_000, "pcm_f32le"))
    assert exact.notes == ()


def test_a_clip_too_short_or_silent_is_refused(tmp_path: Path) -> None:
    brief = write_sound(tmp_path / "brief.wav", chirp(0.9, RATE), RATE, "pcm_f32le")
    with pytest.raises(SoundFileError, match=r"lasts 0\.90 s, at least 1 s are needed"):
        read_voice(brief)
    quiet = write_sound(tmp_path / "quiet.wav", chirp(2, RATE) * np.float32(0.001), RATE, "pcm_f32le")
    with pytest.raises(SoundFileError, match=r"silent: its level is -69\.\d dBFS, at least -60 dBFS"):
        read_voice(quiet)
    mute = write_sound(tmp_path / "mute.wav", np.zeros((2, RATE * 2), np.float32), RATE, "pcm_s16le")
    with pytest.raises(SoundFileError, match=r"level is -inf dBFS"):
        read_voice(mute)
