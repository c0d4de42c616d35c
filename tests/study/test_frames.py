"""Frames: every kind of image file has one stated outcome, and resizing averages."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lus_cli.errors import LusError
from lus_cli.study.frames import (
    SCAN_START,
    decode_frame,
    decode_quickly,
    fit_frame,
    jpeg_header,
    letterbox_box,
    read_frame,
    refuse_unused_bits,
)

# --------------------------------------------------------------------------------------- decoding


def read_whole(path: Path, mode: str) -> np.ndarray:
    """A frame of 48x32 pixels by `read_frame`, at its own width; rows are padded or not at all."""
    frame, shape = read_frame(path, mode, 48, letterbox=True)  # type: ignore[arg-type]
    assert shape == (32, 48)
    return frame[8:40]


def picture(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Black but for a bright top left quarter."""
    image = Image.new("RGB", size)
    image.paste((200, 190, 180), (0, 0, size[0] // 2, size[1] // 2))
    return image.convert(mode)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def bright(image: Image.Image) -> set[str]:
    """The quarters of a frame that are bright."""
    pixels = np.asarray(image.convert("L")).astype(int)
    rows, columns = pixels.shape
    quarters = {
        "top left": pixels[: rows // 2, : columns // 2],
        "top right": pixels[: rows // 2, columns // 2 :],
        "bottom left": pixels[rows // 2 :, : columns // 2],
        "bottom right": pixels[rows // 2 :, columns // 2 :],
    }
    return {name for name, quarter in quarters.items() if quarter.mean() > 100}


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("name", "stored", "options"),
    [
        ("gray.jpg", "L", {}),
        ("color.jpg", "RGB", {}),
        ("progressive.JPG", "RGB", {"progressive": True, "format": "JPEG"}),
        ("cmyk.jpg", "CMYK", {}),
        ("png.jpg", "RGB", {"format": "PNG"}),
        ("gray.png", "L", {}),
        ("alpha.png", "RGBA", {}),
        ("palette.png", "P", {}),
        ("bits.png", "1", {}),
    ],
)
def test_frames_of_any_kind_are_decoded(
    tmp_path: Path, name: str, stored: str, options: dict[str, object], mode: str
) -> None:
    path = saved(tmp_path / name, picture(stored), **options)
    frame = decode_frame(path, mode)  # type: ignore[arg-type]
    assert (frame.mode, frame.size) == (mode, (48, 32))
    np.testing.assert_array_equal(read_whole(path, mode), frame)
    assert bright(frame) == {"top left"}
    expected = 255 if stored == "1" else 191
    assert (
        abs(int(np.asarray(frame.convert("L"))[8, 8]) - expected) <= 10
    )  # the web palette has no nearer gray


def test_gray_from_a_color_jpeg_is_its_luminance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((64, 64))
    path = saved(tmp_path / "n.jpg", noise, quality=95)
    fast, _ = read_frame(path, "L", 64, letterbox=False)
    np.testing.assert_array_equal(fast, decode_frame(path, "L"))
    with Image.open(path) as image:
        assert np.abs(fast.astype(int) - np.asarray(image.convert("L"))).max() <= 2


@pytest.mark.parametrize("name", ["e.jpg", "e.png", "e.tif", "e.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_frame_upright(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / name, picture("L" if name == "e.tif" else "RGB"), exif=exif)
    frame = decode_frame(path, "L")
    # Where EXIF 2.3, table 6, says that the first row and the first column of the file are.
    corner = ["top left", "top right", "bottom right", "bottom left"] * 2
    assert bright(frame) == {corner[orientation - 1]}
    assert frame.size == ((48, 32) if orientation <= 4 else (32, 48))
    fitted, shape = read_frame(path, "L", 48, letterbox=True)
    assert shape == (frame.height, frame.width)
    np.testing.assert_array_equal(fitted, fit_frame(np.asarray(frame), 48, letterbox=True))


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".webp", ".png"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_frame_without_loss_is_the_same_in_any_format(
    tmp_path: Path, suffix: str, mode: str
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    pixels = pixels if mode == "RGB" else np.repeat(pixels[..., :1], 3, 2)
    lossless = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path / f"f{suffix}", Image.fromarray(pixels), **lossless)
    assert np.array_equal(decode_frame(path, "RGB"), pixels)
    if mode == "L":
        assert np.array_equal(decode_frame(path, "L"), pixels[..., 0])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(LusError, match="cannot be decoded"):
        decode_frame(path, "L")


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".png"])
def test_a_file_of_several_pictures_is_not_one_frame(tmp_path: Path, suffix: str) -> None:
    pages = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (10, 90, 170)]
    path = tmp_path / f"f{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(LusError, match="holds several pictures: save each in its own file"):
        decode_frame(path, "L")


def test_a_stack_of_imagej_is_not_one_frame(tmp_path: Path) -> None:
    """ImageJ and tifffile write the first picture's place only, and the others right behind it."""
    image = Image.new("L", (8, 8), 90)
    path = saved(tmp_path / "f.tif", image, description="ImageJ=1.54f\nimages=252\nslices=252\n")
    with pytest.raises(LusError, match="holds several pictures"):
        decode_frame(path, "L")
    path = saved(tmp_path / "g.tif", image, description="ImageJ=1.54f\nimages=1\n")
    assert np.asarray(decode_frame(path, "L")).max() == 90


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(tmp_path: Path, dtype: type) -> None:
    path = saved(tmp_path / "f.tif", Image.fromarray(np.ones((8, 8), dtype)))
    with pytest.raises(LusError, match="not 8-bit or 16-bit numbers"):
        decode_frame(path, "L")


def test_signed_bytes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.tif", Image.new("L", (8, 8), 200), tiffinfo={339: 2})
    with pytest.raises(LusError, match="not 8-bit or 16-bit numbers"):
        decode_frame(path, "L")


def test_a_tiff_of_16_bits_is_scaled_by_their_range(tmp_path: Path) -> None:
    wide = np.array([[0, 257 * 100, 65535]], np.uint16).repeat(8, 0)
    path = saved(tmp_path / "w.tif", Image.fromarray(wide))
    assert np.asarray(decode_frame(path, "L"))[0].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("name", "options"),
    [("f.png", {}), ("f.tif", {}), ("f.webp", {"lossless": True, "exact": True})],
)
def test_transparent_pixels_are_black(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[..., 3] = np.array([0, 0, 51, 51, 255, 255, 255, 255], np.uint8)[:, None]
    path = saved(tmp_path / name, Image.fromarray(pixels), **options)
    for mode in ("L", "RGB"):
        frame = np.asarray(decode_frame(path, mode))  # type: ignore[arg-type]
        assert frame.reshape(8, 8, -1)[:, 0, 0].tolist() == [0, 0, 40, 40, 200, 200, 200, 200]


def test_a_transparent_gray_level_is_black(tmp_path: Path) -> None:
    gray = Image.fromarray(np.array([[255, 100, 30]], np.uint8))
    path = saved(tmp_path / "f.png", gray, transparency=255)
    assert np.asarray(decode_frame(path, "L")).tolist() == [[0, 100, 30]]


def test_the_fourth_byte_of_a_bmp_is_padding(tmp_path: Path) -> None:
    path = tmp_path / "f.bmp"
    masks = 0xFF0000, 0xFF00, 0xFF, 0xFF000000  # red, green, blue, alpha
    header = struct.pack("<IiiHHIIiiII4I", 108, 2, 2, 1, 32, 3, 16, 0, 0, 0, 0, *masks).ljust(108)
    pixels = bytes((200, 200, 200, 0)) * 4
    path.write_bytes(struct.pack("<2sIHHI", b"BM", 138, 0, 0, 122) + header + pixels)
    with Image.open(path) as image:
        assert image.mode == "RGBA"
    assert np.asarray(decode_frame(path, "L")).min() == 200


def rgb_of_16_bits(path: Path, value: int) -> Path:
    """A PNG of one pixel, which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checked

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\0" + 3 * struct.pack(">H", value)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def test_bits_that_leave_frames_almost_black_are_refused(tmp_path: Path) -> None:
    bright = rgb_of_16_bits(tmp_path / "1.png", 0x8000)
    assert np.asarray(decode_frame(bright, "RGB")).tolist() == [[[128] * 3]]
    dark = rgb_of_16_bits(tmp_path / "2.png", 4095)
    with pytest.raises(LusError, match="have 16 bits per pixel, but their largest value is 3855"):
        refuse_unused_bits([dark, dark])
    refuse_unused_bits([dark, bright])
    refuse_unused_bits([saved(tmp_path / "3.png", Image.new("L", (2, 2), 3))])


def test_16_bits_are_scaled_by_their_range(tmp_path: Path) -> None:
    wide = np.array([[0, 257 * 100, 65535]], np.uint16).repeat(8, 0)
    path = saved(tmp_path / "w.png", Image.fromarray(wide))
    assert np.asarray(decode_frame(path, "L"))[0].tolist() == [0, 100, 255]
    # A dark frame of such a video stays dark.
    path = saved(tmp_path / "d.png", Image.fromarray(np.full((8, 8), 200, np.uint16)))
    assert np.asarray(decode_frame(path, "L")).max() == 0


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(
        b"IDAT", zlib.compress(b"\0" * 1000)
    ) + chunk(b"IEND", b"")  # fmt: skip


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "cannot be decoded: it is empty"),
        (b"no image at all", "cannot be decoded"),
        (b"\xff\xd8\xff", "cannot be decoded"),
        (png_bomb(9500), "has 9500x9500 pixels"),
        (png_bomb(30_000), "cannot be decoded"),
    ],
    ids=["empty", "text", "head", "large", "bomb"],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_frame_is_an_error(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "Frame_0.jpg"
    path.write_bytes(content)
    with pytest.raises(LusError) as caught:
        decode_frame(path, "L")
    assert f"{path} " in caught.value.message
    assert complaint in str(caught.value)
    for missing in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(LusError, match="cannot be read"):
            decode_frame(missing, "L")
        with pytest.raises(LusError, match="cannot be read"):
            read_frame(missing, "L", 32, letterbox=False)


def whole_or_error(path: Path, mode: str) -> np.ndarray | None:
    """A frame as both ways to read it agree that it is."""
    try:
        frame = np.asarray(decode_frame(path, mode))  # type: ignore[arg-type]
    except LusError:
        with pytest.raises(LusError):
            read_frame(path, mode, 48, letterbox=True)  # type: ignore[arg-type]
        return None
    fitted, shape = read_frame(path, mode, 48, letterbox=True)  # type: ignore[arg-type]
    assert shape == frame.shape[:2]
    np.testing.assert_array_equal(fitted, fit_frame(frame, 48, letterbox=True))
    return frame


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", ["f.jpg", "p.jpg", "f.png"])
def test_a_cut_frame_is_an_error_or_whole(tmp_path: Path, name: str, mode: str) -> None:
    path = saved(tmp_path / name, picture(), **({"progressive": True} if name == "p.jpg" else {}))
    content, whole = path.read_bytes(), np.asarray(decode_frame(path, mode))  # type: ignore[arg-type]
    errors = 0
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        frame = whole_or_error(path, mode)
        errors += frame is None
        assert frame is None or np.array_equal(frame, whole), f"half a frame from {end} bytes"
    assert errors > len(content) // 7 - 10


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_never_a_traceback(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    exif[0x8769] = {0x9000: b"0210", 0x927C: b"maker" * 4}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    draw = random.Random(3)
    refused = 0
    for name in ("f.jpg", "f.png"):
        path = saved(tmp_path / name, picture(), exif=exif)
        content = path.read_bytes()
        for _ in range(700):
            damaged = bytearray(content)
            for _ in range(draw.choice((1, 3, 10))):
                damaged[draw.randrange(min(len(damaged), 320))] = draw.randrange(256)
            path.write_bytes(damaged)
            refused += whole_or_error(path, "RGB") is None
    assert refused > 300


# --------------------------------------------------------------------------------------- resizing


def test_letterbox_geometry() -> None:
    assert letterbox_box(400, 200, 100) == (0, 25, 100, 50)
    assert letterbox_box(200, 400, 100) == (25, 0, 50, 100)
    assert letterbox_box(64, 64, 100) == (0, 0, 100, 100)
    assert letterbox_box(1000, 1, 100) == (0, 49, 100, 1)
    for width, height, size in ((1024, 768, 224), (333, 77, 256), (3, 5000, 64)):
        left, top, new_width, new_height = letterbox_box(width, height, size)
        assert max(new_width, new_height) == size
        assert abs((size - new_width) - 2 * left) <= 1
        assert abs((size - new_height) - 2 * top) <= 1
        assert new_width / new_height == pytest.approx(width / height, rel=0.02) or 1 in (
            new_width,
            new_height,
        )


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_letterboxed_frame_is_centred_on_black(mode: str) -> None:
    image = Image.new(mode, (80, 40), "white")
    frame = fit_frame(np.asarray(image), 32, letterbox=True)
    assert frame.dtype == np.uint8
    assert frame.shape == ((32, 32) if mode == "L" else (32, 32, 3))
    assert (frame[8:24] == 255).all()
    assert (frame[:8] == 0).all()
    assert (frame[24:] == 0).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_stretched_frame_fills_the_square(mode: str) -> None:
    frame = fit_frame(np.asarray(Image.new(mode, (80, 40), "white")), 32, letterbox=False)
    assert frame.shape == ((32, 32) if mode == "L" else (32, 32, 3))
    assert (frame == 255).all()


def test_resizing_averages_rather_than_picks() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    frame = fit_frame(stripes, 16, letterbox=False)
    assert np.abs(frame.astype(int) - 127)[:, 1:-1].max() <= 1
    assert np.abs(frame.astype(int) - 127).max() < 30  # half a stripe lies outside


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((350, 350), 256),
        ((768, 1024), 224),
        ((77, 333, 3), 64),
        ((101, 99), 128),
        ((40, 30), 300),
        ((512, 512, 3), 32),
        ((2000, 1999), 16),
        ((1, 1), 32),
        ((3, 500), 64),
        ((256, 256), 256),
    ],
)
def test_resizing_is_that_of_pillow_but_for_the_outermost_pixels(
    shape: tuple[int, ...], size: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    frame = fit_frame(noise, size, letterbox=False).astype(int)
    expected = Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR)
    difference = np.abs(frame - np.asarray(expected))
    assert difference.mean() < 1
    assert difference[2:-2, 2:-2].max() <= 2
    assert difference.max() <= 40  # beyond the edge: repeats it, where Pillow leaves it out


# --------------------------------------------------------------------------------------- quick JPEGs


def speckle(width: int, height: int) -> Image.Image:
    """A picture about as rough as an ultrasound frame."""
    noise = np.random.default_rng(1).gamma(2, 40, (height // 3, width // 3)).clip(0, 255)
    return Image.fromarray(noise.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("size", "reduced"), [(256, (384, 512)), (257, (768, 1024)), (128, (192, 256)), (64, (96, 128))]
)
def test_a_large_jpeg_is_decoded_small(
    tmp_path: Path, size: int, reduced: tuple[int, int], mode: str, letterbox: bool
) -> None:
    path = saved(tmp_path / "f.jpg", speckle(1024, 768).convert("RGB"), quality=90)
    if not letterbox:  # the box of 1024x768 is 4:3 and smaller
        quick = decode_quickly(path, mode, size, letterbox)  # type: ignore[arg-type]
        assert quick is not None
        assert quick[0].shape[:2] == reduced
    frame, shape = read_frame(path, mode, size, letterbox)  # type: ignore[arg-type]
    assert shape == (768, 1024)
    whole = np.asarray(decode_frame(path, mode))  # type: ignore[arg-type]
    difference = np.abs(frame.astype(int) - fit_frame(whole, size, letterbox))
    assert difference.mean() < 3  # a shift of half a pixel makes it 7 or more


def test_odd_sizes_are_reduced_into_the_same_box(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.jpg", Image.new("L", (1023, 357), "white"))
    frame, shape = read_frame(path, "L", 64, letterbox=True)
    assert shape == (357, 1023)
    _, top, _, height = letterbox_box(1023, 357, 64)
    assert (frame.min(axis=1) > 250).nonzero()[0].tolist() == list(range(top, top + height))


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"optimize": True}],
    ids=["baseline", "progressive", "4:4:4", "optimized"],
)
@pytest.mark.parametrize("stored", ["L", "RGB"])
def test_plain_jpegs_take_the_quick_way(
    tmp_path: Path, stored: str, options: dict[str, object]
) -> None:
    path = saved(tmp_path / "f.jpg", speckle(90, 60).convert(stored), **options)
    for mode in ("L", "RGB"):
        quick = decode_quickly(path, mode, 64, letterbox=False)  # type: ignore[arg-type]
        assert quick is not None
        np.testing.assert_array_equal(quick[0], decode_frame(path, mode))  # type: ignore[arg-type]


def test_what_is_no_plain_jpeg_is_left_to_pillow(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    whole = saved(tmp_path / "whole.jpg", picture())
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-20])
    damaged = bytearray(saved(tmp_path / "d.jpg", speckle(90, 60)).read_bytes())
    damaged[-200:-100] = bytes(100)
    (tmp_path / "d.jpg").write_bytes(damaged)
    for path in (
        saved(tmp_path / "turned.jpg", picture(), exif=exif),
        saved(tmp_path / "xmp.jpg", picture(), xmp=xmp),
        saved(tmp_path / "cmyk.jpg", picture("CMYK")),
        saved(tmp_path / "rgb.jpg", picture(), keep_rgb=True),
        saved(tmp_path / "png.jpg", picture(), format="PNG"),
        cut,
        tmp_path / "d.jpg",
        tmp_path / "gone.jpg",
    ):
        assert decode_quickly(path, "L", 16, letterbox=False) is None, path.name


@pytest.mark.skipif(os.name != "posix", reason="no limit of a file's size")
def test_a_frame_that_the_disk_takes_in_part_is_an_error(tmp_path: Path) -> None:
    """A limit on a file's size looks to the writer like a disk that gets full."""
    script = f"""
import resource, signal
import numpy as np
from pathlib import Path
from PIL import Image
from lus_cli.study.frames import save_jpeg
noise = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)
path = Path({str(tmp_path)!r}) / "whole.jpg"
save_jpeg(path, Image.fromarray(noise), 90)
assert np.abs(np.asarray(Image.open(path)).astype(int) - noise).mean() < 20
size = path.stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, size - 100))
try:
    save_jpeg(path.with_name("cut.jpg"), Image.fromarray(noise), 90)
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout


# -------------------------------------------------------------------------------- how many scans


@pytest.mark.parametrize(
    ("mode", "options", "one"),
    [
        ("L", {}, True),
        ("RGB", {}, True),
        ("RGB", {"subsampling": "4:2:0", "restart_marker_rows": 1}, True),
        ("L", {"progressive": True}, False),
        ("RGB", {"progressive": True}, False),
    ],
)
def test_scans_are_counted_only_where_there_may_be_several(
    tmp_path: Path, mode: str, options: dict[str, Any], one: bool
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.jpg", **options)
    content = (tmp_path / "a.jpg").read_bytes()
    header = jpeg_header(content)
    assert header.has_one_scan is one
    assert content.startswith(header.content + SCAN_START)
    assert (content.count(SCAN_START) == 1) is one


def test_a_header_that_ends_or_states_other_components_has_no_one_scan(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    at = len(jpeg_header(content).content)
    fewer = content[: at + 4] + bytes([1]) + content[at + 5 :]  # components of the first scan
    assert not jpeg_header(fewer).has_one_scan
    for length in range(at + 5):
        assert not jpeg_header(content[:length]).has_one_scan
    assert jpeg_header(content[: at + 5]).has_one_scan
