"""Converts the stored values of a DICOM frame to gray levels or colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lus_cli.errors import LusError

COLOURS = ("Red", "Green", "Blue")
GRAY = ("MONOCHROME1", "MONOCHROME2")
LUMINANCE_FIRST = ("YBR_FULL", "YBR_FULL_422")
MOST_ENTRIES = 1 << 16
DISCRETE, LINEAR, INDIRECT = 0, 1, 2


class Stored(NamedTuple):
    """A decoded frame before colour conversion."""

    array: np.ndarray  # (row, column[, sample])
    meaning: str  # PhotometricInterpretation
    bits: int  # used per value
    signed: bool


@dataclass(frozen=True)
class Palette:
    """The colours of a palette image."""

    first: int  # the value of the first colour
    colours: np.ndarray  # (entry, 3) uint8

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Colours (row, column, 3) of (row, column) values; values out of range get the nearest colour."""
        return self.colours[np.clip(values.astype(np.int64) - self.first, 0, len(self.colours) - 1)]


def as_frame(stored: Stored, palette: Palette | None, color: bool) -> np.ndarray:
    """(row, column) or (row, column, 3) uint8. Raises LusError for unsupported colours."""
    array, meaning, bits, signed = stored
    if meaning == "PALETTE COLOR" and palette is not None:
        return palette.apply(array)
    frame = eight_bits(array, bits, signed)
    if meaning in GRAY:
        return 255 - frame if meaning == "MONOCHROME1" else frame
    if meaning in LUMINANCE_FIRST:
        if not color:
            return frame[..., 0]
        return np.asarray(Image.fromarray(np.ascontiguousarray(frame), "YCbCr").convert("RGB"))
    if meaning == "RGB":
        return np.ascontiguousarray(frame)
    raise LusError(f"colours as {meaning} are not supported", "export it as RGB or MONOCHROME2")


def eight_bits(array: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Values of `bits` bits, scaled from their whole range to 0..255: uint8."""
    if bits == 8 and not signed:
        return array.astype(np.uint8, copy=False)
    lowest, whole = -(1 << bits - 1) if signed else 0, (1 << bits) - 1
    wide = np.clip(array.astype(np.int64) - lowest, 0, whole)
    return ((wide * 255 + whole // 2) // whole).astype(np.uint8)


# ---------------------------------------------------------------------------------------- palettes


def read_palette(header: Any, little: bool, signed: bool) -> Palette:
    """The palette of a file (PS3.3, C.7.6.3.1.5 and C.7.9). Raises ValueError for a damaged one."""
    firsts, tables = set(), []
    for colour in COLOURS:
        name = f"{colour}PaletteColorLookupTable"
        if f"{name}Descriptor" not in header:
            raise ValueError("its colours are in a palette that it does not contain")
        count, first, bits = (int(number) for number in header[f"{name}Descriptor"].value)
        count = count % MOST_ENTRIES or MOST_ENTRIES  # 0 means 65536
        firsts.add(first - MOST_ENTRIES if signed and first >= MOST_ENTRIES // 2 else first)
        if bits not in (8, 16):
            raise ValueError(f"a palette of {bits} bits")
        plain = header.get(f"{name}Data")
        if plain:
            tables.append(entries(plain, count, bits, little))
        else:
            packed = numbers(header[f"Segmented{name}Data"].value, bits, little)
            tables.append(expanded(packed.tolist(), count, bits))
    if len(firsts) > 1 or len({len(table) for table in tables}) > 1:
        raise ValueError("palettes of different lengths for red, green and blue")
    table = np.stack(tables, axis=-1)
    # Entries of 16 bits may hold values of 8 bits.
    wide = table.max(initial=0) > 255
    return Palette(firsts.pop(), (table >> 8 if wide else table).astype(np.uint8))


def numbers(value: Any, bits: int, little: bool) -> np.ndarray:
    """The content of an element, bytes or numbers, as numbers of 8 or 16 bits."""
    if not isinstance(value, bytes):
        whole = np.atleast_1d(np.array(value, np.int64)).astype(np.uint16)
        if bits == 16:
            return whole
        value, little = whole.astype("<u2").tobytes(), True
    words = np.frombuffer(value[: len(value) // 2 * 2], "<u2" if little else ">u2")
    if bits == 16:
        return words
    # Two entries of 8 bits per word, the first in the lower half; a last odd one is alone.
    return np.frombuffer(words.astype("<u2").tobytes() + value[len(value) // 2 * 2 :], np.uint8)


def entries(value: Any, count: int, bits: int, little: bool) -> np.ndarray:
    """The entries of a table: uint16. Entries of 8 bits take a byte or a word each."""
    size = len(value) if isinstance(value, bytes) else 2 * np.size(value)
    in_words = size >= 2 * count
    if not in_words and size < count:
        raise ValueError(f"a palette of {count} entries in {size} bytes")
    return numbers(value, 16 if in_words else 8, little)[:count].astype(np.uint16)


def expanded(packed: list[int], count: int, bits: int) -> np.ndarray:
    """The entries of a segmented table (PS3.3, C.7.9.2): uint16. Raises ValueError."""
    out: list[int] = []
    for at, kind, length in segments(packed, bits):
        if len(out) > count:
            break
        if kind != INDIRECT:
            out += segment(packed, at, length, out[-1:])
            continue
        shift = 8 if bits == 8 else 16
        places = packed[at + 2 : at + (6 if bits == 8 else 4)]
        begin = sum(place << shift * n for n, place in enumerate(places)) // (bits // 8)
        copied = segments(packed[:at], bits, begin)  # earlier segments
        for _, (start, source_kind, size) in zip(range(length), copied, strict=False):
            if source_kind == INDIRECT:
                raise ValueError("an indirect palette segment points at another one")
            out += segment(packed, start, size, out[-1:])
            if len(out) > count:
                break
    if len(out) != count:
        raise ValueError(f"a palette of {count} entries has segments of {len(out)}")
    return np.array(out, np.uint16)


def segments(packed: list[int], bits: int, at: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yields the position, the kind and the length of each segment."""
    while at + 2 < len(packed):
        kind, length = packed[at : at + 2]
        yield at, kind, length
        if kind not in (DISCRETE, LINEAR, INDIRECT):
            raise ValueError(f"a palette's segment of kind {kind}")
        at += 2 + {DISCRETE: length, LINEAR: 1, INDIRECT: 4 if bits == 8 else 2}[kind]


def segment(packed: list[int], at: int, length: int, last: list[int]) -> list[int]:
    """The entries of the discrete or linear segment at position `at`."""
    if packed[at] == DISCRETE:
        return packed[at + 2 : at + 2 + length]
    if not last:
        raise ValueError("a palette begins with a linear segment")
    # `length` steps from the previous entry to the value of the segment.
    return np.linspace(last[0], packed[at + 2], length + 1)[1:].round().astype(int).tolist()
