"""Decodes a frame from an image file and resizes it to the square that the cache stores.

JPEGs as scanners write them are decoded by simplejpeg, which is fast. All other files, and files in
which simplejpeg finds an error, are decoded by Pillow, which also explains what is wrong.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.study.exam_tree import MAX_PIXELS

if TYPE_CHECKING:
    from av import VideoFrame

Mode = Literal["L", "RGB"]

# Determined by content. No other of Pillow's readers may open a file.
FRAME_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
# A JPEG is decoded at 1/8, 1/4 or 1/2 of its size, for which libjpeg-turbo has fast transforms, if
# that leaves at least MARGIN times the required pixels along each axis. With 1.0, the mean difference
# from decoding at full size is 1.5 times as large; 1.5 allows 1024x768 to 256.
REDUCTIONS = (8, 4, 2)
MARGIN = 1.5
JPEG_START = b"\xff\xd8\xff"
SCAN_START = b"\xff\xda"
# Each scan of a progressive JPEG, which may have only ten bytes, is a pass over all pixels. Encoders
# write about ten scans. At MAX_PIXELS, 1000 scans take eight seconds.
MOST_SCANS = 100
# Markers of the frame header of a sequential JPEG (T.81, table B.1).
SEQUENTIAL = (0xC0, 0xC1)
# Marks of an orientation, in EXIF or XMP, which Pillow applies.
TURNING = (b"Exif\0\0", b"Orientation")
# The bilinear filter of libswscale, which, like Pillow's, averages all pixels that become one, with
# the flags for exact rounding and for the same results on every processor (swscale.h:
# SWS_BILINEAR, SWS_ACCURATE_RND, SWS_BITEXACT; PyAV has names for them from 18 on).
SCALING = 0x2 | 0x40000 | 0x80000
# Beyond these factors, the 14 bits of its weights are too few, and Pillow resizes.
MOST_SHRINKING, MOST_STRETCHING = 16, 16
# Videos of more than 8 bits that use this share of their range or less are refused: they would be black.
USED = 1 / 8
IMAGE_DESCRIPTION, BITS_PER_SAMPLE, SAMPLE_FORMAT, WHITE_IS = 270, 258, 339, 262  # tags of TIFF
SIGNED = 2  # a SAMPLE_FORMAT
OF_THREAD = threading.local()  # keeps the tables and the frame of libswscale


def read_frame(
    path: Path, mode: Mode, size: int, letterbox: bool
) -> tuple[np.ndarray, tuple[int, int]]:
    """A frame as the cache stores it (see `fit_frame`), and its rows and columns in the file.

    Raises LusError if the file is not a complete image, or larger than MAX_PIXELS.
    """
    quick = decode_quickly(path, mode, size, letterbox)
    if quick is not None:
        pixels, shape = quick
    else:
        pixels = np.asarray(decode_frame(path, mode))
        shape = pixels.shape[0], pixels.shape[1]
    return fit_frame(pixels, size, letterbox, shape), shape


# ---------------------------------------------------------------------------------------- decoding


def decode_quickly(
    path: Path, mode: Mode, size: int, letterbox: bool
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The pixels of a JPEG, possibly reduced, and its rows and columns; None: use `decode_frame`."""
    try:
        content = path.read_bytes()
        header = jpeg_header(content)
        if not header.content or any(mark in header.content for mark in TURNING):
            return None
        # Counting takes a tenth of the time of decoding.
        if not header.has_one_scan and content.count(SCAN_START) > MOST_SCANS:
            return None
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
        if colors not in ("Gray", "YCbCr") or height * width > MAX_PIXELS:
            return None
        _, _, box_width, box_height = fit_box(width, height, size, letterbox)
        spare = min(width / box_width, height / box_height) / MARGIN
        reduction = next((by for by in REDUCTIONS if by <= spare), 1)
        # Strict: warnings of libjpeg, such as missing data, become errors.
        pixels = simplejpeg.decode_jpeg(
            content,
            "GRAY" if mode == "L" else "RGB",
            min_height=-(-height // reduction),
            min_width=-(-width // reduction),
            strict=True,
        )
    except (OSError, ValueError):
        return None
    return pixels[..., 0] if mode == "L" else pixels, (height, width)


class JpegHeader(NamedTuple):
    """What a JPEG holds before the data of its first scan."""

    content: bytes  # before the header of that scan; empty if the file is not a JPEG
    components: int = 0  # of the picture, if it is sequential; else 0
    scanned: int = 0  # components in the first scan

    @property
    def has_one_scan(self) -> bool:
        """Whether a decoder reads one scan at most, whatever follows it."""
        return 0 < self.components == self.scanned


def jpeg_header(content: bytes) -> JpegHeader:
    """The header of a JPEG (ITU-T T.81, annex B)."""
    at, components = 2, 0
    if not content.startswith(JPEG_START):
        return JpegHeader(b"")
    while (start := content[at : at + 10])[:2] != SCAN_START:
        if start[:1] != b"\xff":
            return JpegHeader(b"")
        if start[1:2] == b"\xff":  # filling
            at += 1
            continue
        if len(start) == 10 and start[1] in SEQUENTIAL:
            components = start[9]
        at += 2 + int.from_bytes(start[2:4])
    return JpegHeader(content[:at], components, int.from_bytes(start[4:5]))


def decode_frame(path: Path, mode: Mode) -> Image.Image:
    """One frame as a Pillow image, upright and over black, in `mode`.

    16-bit frames are scaled to 8 bits by the full range of 16 bits. Raises LusError if the file is not
    exactly one complete image, is larger than MAX_PIXELS, or has pixels without a fixed range.
    """
    try:
        with explaining_refusal(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on large files and truncated TIFF tags
            # From memory: files that Pillow maps, uncompressed TIFFs, come out torn if they are rotated.
            image = Image.open(io.BytesIO(path.read_bytes()), formats=FRAME_FORMATS)
        with explaining_refusal(path), image:
            if image.width * image.height > MAX_PIXELS:
                raise LusError(
                    f"{path} has {image.width}x{image.height} pixels",
                    f"a frame has at most {MAX_PIXELS}",
                )
            refuse_several(path, image)
            if image.format == "JPEG" and path.read_bytes().count(SCAN_START) > MOST_SCANS:
                raise LusError(f"{path} has more than {MOST_SCANS} scans", "save it again")
            if mode == "L" and image.format == "JPEG":
                image.draft("L", image.size)  # decodes only the luminance: same pixels, faster
            image.load()
            upright = over_black(ImageOps.exif_transpose(image), image.format)
    except LusError:
        raise
    except Exception as error:  # damaged EXIF alone raises TypeError and struct.error, among others
        reason = "it is empty" if path.exists() and path.stat().st_size == 0 else str(error)
        raise LusError(f"{path} cannot be decoded", reason) from error
    is_signed = getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    if is_signed or upright.mode.startswith(("I", "F")):
        upright = to_8_bits(path, upright, image)
    return upright if upright.mode == mode else upright.convert(mode)


def over_black(image: Image.Image, file_format: str | None) -> Image.Image:
    """The image, with its transparent pixels over black."""
    if image.mode.startswith("I") or not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    if file_format == "BMP" and colours.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # the fourth byte is padding
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), colours)


def refuse_unused_bits(paths: Iterable[Path]) -> None:
    """Raises LusError if all frames of a video have more than 8 bits, of which they use few.

    Programs often store 10 or 12 bits in a PNG of 16, which are almost black if scaled by 16 bits.
    """
    largest, bits = 0, 16
    for path in paths:
        with Image.open(path, formats=FRAME_FORMATS) as image:
            is_gray = image.mode.startswith("I")
            if not is_gray and ";16" not in str(image.tile):
                return
            bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
            # Of 16 bits per colour, Pillow reads the upper 8.
            values = np.asarray(image if is_gray else image.convert("RGB"))
            largest = max(largest, int(values.max()) * (1 if is_gray else 257))
    if 0 < largest <= (1 << bits) * USED:
        raise LusError(
            f"its frames have {bits} bits per pixel, but their largest value is {largest}, so they "
            "would be almost black",
            "save them with 8 bits, or scaled to all bits",
        )


def refuse_several(path: Path, image: Image.Image) -> None:
    """Raises LusError for a file with several pictures."""
    # ImageJ and tifffile store a stack as one picture with a description.
    description = str(getattr(image, "tag_v2", {}).get(IMAGE_DESCRIPTION, ""))
    stack = description.startswith("ImageJ=") and re.search(r"images=(?!1\b)\d", description)
    if stack or (image.format in ("TIFF", "WEBP", "PNG") and getattr(image, "is_animated", False)):
        raise LusError(f"{path} holds several pictures", "save each in its own file")


def to_8_bits(path: Path, upright: Image.Image, image: Image.Image) -> Image.Image:
    """Scales a frame of more than 8 bits by the range of its format, so that dark frames stay dark.

    `image` is the file as opened. Raises LusError for floats and 32-bit numbers, which have no
    fixed range.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    signed_or_inverted = tags.get(SAMPLE_FORMAT, (1,))[0] != 1 or tags.get(WHITE_IS, 1) == 0
    if bits > 16 or signed_or_inverted or upright.mode == "F":
        raise LusError(f"{path} has pixels that are not 8-bit or 16-bit numbers", "save it as .png")
    values = np.asarray(upright) // ((2**bits - 1) // 255)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


# ---------------------------------------------------------------------------------------- resizing


def fit_frame(
    frame: np.ndarray, size: int, letterbox: bool, shape: tuple[int, int] | None = None
) -> np.ndarray:
    """A (row, column[, channel]) uint8 frame resized to size x size.

    It is stretched, as in the report, or, with `letterbox`, scaled to fit and centred on black.
    `shape` is the original rows and columns of a frame that was decoded at a reduced size.
    """
    rows, columns = shape or frame.shape[:2]
    left, top, width, height = fit_box(columns, rows, size, letterbox)
    if (height, width) == (size, size):
        return resized(frame, width, height)
    canvas = np.zeros((size, size, *frame.shape[2:]), np.uint8)
    canvas[top : top + height, left : left + width] = resized(frame, width, height)
    return canvas


def fit_box(width: int, height: int, size: int, letterbox: bool) -> tuple[int, int, int, int]:
    """The box of a frame in its square: left, top, width, height in pixels."""
    return letterbox_box(width, height, size) if letterbox else (0, 0, size, size)


def letterbox_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """The box of a letterboxed frame in its square: left, top, width, height in pixels."""
    scale = size / max(width, height)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - new_width) // 2, (size - new_height) // 2, new_width, new_height


def resized(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """A (row, column[, channel]) uint8 frame, resized with a bilinear (triangle) filter.

    When shrinking, each pixel is a weighted average of all pixels that it replaces.
    """
    rows, columns = frame.shape[:2]
    if (rows, columns) == (height, width):
        return frame
    ratios = rows / height, columns / width
    if max(ratios) > MOST_SHRINKING or min(ratios) < 1 / MOST_STRETCHING or min(rows, columns) < 8:
        image = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)
    if frame.ndim == 2:
        return scaled(frame, width, height)
    # Plane by plane: libswscale would convert RGB to YUV and back.
    return np.stack([scaled(frame[..., c], width, height) for c in range(3)], axis=-1)


def scaled(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """A (row, column) uint8 plane resized by libswscale, five times as fast as Pillow."""
    if not hasattr(OF_THREAD, "reformatter"):
        from av.video.reformatter import VideoReformatter

        OF_THREAD.reformatter = VideoReformatter()
    source, pixels = gray_frame(plane.shape[1], plane.shape[0])
    pixels[...] = plane
    target = OF_THREAD.reformatter.reformat(
        source, width, height, "gray", interpolation=SCALING, threads=1
    )
    return pixels_of(target)


def gray_frame(width: int, height: int) -> tuple[VideoFrame, np.ndarray]:
    """A frame to fill, and its pixels, reused for the same size.

    libswscale may read beyond the end of a row; in this frame it then reads padding.
    """
    frame = getattr(OF_THREAD, "frame", None)
    if frame is None or (frame.width, frame.height) != (width, height):
        from av import VideoFrame

        frame = OF_THREAD.frame = VideoFrame(width, height, "gray")
        OF_THREAD.pixels = pixels_of(frame)
    return frame, OF_THREAD.pixels


def pixels_of(frame: VideoFrame) -> np.ndarray:
    """The (row, column) uint8 pixels of a gray frame, not copied."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : frame.width]


def save_jpeg(path: Path, image: Image.Image, quality: int) -> None:
    """Writes a frame as JPEG. Raises OSError if the disk does not take all of it.

    Pillow alone does not notice a partial write of the last block, and leaves a truncated file.
    """
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    path.write_bytes(content.getvalue())
