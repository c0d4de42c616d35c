"""The bytes of a DICOM file's pixels: where they lie, and which of them are one frame.

The header says how many frames there are and how they are compressed; the bytes show it. Where the
two differ, the bytes are right, so frames are found by where a JPEG begins, not by offset tables.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PIXEL_DATA = (0x7FE0, 0x0010)
ITEM, END_OF_ITEMS = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # always little-endian
REPRESENTATIONS = (b"OB", b"OW", b"UN")
UNDEFINED = 0xFFFFFFFF
JPEG_START = b"\xff\xd8\xff"
CODESTREAM_START = b"\xff\x4f\xff\x51"  # JPEG 2000
JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
FRAME_STARTS = (JPEG_START, CODESTREAM_START, JP2_START)
# The end of one picture, padding, and the start of the next: not possible within a picture, whose
# data never have 0xFF before a byte above 0x8F.
BOUNDARY = re.compile(rb"\xff\xd9[\0\xff]{0,3}(?=\xff\xd8\xff|\xff\x4f\xff\x51)")
RLE_HEADER = 64  # bytes; the first segment follows
BLOCK = 1 << 20


@dataclass(frozen=True)
class Pixels:
    """The value of the element with the pixels: where it starts, and how many bytes there are."""

    start: int
    length: int  # what the element says, or what the file holds where it says nothing
    there: int  # what the file holds, up to `length`
    undefined: bool  # the element says no length, as it must where the pixels are compressed
    words: bool  # of 16 bits, which a big-endian file turns round


def locate(file: BinaryIO, little: bool) -> Pixels | None:
    """The pixels of a file that is read up to their tag; None if it holds none.

    Whether their representation is named is seen from the bytes: some files say otherwise.
    """
    start = file.read(12)
    order = "<" if little else ">"
    if len(start) < 8 or struct.unpack(f"{order}HH", start[:4]) != PIXEL_DATA:
        return None
    implicit = start[4:6] not in REPRESENTATIONS  # as a length, these would be odd
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
    """Whether the pixels are items, each a frame or a part of one, or one JPEG after the other."""
    file.seek(pixels.start)
    start = file.read(16)
    return pixels.undefined or start.startswith((ITEM, *FRAME_STARTS))


def encoded_frames(file: BinaryIO, pixels: Pixels, must_end: bool) -> Iterator[bytes]:
    """The frames of encapsulated pixels, each as it is compressed.

    Raises ValueError if the items do not follow each other, if one is cut short, or with `must_end`
    if nothing marks the end of the last one: more may be missing.
    """
    waiting: list[bytes] = []
    for piece in pieces(file, pixels, must_end):
        for number, part in enumerate(split_pictures(piece)):
            starts = number > 0 or part.startswith(FRAME_STARTS)
            # RLE and uncompressed frames take one item each, and nothing marks their start.
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
    """The items after the offset table; the whole where there are no items."""
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
            raise ValueError(f"an item is expected at byte {at}, and there is {tag.hex()}")
        if at + 8 + length > end:
            raise ValueError(f"the item at byte {at} is cut short")
        if not is_table and length:
            yield file.read(length)
        at, is_table = at + 8 + length, False
    if must_end and pixels.undefined:
        raise ValueError(f"it is cut short at byte {at}")


def is_run_length(frame: bytes) -> bool:
    """Whether a frame begins as RLE does (PS3.5, annex G): a count, and where segments begin."""
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
    """Whether the bytes are those of a video: MPEG, H.264 or HEVC, bare or in a container."""
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
