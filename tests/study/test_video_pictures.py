"""Decoded frames as a player shows them: turned, mirrored, over black, in proportion, in their colours."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image

from lus_cli.errors import LusError
from lus_cli.study.video_files import read_frames
from lus_cli.study.video_pictures import CHROMA_8_BITS, FAINT, NEUTRAL, Pictures, is_faint

from .test_video_files import SIDE, encode

ONE = 1 << 16
RED, GREEN = (200, 40, 60), (30, 180, 90)


# --------------------------------------------------------------------------------- display matrices


def corners() -> np.ndarray:
    """(48, 80, 3): each corner has a gray of its own, so that every turn and mirror shows."""
    frame = np.zeros((48, 80, 3), np.uint8)
    frame[:16, :16], frame[:16, -16:], frame[-16:, :16] = 240, 160, 80
    return frame


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:at] + matrix + content[at + 36 :])
    return path


def shown(pixels: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """By the definition: the pixel at (x, y), y downwards, goes to (a x + c y, b x + d y)."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    right, down = a * x + c * y, b * x + d * y
    right, down = right - right.min(), down - down.min()
    out = np.empty((down.max() + 1, right.max() + 1), pixels.dtype)
    out[down, right] = pixels
    return out


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(
    "signs",
    [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]
    + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)],
)
def test_frames_are_turned_and_mirrored_as_the_matrix_asks(
    tmp_path: Path, suffix: str, signs: tuple[int, int, int, int]
) -> None:
    path = encode(tmp_path / f"a.{suffix}", "libx264", "yuv420p", [corners()] * 2, {"qp": "0"})
    plain = next(read_frames(path))
    with_matrix(path, *(ONE * sign for sign in signs))
    for frame in read_frames(path):
        np.testing.assert_array_equal(frame, shown(plain, *signs))


def test_a_matrix_of_zeros_asks_for_nothing(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", "yuv420p", [corners()])
    plain = next(read_frames(path))
    np.testing.assert_array_equal(next(read_frames(with_matrix(path, 0, 0, 0, 0))), plain)


@pytest.mark.parametrize("turn", [(0.966, 0.259, -0.259, 0.966), (0.7071, 0.7071, -0.7071, 0.7071)])
def test_a_turn_by_another_angle_is_refused(tmp_path: Path, turn: tuple[float, ...]) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", "yuv420p", [corners()])
    a, b, c, d = (round(ONE * value) for value in turn)
    with pytest.raises(LusError, match=r"a.mp4: its display matrix states a rotation other than"):
        next(read_frames(with_matrix(path, a, b, c, d)))


# ------------------------------------------------------------------------------------- transparency


def see_through() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """RGBA frames, with bright colour where nothing is to be seen, and what is right of them."""
    frames = []
    for number in range(4):
        frame = np.full((SIDE, SIDE, 4), 200, np.uint8)
        frame[..., 3] = 0
        frame[8:40, 8 * number : 8 * number + 24, 3] = 255
        frame[48:, :, :] = (100, 100, 100, 128)
        frames.append(frame)
    return frames, [(f[..., 0].astype(int) * f[..., 3] / 255).round() for f in frames]


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.mov", "qtrle", "argb", {}),
        ("b.mov", "png", "rgba", {}),
        ("c.mov", "prores_ks", "yuva444p10le", {"profile": "4444"}),
        ("d.webm", "libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "2", "b": "0"}),
        ("e.webm", "libvpx", "yuva420p", {"auto-alt-ref": "0", "crf": "4", "b": "4M"}),
        ("f.mkv", "ffv1", "bgra", {}),
        ("g.apng", "apng", "rgba", {}),
        ("h.avi", "png", "rgba", {}),
    ],
)
def test_what_is_transparent_is_black(tmp_path, name, codec, pixels, options) -> None:
    frames, right = see_through()
    path = tmp_path / name
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixels
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format=pixels)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    read = list(read_frames(path))
    assert [frame.shape for frame in read] == [(SIDE, SIDE)] * 4
    for frame, expected in zip(read, right, strict=True):
        assert np.abs(frame - expected).mean() < 3
        assert (frame[42:46] <= 6).all(), "colour that is not to be seen"


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_a_gif_is_put_together_as_its_frames_ask(tmp_path: Path, disposal: int) -> None:
    """Small pictures at places of their own, with holes, each left, removed or undone."""
    path = tmp_path / "a.gif"
    images = []
    for number in range(5):
        image = Image.new("P", (SIDE, SIDE), 0)
        image.putpalette([0, 0, 0, 90, 90, 90, 250, 250, 250, 160, 160, 160])
        image.paste(1 + number % 3, (6 * number, 4 * number, 6 * number + 20, 4 * number + 20))
        image.paste(0, (6 * number + 8, 4 * number + 8, 6 * number + 12, 4 * number + 12))
        images.append(image)
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=40, disposal=disposal,
        transparency=0, optimize=False,
    )  # fmt: skip
    with Image.open(path) as gif:
        right = []
        for number in range(gif.n_frames):
            gif.seek(number)
            rgba = np.asarray(gif.convert("RGBA")).astype(int)
            right.append(rgba[..., 0] * rgba[..., 3] // 255)
    np.testing.assert_array_equal(list(read_frames(path)), right)


def test_an_avi_whose_fourth_byte_is_a_filling_is_not_black(tmp_path: Path) -> None:
    frame = np.full((SIDE, SIDE, 4), 120, np.uint8)
    frame[..., 3] = 0
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "rgba"
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba")))
        out.mux(stream.encode(None))
    assert all((read == 120).all() for read in read_frames(path))


# ------------------------------------------------------------------------------ proportions, colours


@pytest.mark.parametrize(
    ("sides", "shape"),
    [("1/1", (48, 80)), ("2/1", (48, 160)), ("16/15", (48, 85)), ("1/2", (96, 80)),
     ("1001/1000", (48, 80)), ("99/1", (48, 80))],
)  # fmt: skip
def test_pixels_that_are_not_square_are_stretched(tmp_path, sides, shape) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width = 48, 80
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(sides)
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(corners(), format="rgb24")))
        out.mux(stream.encode(None))
    frame = next(read_frames(path))
    assert frame.shape == shape
    down, right = shape[0] // 6, shape[1] // 10  # the middle of a corner's square
    assert np.abs(frame[[down, down, -down], [right, -right, right]] - [240, 160, 80]).max() < 12


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [None, Colorspace.ITU709])
def test_colours_are_those_of_the_range_and_matrix_that_the_file_states(
    tmp_path, pixels, full, matrix
) -> None:
    frame = np.empty((SIDE, SIDE, 3), np.uint8)
    frame[:32], frame[32:] = RED, GREEN
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixels
        color_range = ColorRange.JPEG if full else ColorRange.MPEG
        stream.codec_context.color_range = color_range
        if matrix is not None:
            stream.codec_context.colorspace = 1  # BT.709
        picture = VideoReformatter().reformat(
            av.VideoFrame.from_ndarray(frame, format="rgb24"),
            format=pixels,
            src_color_range=ColorRange.JPEG,
            dst_color_range=color_range,
            dst_colorspace=matrix,
        )
        out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    [read] = read_frames(path)
    assert np.abs(read[8, 8].astype(int) - RED).max() <= 4
    assert np.abs(read[56, 56].astype(int) - GREEN).max() <= 4


@pytest.mark.parametrize(
    ("pixels", "scale"), [("gray", 1), ("gray10le", 1023 / 255), ("gray16le", 257)]
)
def test_gray_of_more_bits_is_scaled_by_its_range(tmp_path, pixels, scale) -> None:
    ramp = np.linspace(0, 255, SIDE).round().astype(np.uint8)[None, :].repeat(SIDE, 0)
    deep = (ramp.astype(float) * scale).round().astype(np.uint8 if scale == 1 else np.uint16)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixels
        out.mux(stream.encode(av.VideoFrame.from_ndarray(deep, format=pixels)))
        out.mux(stream.encode(None))
    [read] = read_frames(path)
    assert np.abs(read.astype(int) - ramp).max() <= 1


# ------------------------------------------------------------------------------------ faint chroma


def with_chroma(layout: str, values: list[int], colorspace: int) -> av.VideoFrame:
    """A frame of random luminance and, in both chroma planes, random ones of some values."""
    random = np.random.default_rng(0)
    frame = av.VideoFrame(64, 48, layout)
    for number, plane in enumerate(frame.planes):
        drawn = random.integers(0, 256, plane.buffer_size) if not number else None
        chroma = random.choice(values, plane.buffer_size)
        plane.update((drawn if drawn is not None else chroma).astype(np.uint8).tobytes())
    frame.colorspace = colorspace
    return frame


@pytest.mark.parametrize(
    "colorspace", [1, 4, 5, 6, 7, 9]
)  # BT.709, FCC, BT.601, SMPTE 240M, BT.2020
@pytest.mark.parametrize("layout", CHROMA_8_BITS)
@pytest.mark.parametrize("sides", [Fraction(1), Fraction(3, 2), Fraction(2, 3)])
def test_frames_of_faint_chroma_are_gray_without_a_look_at_their_colours(
    layout: str, colorspace: int, sides: Fraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = with_chroma(layout, [NEUTRAL - FAINT, NEUTRAL, NEUTRAL + FAINT], colorspace)
    assert is_faint(frame)
    quick = Pictures(sides, no_alpha=False).read(frame)
    monkeypatch.setattr("lus_cli.study.video_pictures.is_faint", lambda _: False)
    slow = Pictures(sides, no_alpha=False).read(frame)
    assert quick.ndim == 2
    assert (quick == slow).all()


@pytest.mark.parametrize("layout", CHROMA_8_BITS)
def test_chroma_that_may_be_a_colour_is_looked_at(layout: str) -> None:
    frame = with_chroma(layout, [NEUTRAL], 1)
    assert is_faint(frame)
    plane = frame.planes[2]
    pixels = np.frombuffer(plane, np.uint8).copy()
    pixels[(plane.height - 1) * plane.line_size + plane.width - 1] = NEUTRAL + 20  # the last one
    plane.update(pixels.tobytes())
    assert not is_faint(frame)
    assert Pictures(None, no_alpha=False).read(frame).ndim == 3
