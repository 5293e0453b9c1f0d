"""Two references in one picture, as a function and as a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scope_ltx.compose import main, parse_size, side_by_side
from scope_ltx.media_in.images import load_image
from tests.fakes.pictures import Rgb, corners, quadrants


def flat(colour: tuple[int, int, int], height: int = 30, width: int = 20) -> Rgb:
    return np.full((height, width, 3), colour, np.uint8)


def save(path: Path, picture: Rgb) -> str:
    Image.fromarray(picture).save(path)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_two_people_stand_left_and_right() -> None:
    both = side_by_side([flat((200, 0, 0)), flat((0, 0, 200), 90, 300)], 704, 1280, "crop", 0)
    assert both.shape == (704, 1280, 3)
    assert (both[:, :640] == (200, 0, 0)).all()
    assert (both[:, 640:] == (0, 0, 200)).all()


@given(st.integers(1, 5), st.integers(1, 40), st.integers(5, 90), st.integers(0, 9))
def test_panels_share_the_width_and_only_gaps_are_black(count: int, height: int, width: int, gap: int) -> None:
    images = [flat((10 * (i + 1), 100, 50)) for i in range(count)]
    if width - gap * (count - 1) < count:
        with pytest.raises(ValueError, match="do not fit"):
            side_by_side(images, height, width, "crop", gap)
        return
    canvas = side_by_side(images, height, width, "crop", gap)
    assert canvas.shape == (height, width, 3)
    assert (canvas == canvas[:1]).all()
    row = canvas[0, :, 0].tolist()
    widths = [row.count(10 * (i + 1)) for i in range(count)]
    assert sum(widths) == width - gap * (count - 1)
    assert max(widths) - min(widths) <= 1
    assert row.count(0) == gap * (count - 1)
    shown = [value for i, value in enumerate(row) if value and (i == 0 or row[i - 1] != value)]
    assert shown == [10 * (i + 1) for i in range(count)]


def test_letterbox_shows_all_of_an_image() -> None:
    canvas = side_by_side([quadrants(20, 60), quadrants(20, 60)], 100, 120, "letterbox", 0)
    assert not canvas[:40].any()
    assert not canvas[60:].any()
    for left in (0, 60):
        assert corners(canvas[40:60, left : left + 60]) == ["red", "green", "blue", "white"]


def test_the_command_writes_one_picture(tmp_path: Path) -> None:
    left, right = save(tmp_path / "left.png", flat((200, 0, 0))), save(tmp_path / "right.jpg", flat((0, 0, 200)))
    output = tmp_path / "both.png"
    result = run(left, right, "-o", str(output), "--size", "96x64", "--gap", "4")
    assert result.exit_code == 0, result.output
    assert "2 images on 96x64" in result.output
    both = load_image(output)
    assert both.shape == (64, 96, 3)
    assert np.abs(both[30, [10, 48, 85]].astype(int) - [[200, 0, 0], [0, 0, 0], [0, 0, 200]]).max() <= 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--size", "96"], "WIDTHxHEIGHT in pixels, such as 1280x704, got '96'"),
        (["--size", "0x64"], "got '0x64'"),
        (["--size", "96x-64"], "got '96x-64'"),
        (["--size", "1x64"], "do not fit on 1x64"),
        (["--gap", "-1"], "0 pixels or more, got -1"),
    ],
)
def test_a_mistake_ends_with_one_message_and_no_file(tmp_path: Path, arguments: list[str], says: str) -> None:
    image, output = save(tmp_path / "one.png", flat((9, 9, 9))), tmp_path / "both.png"
    result = run(image, image, "-o", str(output), *arguments)
    assert result.exit_code == 1
    assert says in result.output
    assert not output.exists()


def test_an_unusable_image_or_output_is_named(tmp_path: Path) -> None:
    image = save(tmp_path / "one.png", flat((9, 9, 9)))
    missing = run(image, str(tmp_path / "two.png"), "-o", str(tmp_path / "both.png"))
    assert missing.exit_code == 1
    assert "two.png: there is no such file" in missing.output
    assert "the output is a .png, got 'both.jpg'" in run(image, "-o", str(tmp_path / "both.jpg")).output
    nowhere = run(image, "-o", str(tmp_path / "nowhere" / "both.png"))
    assert nowhere.exit_code == 1
    assert "nowhere" in nowhere.output
    with pytest.raises(ValueError, match="at least one image, got none"):
        side_by_side([], 64, 64, "crop", 0)


def test_a_size_is_width_by_height() -> None:
    assert parse_size("1280x704") == (704, 1280)


def test_the_module_runs_and_its_help_is_light() -> None:
    program = "import sys, scope_ltx.compose; print([n for n in ('torch', 'numpy', 'PIL') if n in sys.modules])"
    light = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert light.stdout.strip() == "[]"
    command = [sys.executable, "-m", "scope_ltx.compose", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "side by side" in shown.stdout
