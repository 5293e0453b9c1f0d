"""Stills: what a file's pixels become, how they are fitted and recompressed, and which pins are refused."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from pydantic import ValidationError

from scope_ltx.errors import ScopeLtxError
from scope_ltx.media_in.errors import MediaInputError
from scope_ltx.media_in.fit import FitMode, fit, fit_array, place
from scope_ltx.media_in.images import load_image
from scope_ltx.media_in.pins import ImagePin, all_pins, check_pins
from scope_ltx.media_in.recompress import PIN_CRF, prepare_pin, recompress
from tests.fakes.pictures import Rgb, corners, quadrants

ORIENTATION_TAG = 0x0112


def textured(height: int, width: int) -> Rgb:
    """Smooth colours with detail, as a codec meets them."""
    coarse = np.random.default_rng(7).integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).copy()


# Loading


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "ppm"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, suffix: str) -> None:
    picture = quadrants(31, 47)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(picture).save(path, lossless=True)  # only WebP has another way
    loaded = load_image(path)
    assert loaded.dtype == np.uint8
    assert np.array_equal(loaded, picture)
    loaded[:] = 0  # the caller's own


@pytest.mark.parametrize(
    ("tag", "stored"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (5, lambda upright: upright.swapaxes(0, 1)),
        (6, lambda upright: np.rot90(upright, 1)),
        (7, lambda upright: upright[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, tag: int, stored: Callable[[Rgb], Rgb]) -> None:
    upright = quadrants(40, 64)
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = tag
    Image.fromarray(np.ascontiguousarray(stored(upright))).save(path, exif=exif, quality=95)
    loaded = load_image(path)
    assert loaded.shape == upright.shape
    assert corners(loaded) == ["red", "green", "blue", "white"]


def test_transparency_is_composited_on_the_background(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, 0], pixels[:, 1], pixels[:, 2] = (200, 100, 50, 255), (200, 100, 50, 51), (200, 100, 50, 0)
    path = tmp_path / "cut-out.png"
    Image.fromarray(pixels).save(path)
    assert load_image(path)[0].tolist() == [[200, 100, 50], [40, 20, 10], [0, 0, 0]]
    assert load_image(path, background=(0, 255, 0))[0].tolist() == [[200, 100, 50], [40, 224, 10], [0, 255, 0]]


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((3, 1), 1)
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "keyed.png", transparency=0)
    assert load_image(tmp_path / "opaque.png")[0, 0].tolist() == [10, 20, 30]
    keyed = load_image(tmp_path / "keyed.png")
    assert keyed[0, 0].tolist() == [0, 0, 0]
    assert keyed[1, 3].tolist() == [200, 100, 50]


@pytest.mark.parametrize(("mode", "value"), [("L", 130), ("1", 255), ("LA", (130, 255))])
def test_greyscale_becomes_grey(tmp_path: Path, mode: str, value: int | tuple[int, int]) -> None:
    path = tmp_path / "grey.png"
    Image.new(mode, (5, 3), value).save(path)
    expected = value if isinstance(value, int) else value[0]
    assert np.array_equal(load_image(path), np.full((3, 5, 3), expected, np.uint8))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bit_greyscale_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 257, 32_768, 65_278, 65_535]], np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(levels).save(path)
    assert load_image(path)[0, :, 0].tolist() == [0, 1, 128, 254, 255]


def test_sixteen_bit_colour_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    levels = np.zeros((64, 64, 3), np.uint16)
    levels[...] = (65_535, 32_896, 257)
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "rgb48be"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(levels, format="rgb48le").reformat(format="rgb48be"))
        )
        container.mux(stream.encode(None))
    assert path.read_bytes()[24] == 16  # bits per channel, of the PNG header
    assert load_image(path)[5, 5].tolist() == [255, 128, 1]


def test_cmyk(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    red, green, blue = load_image(path)[8, 8].tolist()
    assert red > 200
    assert max(green, blue) < 60


def test_an_embedded_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    pixels = np.full((8, 8, 4), (240, 20, 20, 255), np.uint8)
    for profile, expected in ((srgb, [240, 20, 20]), (exchanged, [20, 20, 240]), (b"no profile", [240, 20, 20])):
        for picture in (pixels[:, :, :3], pixels):
            path = tmp_path / "profiled.png"
            Image.fromarray(np.ascontiguousarray(picture)).save(path, icc_profile=profile)
            assert np.abs(load_image(path)[4, 4].astype(int) - expected).max() <= 2


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "animated.gif"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    assert load_image(path)[4, 4].tolist() == [255, 0, 0]


def png_claiming(width: int, height: int) -> bytes:
    """A small PNG whose header says it is large."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    return _with_png_size(buffer.getvalue(), width, height)


def _with_png_size(png: bytes, width: int, height: int) -> bytes:
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def truncated_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(textured(64, 64)).save(buffer, "PNG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("page.png", b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        ("text.jpg", b"hello, I am no picture at all", "known format"),
        ("empty.png", b"", "empty"),
        ("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("clip.png", b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "video"),
        ("cut.png", truncated_png(), "damaged or incomplete"),
        ("bomb.png", png_claiming(20_000, 20_000), "100 megapixels"),
        ("large.png", png_claiming(10_001, 10_000), "100 megapixels"),
        ("program.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "EPS"),
    ],
)
def test_what_is_no_usable_image_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MediaInputError, match=says) as caught:
        load_image(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ScopeLtxError)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaInputError, match="no such file"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(MediaInputError, match="directory"):
        load_image(tmp_path)


@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]))
    buffer = io.BytesIO()
    Image.fromarray(quadrants(24, 24)).save(buffer, name)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        loaded = load_image(path)
    except MediaInputError as error:
        assert str(path) in str(error)
    else:
        assert loaded.dtype == np.uint8
        assert loaded.shape[2] == 3


# Fitting

SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
ASPECTS = st.sampled_from([Fraction(1), Fraction(16, 15), Fraction(64, 45), Fraction(1, 2)])


@given(SIZES, SIZES, st.sampled_from(["crop", "letterbox"]), ASPECTS)
def test_placement_covers_or_contains_keeps_aspect_and_is_centred(
    source: tuple[int, int], canvas: tuple[int, int], mode: FitMode, aspect: Fraction
) -> None:
    at = place(source, canvas, mode, aspect)
    for start, length, size in ((at.top, at.height, canvas[0]), (at.left, at.width, canvas[1])):
        assert length >= 1
        before, after = start, size - start - length
        assert abs(before - after) <= 1
        assert (length >= size) if mode == "crop" else (length <= size)
    assert at.height == canvas[0] or at.width == canvas[1]
    ratios = Fraction(canvas[0], source[0]), canvas[1] / (source[1] * aspect)
    scale = max(ratios) if mode == "crop" else min(ratios)
    assert abs(at.height - source[0] * scale) <= Fraction(1, 2) or at.height == 1
    assert abs(at.width - source[1] * aspect * scale) <= Fraction(1, 2) or at.width == 1


@example((1, 1), (1, 2), "letterbox")
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(["crop", "letterbox"]),
)
def test_both_resizers_fill_exactly_their_place(
    source: tuple[int, int], canvas: tuple[int, int], mode: FitMode
) -> None:
    white = np.full((*source, 3), 255, np.uint8)
    at = place(source, canvas, mode)
    expected = np.zeros((*canvas, 3), np.uint8)
    expected[max(0, at.top) : at.top + at.height, max(0, at.left) : at.left + at.width] = 255
    for resize in (fit, fit_array):
        assert np.array_equal(resize(white, *canvas, mode), expected)


@pytest.mark.parametrize("resize", [fit, fit_array])
def test_crop_keeps_the_middle_and_letterbox_keeps_all(resize: Callable[..., Rgb]) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    cropped = resize(wide, 40, 40, "crop")
    assert np.abs(cropped[20, [4, 35]].astype(int) - [0, 255, 0]).max() <= 4
    boxed = resize(wide, 60, 60, "letterbox")
    assert not boxed[:20].any()
    assert not boxed[40:].any()
    assert boxed[30, [10, 30, 50]].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize("resize", [fit, fit_array])
def test_making_smaller_averages_and_does_not_skip_pixels(resize: Callable[..., Rgb]) -> None:
    stripes = np.zeros((64, 512, 3), np.uint8)
    stripes[:, ::8] = 255  # what a resizer without a low-pass sees as all black or all white
    small = resize(stripes, 8, 64, "crop")[:, 8:-8]
    assert abs(float(small.mean()) - 255 / 8) < 3
    assert float(small.std()) < 10


def test_a_strip_does_not_need_memory_for_its_whole_resized_length() -> None:
    strip = np.full((1, 100_000, 3), 90, np.uint8)
    for resize in (fit, fit_array):
        assert np.array_equal(resize(strip, 384, 320, "crop"), np.full((384, 320, 3), 90, np.uint8))


def test_what_cannot_be_fitted_is_refused() -> None:
    picture = quadrants(8, 8)
    with pytest.raises(ValueError, match="crop or letterbox, got 'stretch'"):
        fit(picture, 8, 16, "stretch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one pixel each way, got 16x0"):
        fit(picture, 0, 16, "crop")
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\), got float64"):
        fit(picture.astype(np.float64), 8, 8, "crop")


# The H.264 round trip


def through_an_mp4(picture: Rgb, crf: int) -> Rgb:
    """The recipe as the facts state it, through a file: libx264, veryfast, yuv420p, one frame a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as written:
        return next(written.decode(video=0)).to_ndarray(format="rgb24").astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (384, 320), (448, 768)])
def test_round_trip_is_the_reference_recipe_and_repeats_exactly(size: tuple[int, int]) -> None:
    picture = textured(*size)
    once = recompress(picture, PIN_CRF)
    assert np.array_equal(once, through_an_mp4(picture, 33))
    assert np.array_equal(once, recompress(picture, PIN_CRF))
    assert 1 < np.abs(once.astype(int) - picture).mean() < 20


def test_a_higher_crf_loses_more_and_zero_loses_nothing() -> None:
    picture = textured(128, 128)
    losses = [np.abs(recompress(picture, crf).astype(int) - picture).mean() for crf in (0, 10, 33, 51)]
    assert losses[0] == 0
    assert losses == sorted(losses)
    assert len(set(losses)) == 4
    with pytest.raises(ValueError, match="between 0 and 51, got 52"):
        recompress(picture, 52)


@pytest.mark.parametrize("size", [(1, 1), (33, 32), (32, 33), (47, 31)])
def test_round_trip_keeps_odd_sizes(size: tuple[int, int]) -> None:
    flat = np.full((*size, 3), 128, np.uint8)
    out = recompress(flat, PIN_CRF)
    assert out.shape == flat.shape
    assert np.abs(out.astype(int) - 128).max() <= 3


def test_a_pin_is_recompressed_at_its_own_size_and_then_fitted(tmp_path: Path) -> None:
    picture = textured(150, 201)
    path = tmp_path / "pin.png"
    Image.fromarray(picture).save(path)
    assert np.array_equal(prepare_pin(path, 64, 96, "crop", 33), fit(recompress(picture, 33), 64, 96, "crop"))
    assert np.array_equal(prepare_pin(path, 64, 96, "letterbox", 0), fit(picture, 64, 96, "letterbox"))


def test_a_pin_larger_than_h264_allows_is_reduced_first(tmp_path: Path) -> None:
    path = tmp_path / "panorama.png"
    Image.fromarray(np.tile(np.array([90, 120, 60], np.uint8), (8, 17_000, 1))).save(path)
    pixels = prepare_pin(path, 32, 64, "crop", 33)
    assert pixels.shape == (32, 64, 3)
    assert np.abs(pixels.astype(int) - [90, 120, 60]).max() <= 4


# Pins


def test_a_pin_has_defaults_and_takes_json_numbers() -> None:
    pin = ImagePin(path="a.png")
    assert (pin.frame_idx, pin.strength) == (0, 1.0)
    assert ImagePin.model_validate({"path": "a.png", "frame_idx": 64.0, "strength": 1}).frame_idx == 64
    assert len({pin, ImagePin(path="a.png"), ImagePin(path="b.png")}) == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"path": ""}, "path"),
        ({"path": "a.png", "frame_idx": 12}, "0 or a multiple of 8, got 12: use 8 or 16"),
        ({"path": "a.png", "frame_idx": 1}, "got 1: use 0 or 8"),
        ({"path": "a.png", "frame_idx": -8}, "greater than or equal to 0"),
        ({"path": "a.png", "frame_idx": "8"}, "frame_idx"),
        ({"path": "a.png", "frame_idx": True}, "frame_idx"),
        ({"path": "a.png", "strength": 1.01}, "less than or equal to 1"),
        ({"path": "a.png", "strength": float("nan")}, "strength"),
        ({"path": "a.png", "weight": 1}, "weight"),
    ],
)
def test_a_wrong_pin_is_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ImagePin.model_validate(values)


def test_two_pins_on_one_frame_are_refused_with_the_way_out() -> None:
    pins = [ImagePin(path=name, frame_idx=idx) for name, idx in (("a.png", 0), ("b.png", 64), ("c.png", 64))]
    check_pins(pins[:2], 129)
    with pytest.raises(ValueError, match=r"got 2 for frame 64 \(b\.png, c\.png\)") as caught:
        check_pins(pins, 129)
    assert "scope_ltx.compose" in str(caught.value)
    assert "frames 0 and 64" in str(caught.value)


def test_the_same_image_twice_on_one_frame_is_two_pins() -> None:
    pin = ImagePin(path="a.png", frame_idx=8)
    with pytest.raises(ValueError, match="got 2 for frame 8"):
        check_pins([pin, pin], 129)


@given(st.integers(1, 32), st.integers(0, 40))
def test_a_pin_lies_within_the_chunk(groups: int, group: int) -> None:
    num_frames = 8 * groups + 1
    pins = [ImagePin(path="a.png", frame_idx=8 * group)]
    if group <= groups:
        check_pins(pins, num_frames)
    else:
        with pytest.raises(ValueError, match=f"has {num_frames} frames: pin one up to {num_frames - 1}"):
            check_pins(pins, num_frames)


def test_the_first_frame_image_joins_the_further_pins() -> None:
    last = ImagePin(path="z.png", frame_idx=64, strength=0.5)
    middle = ImagePin(path="m.png", frame_idx=32)
    unused = ImagePin(path="u.png", frame_idx=32, strength=0.0)
    assert all_pins("a.png", 0.9, [last, middle, unused], 129) == (
        ImagePin(path="a.png", strength=0.9),
        middle,
        last,
    )
    assert all_pins("a.png", 0.0, [], 129) == ()
    assert all_pins(None, 1.0, [], 129) == ()
    with pytest.raises(ValueError, match=r"got 2 for frame 0 \(a\.png, b\.png\)"):
        all_pins("a.png", 1.0, [ImagePin(path="b.png")], 129)


def test_pins_import_neither_pixels_nor_the_configuration() -> None:
    program = (
        "import sys, scope_ltx.media_in.pins; "
        "print([name for name in ('torch', 'numpy', 'av', 'PIL', 'scope_ltx.config') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
