"""Converts decoded frames to the pixels that a player shows: upright, opaque, square pixels."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from lus_cli.errors import LusError
from lus_cli.study.exam_tree import MAX_PIXELS

# A frame is gray if the channels of no pixel differ by more. In compressed gray video they differ by
# up to 6 (measured on COVID-BLUES); a coloured mark or Doppler exceeds the limit ten times.
GRAY_SPREAD = 16
# If the chroma of a frame is nowhere further from neutral, the channels of no pixel differ by more
# than GRAY_SPREAD: by at most 3.91 times as much (blue and red of BT.709 with limited range), times
# 1.25 where stretching interpolates, and 2 by rounding.
FAINT, NEUTRAL = 2, 128
CHROMA_8_BITS = tuple(f"yuv{full}{rows}p" for full in ("", "j") for rows in ("420", "422", "444"))
ODD_PIXELS = Fraction(1, 100)  # up to this difference, the sides of a pixel count as equal
MOST_STRETCHING = 4  # a larger stated aspect ratio of a pixel is a mistake
SKEWED = 0.02  # tolerance for a display matrix, whose numbers are rounded


class Pictures:
    """Converts the decoded frames of one video to arrays; reuses the tables of libswscale."""

    def __init__(self, pixel_sides: Fraction | None, no_alpha: bool) -> None:
        """pixel_sides: width over height of a pixel, None if unknown. no_alpha: a fourth channel
        of zeros is padding, not transparency."""
        self.to_rgb, self.to_gray = VideoReformatter(), VideoReformatter()
        self.pixel_sides, self.no_alpha = pixel_sides or Fraction(1), no_alpha

    def read(self, frame: VideoFrame) -> np.ndarray:
        """(row, column) uint8 luminance for a gray frame, (row, column, 3) uint8 RGB for any other.

        The frame is rotated and mirrored as the file states, transparent parts become black, and
        pixels become square. Raises LusError for a rotation other than 90, 180 or 270 degrees.
        """
        orientation = orientation_of(frame)
        width, height = proportions(frame.width, frame.height, self.pixel_sides)
        alpha = None
        if frame.format.name.startswith("gray") or is_faint(frame):
            array = self.convert(self.to_gray, frame, width, height, "gray")
        else:
            transparent = has_alpha(frame.format)
            layout = "rgba" if transparent else "rgb24"
            array = self.convert(self.to_rgb, frame, width, height, layout)
            if transparent:
                array, alpha = array[..., :3], array[..., 3:].astype(np.uint16)
                if self.no_alpha and not alpha.any():
                    alpha = None
                array = over_black(array, alpha)
            if channel_spread(array) <= GRAY_SPREAD:
                # Directly from the luminance: via RGB, rounding would lose half a level.
                gray = self.convert(self.to_gray, frame, width, height, "gray")
                array = over_black(gray, None if alpha is None else alpha[..., 0])
        return turned(array, orientation)

    def convert(
        self, reformatter: VideoReformatter, frame: VideoFrame, width: int, height: int, layout: str
    ) -> np.ndarray:
        scaled = (width, height) != (frame.width, frame.height)
        return reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=layout,
            interpolation=Interpolation.BICUBIC if scaled else None,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        ).to_ndarray()


def is_faint(frame: VideoFrame) -> bool:
    """Whether a frame is gray, judged by its chroma without conversion; False if this is unclear."""
    if frame.format.name not in CHROMA_8_BITS:
        return False
    for plane in frame.planes[1:]:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
            :, : plane.width
        ]
        if rows.min() < NEUTRAL - FAINT or rows.max() > NEUTRAL + FAINT:
            return False
    return True


def has_alpha(layout: VideoFormat) -> bool:
    return layout.has_palette or any(component.is_alpha for component in layout.components)


def over_black(array: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Colours multiplied by their opacity, 0 to 255; None: opaque."""
    if alpha is None or (alpha == 255).all():
        return array
    return ((array * alpha + 127) // 255).astype(np.uint8)


def proportions(width: int, height: int, pixel_sides: Fraction) -> tuple[int, int]:
    """The size with square pixels; stretches the short side of the pixels, so that none is lost."""
    if not abs(pixel_sides - 1) > ODD_PIXELS or not (
        Fraction(1, MOST_STRETCHING) <= pixel_sides <= MOST_STRETCHING
    ):
        return width, height
    if pixel_sides > 1:
        width = round(width * pixel_sides)
    else:
        height = round(height / pixel_sides)
    if width * height > MAX_PIXELS:
        raise LusError(f"a frame has {width}x{height} pixels", "make it smaller")
    return width, height


def orientation_of(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """The signs a, b, c, d of the display matrix; None if there is none.

    The matrix maps (x, y), y downwards, to (a x + c y, b x + d y). Its scale, a size on the screen,
    is ignored. Raises LusError for a rotation other than 90, 180 or 270 degrees.
    """
    side_data = cast(SideDataContainer, frame.side_data).get(Type.DISPLAYMATRIX)  # as PyAV has it
    if side_data is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(side_data), np.int32)[:9].astype(float)
    if not (a or b or c or d):
        return None  # some recorders leave it blank, and players ignore it
    straight, crossed = (a, d), (b, c)
    large, small = (straight, crossed) if abs(a) > abs(b) else (crossed, straight)
    if not all(large) or max(map(abs, small)) > SKEWED * min(map(abs, large)):
        raise LusError(
            "its display matrix states a rotation other than 90, 180 or 270 degrees",
            "export it upright",
        )
    first, second = (int(np.sign(value)) for value in large)
    return (first, 0, 0, second) if large is straight else (0, first, second, 0)


def turned(array: np.ndarray, orientation: tuple[int, int, int, int] | None) -> np.ndarray:
    """A (row, column[, 3]) array, rotated and mirrored by the signs of a display matrix."""
    if orientation is not None:
        a, b, c, d = orientation
        if b or c:  # columns become rows
            array = array.swapaxes(0, 1)
        if a + c < 0:
            array = array[:, ::-1]
        if b + d < 0:
            array = array[::-1]
    return np.ascontiguousarray(array)


def channel_spread(rgb: np.ndarray) -> int:
    """The largest difference between two channels of one pixel of a (row, column, 3) frame."""
    # Contiguous channels take half the time.
    red, green, blue = np.ascontiguousarray(rgb.reshape(-1, 3).T)
    highest = np.maximum(np.maximum(red, green), blue)
    return int((highest - np.minimum(np.minimum(red, green), blue)).max())
