"""The examples, each run as a person runs it, on the small model and at tiny sizes: a clip, and a mode that acts.

What each mode does is shown by running it twice with inputs that differ in one thing.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from scope_ltx.cli import main as command
from scope_ltx.config import LTX2Config
from tests.fakes.sounds import chirp, read_all, write_sound

ROOT = Path(__file__).parents[1]
SIZE = 64
MADE = ("webcam", "talking_head", "ingredients", "sync_lora", "dual_character")
SAMPLE_RATE = 48_000

Arrays = dict[str, npt.NDArray[Any]]
Run = Callable[..., Arrays]


@pytest.fixture
def run(small_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs an example and gives its frames and samples as they were before encoding."""
    monkeypatch.syspath_prepend(ROOT / "examples")

    def example(name: str, *arguments: object, frames: int = 9, width: int = SIZE) -> Arrays:
        clip, dump = tmp_path / f"{name}.mp4", tmp_path / f"{name}.npz"
        size = ("--width", width, "--height", SIZE, "--frames", frames)
        options = ("-o", clip, "--dump-npz", dump, "--model", small_model_dir, *size, *arguments)
        importlib.import_module(name).main([str(option) for option in options])
        with np.load(dump) as arrays:
            made = dict(arrays)
        with av.open(str(clip)) as file:
            assert len(list(file.decode(video=0))) == len(made["frames"])
            assert file.streams.video[0].codec_context.name == "h264"
        return made

    return example


def flat(path: Path, *colours: str, size: int = SIZE) -> Path:
    """A picture of equal columns."""
    image = Image.new("RGB", (size, size))
    for index, colour in enumerate(colours):
        left, right = (size * edge // len(colours) for edge in (index, index + 1))
        image.paste(colour, (left, 0, right, size))
    image.save(path)
    return path


def tone(pitch_hz: float) -> npt.NDArray[np.float32]:
    """Two seconds of it with overtones, (2, N) at 16 kHz."""
    time_s = np.arange(32_000) / 16_000
    wave = np.sum([np.sin(2 * np.pi * pitch_hz * part * time_s) / part for part in (1, 2, 3)], axis=0)
    return np.stack([0.3 * wave] * 2).astype(np.float32)


def mean_colour(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return frames.reshape(-1, 3).mean(axis=0)


def redder(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], by: float = 20) -> bool:
    """`one` has more red and less blue."""
    red, _, blue = mean_colour(one) - mean_colour(other)
    return bool(red > by and blue < -by)


def loudness(samples: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


@pytest.mark.parametrize("name", MADE)
def test_help_says_how_to_run_it(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text()
    assert f"python examples/{name}.py -o " in source
    assert len(source.splitlines()) <= 100


def test_webcam(run: Run) -> None:
    """What the camera sees steers the picture, with its edges drawn and without."""
    red, blue = (
        run("webcam", "--control", "none", "--colour", colour, "--chunks", 2)["frames"]
        for colour in ("red", "blue")
    )
    assert red.shape == (18, SIZE, SIZE, 3)
    assert np.abs(red.astype(np.float64) - blue).mean() > 1
    edges = run("webcam", "--colour", "red")["frames"]
    assert np.abs(edges - red[:9].astype(np.float64)).mean() > 1


def test_talking_head(run: Run, tmp_path: Path) -> None:
    """The first frame is the face, and the sound is another one for another voice."""
    low = write_sound(tmp_path / "low.wav", tone(110), 16_000, "pcm_s16le")
    high = write_sound(tmp_path / "high.wav", tone(900), 16_000, "pcm_s16le")
    red = run("talking_head", "--face", flat(tmp_path / "red.png", "red"), "--voice", low)
    blue = run("talking_head", "--face", flat(tmp_path / "blue.png", "blue"), "--voice", high)
    assert red["frames"].shape == (9, SIZE, SIZE, 3)
    assert red["samples"].shape == (2, 9 * SAMPLE_RATE // 24)
    assert redder(red["frames"][0], blue["frames"][0])
    assert loudness(red["samples"] - blue["samples"]) > 0.01 * loudness(red["samples"])


def test_ingredients(run: Run, tmp_path: Path) -> None:
    """The picture takes the sheet's colours."""
    dark, bright = (
        run("ingredients", "--sheet", flat(tmp_path / f"{colour}.png", colour), frames=121)["frames"]
        for colour in ("black", "lime")
    )
    assert dark.shape == (121, SIZE, SIZE, 3)
    assert mean_colour(bright)[1] > mean_colour(dark)[1] + 20


def test_sync_lora(run: Run, tmp_path: Path) -> None:
    """The first frame is the edit, at the full size of two stages."""
    red, blue = (
        run("sync_lora", "--edit", flat(tmp_path / f"{colour}.png", colour), width=2 * SIZE)["frames"]
        for colour in ("red", "blue")
    )
    assert red.shape == (9, SIZE, 2 * SIZE, 3)
    assert redder(red[0], blue[0])


def test_dual_character(run: Run, tmp_path: Path) -> None:
    """Both portraits are in the first frame, each on its side; the last 8 frames are left out."""
    red, blue = flat(tmp_path / "red.png", "red"), flat(tmp_path / "blue.png", "blue")
    frames = run("dual_character", "--left", red, "--right", blue, frames=17, width=4 * SIZE)["frames"]
    assert frames.shape == (9, SIZE, 4 * SIZE, 3)
    assert redder(frames[0, :, :SIZE], frames[0, :, -SIZE:])


def test_driving_sound_is_the_output_exactly(small_model_dir: Path, tmp_path: Path) -> None:
    """Through `generate`: chunk after chunk, until the track stops."""
    song = write_sound(tmp_path / "song.wav", chirp(1.0, SAMPLE_RATE), SAMPLE_RATE, "pcm_s16le")
    dump = tmp_path / "clip.npz"
    parameters = {"audio_input": song, "audio_at_end": "stop", "num_frames": 9, "height": SIZE, "width": SIZE}
    assignments = [part for name, value in parameters.items() for part in ("--set", f"{name}={value}")]
    result = CliRunner().invoke(
        command,
        ["generate", "--model", str(small_model_dir), "--prompt", "a", "--chunks", "9", *assignments,
         "-o", str(tmp_path / "clip.mp4"), "--dump-npz", str(dump)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "has ended after 1.00 s, and the clip with it" in result.stderr
    with np.load(dump) as arrays:
        samples, frames = arrays["samples"], arrays["frames"]
    # 1.0 s is 2 2/3 chunks of 0.375 s; what is missing of the third is silent.
    assert len(frames) == 27
    assert samples.shape == (2, 27 * SAMPLE_RATE // 24)
    assert np.array_equal(samples[:, :SAMPLE_RATE], read_all(song))
    assert not samples[:, SAMPLE_RATE:].any()


def test_generate_clip(
    small_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    clip = tmp_path / "out.mp4"
    config = LTX2Config(height=SIZE, width=SIZE, num_frames=9)
    importlib.import_module("generate_clip").generate(clip, "a red ball", small_model_dir, config)
    assert capsys.readouterr().out.count("0.375 s of picture and sound") == 2
    with av.open(str(clip)) as file:
        assert len(list(file.decode(video=0))) == 18


@pytest.mark.network
def test_live_preview(tmp_path: Path) -> None:
    clip = tmp_path / "preview.mp4"
    line = [sys.executable, ROOT / "examples" / "live_preview.py", "-o", clip, "--seconds", "4"]
    sizes = ("width=64", "height=64", "num_frames=33")
    line += [part for size in sizes for part in ("--set", size)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert "watching http://127.0.0.1:" in done.stdout
    # How many there are in four seconds is the machine's speed: 19 beside two busy loops on two cores.
    for kind in ("video", "audio"):
        with av.open(str(clip)) as file:
            assert len(list(file.decode(**{kind: 0}))) > 8
