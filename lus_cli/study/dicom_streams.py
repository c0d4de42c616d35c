"""Locates the pixels of a DICOM file, and splits them into frames.

The header states the number of frames and their compression. If the bytes differ, the bytes are
right, so frames are split where a JPEG begins, not by offset tables.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = slice(128, 132), b"DICM"  # place and bytes (PS3.10, section 7.1)
# The first element of a data set without file meta information, as some archives store them: of
# group 0008, then its value representation, or a length below 65536.
FIRST_ELEMENT = re.compile(rb"\x08\0[\0-\x20]\0(?:[A-Z]{2}|..\0\0)", re.DOTALL)
PIXEL_DATA = (0x7FE0, 0x0010)
ITEM, END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # always little-endian
REPRESENTATIONS = (b"OB", b"OW", b"UN")
UNDEFINED = 0xFFFFFFFF
JPEG_START = b"\xff\xd8\xff"
CODESTREAM_START = b"\xff\x4f\xff\x51"  # JPEG 2000
JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
FRAME_STARTS = (JPEG_START, CODESTREAM_START, JP2_START)
# The end of one picture, padding, and the start of the next. This cannot occur within a picture, whose
# data never contain 0xFF followed by a byte above 0x8F.
BOUNDARY = re.compile(rb"\xff\xd9[\0\xff]{0,3}(?=\xff\xd8\xff|\xff\x4f\xff\x51)")
RLE_HEADER = 64  # bytes; the first segment follows
BLOCK = 1 << 20


@dataclass(frozen=True)
class Pixels:
    """The position and the length of the pixel data element."""

    start: int
    length: int  # bytes, as stated, or to the end of the file if the length is undefined
    there: int  # bytes in the file, up to `length`
    undefined: bool  # no stated length, as the standard requires for compressed pixels
    words: bool  # 16-bit words, which are swapped in a big-endian file


def has_meta(start: bytes) -> bool:
    """Whether a file that begins with these 132 bytes is a DICOM with file meta information."""
    place, magic = MAGIC
    return start[place] == magic


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with these 132 bytes is a DICOM."""
    return has_meta(start) or FIRST_ELEMENT.match(start) is not None


def locate(file: BinaryIO, little: bool) -> Pixels | None:
    """The pixels of a file whose position is at their tag; None if it has none.

    Whether the value representation is explicit is seen from the bytes: some headers are wrong.
    """
    start = file.read(12)
    order = "<" if little else ">"
    if len(start) < 8 or struct.unpack(f"{order}HH", start[:4]) != PIXEL_DATA:
        return None
    implicit = start[4:6] not in REPRESENTATIONS  # taken as a length, these would be odd
    if implicit:
        (length,) = struct.unpack(f"{order}L", start[4:8])
        file.seek(8 - len(start), 1)
    elif len(start) == 12:
        (length,) = struct.unpack(f"{order}L", start[8:12])
    else:
        return None
    at = file.tell()
    rest = file.seek(0, 2) - at
    undefined = length == UNDEFINED
    if undefined:
        length = rest
    return Pixels(at, length, min(length, rest), undefined, implicit or start[4:6] == b"OW")


def is_encapsulated(file: BinaryIO, pixels: Pixels) -> bool:
    """Whether the pixels are items, each a frame or a part of one, or concatenated JPEGs."""
    file.seek(pixels.start)
    start = file.read(16)
    return pixels.undefined or start.startswith((ITEM, *FRAME_STARTS))


def encoded_frames(file: BinaryIO, pixels: Pixels, must_end: bool) -> Iterator[bytes]:
    """Yields the compressed frames of encapsulated pixels.

    Raises ValueError if the items are not contiguous, if one is truncated or, with `must_end`, if
    the end mark is missing, since more items may be missing too.
    """
    waiting: list[bytes] = []
    for piece in pieces(file, pixels, must_end):
        for number, part in enumerate(split_pictures(piece)):
            starts = number > 0 or part.startswith(FRAME_STARTS)
            # RLE and uncompressed frames take one item each and have no start mark.
            if waiting and (starts or not waiting[0].startswith(FRAME_STARTS)):
                yield b"".join(waiting)
                waiting = []
            waiting.append(part)
    if waiting:
        yield b"".join(waiting)


def split_pictures(piece: bytes) -> list[bytes]:
    """The pictures of an item, which should hold one or a part of one."""
    if not piece.startswith(FRAME_STARTS):
        return [piece]
    ends = [match.end() for match in BOUNDARY.finditer(piece)]
    return [piece[a:b] for a, b in zip([0, *ends], [*ends, len(piece)], strict=True)]


def pieces(file: BinaryIO, pixels: Pixels, must_end: bool) -> Iterator[bytes]:
    """Yields the items after the offset table, or all bytes if there are no items."""
    file.seek(pixels.start)
    if file.read(4) != ITEM:
        file.seek(pixels.start)
        yield file.read(pixels.there)
        return
    at, is_table, end = pixels.start, True, pixels.start + pixels.there
    while at + 8 <= end:
        file.seek(at)
        tag, length = struct.unpack("<4sL", file.read(8))
        if tag == END_OF_ITEMS:
            return
        if tag != ITEM:
            raise ValueError(f"an item is expected at byte {at}, but {tag.hex()} is found")
        if at + 8 + length > end:
            raise ValueError(f"the item at byte {at} is cut short")
        if not is_table and length:
            yield file.read(length)
        at, is_table = at + 8 + length, False
    if must_end and pixels.undefined:
        raise ValueError(f"the file is cut short at byte {at}")


def is_run_length(frame: bytes) -> bool:
    """Whether a frame begins with an RLE header (PS3.5, annex G): a count and segment offsets."""
    if len(frame) < RLE_HEADER:
        return False
    count, *offsets = struct.unpack("<16L", frame[:RLE_HEADER])
    used, unused = offsets[:count], offsets[count:]
    return (
        0 < count <= 15
        and used[0] == RLE_HEADER
        and used == sorted(used)
        and used[-1] <= len(frame)
        and not any(unused)
    )


def is_film(frame: bytes) -> bool:
    """Whether the bytes are a video: MPEG, H.264 or HEVC, bare or in a container."""
    return (
        frame.startswith((b"\0\0\x01", b"\0\0\0\x01"))
        or frame[4:8] == b"ftyp"
        or (frame[:1] == b"\x47" and frame[188:189] == b"\x47")
    )


def holds_only_zeros(file: BinaryIO, start: int, length: int) -> bool:
    file.seek(start)
    while length > 0:
        block = file.read(min(length, BLOCK))
        if not block or block.strip(b"\0"):
            return not block
        length -= len(block)
    return True
