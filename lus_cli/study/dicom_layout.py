"""The layout of uncompressed pixels in a DICOM file: the header, checked against their length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lus_cli.errors import LusError
from lus_cli.study.dicom_streams import Pixels, holds_only_zeros

AGAIN = "export it again"
GRAY = ("MONOCHROME1", "MONOCHROME2")
ONE_SAMPLE = (*GRAY, "PALETTE COLOR")
# If the bytes are more than NumberOfFrames by one of these factors, larger pixels explain it as well:
# 16 bits instead of 8, three colours instead of one, or both.
WIDER = {(1, 8): (2, 3, 6), (1, 16): (3,), (3, 8): (2,)}


@dataclass(frozen=True)
class Layout:
    """The layout of a frame according to the header."""

    rows: int
    columns: int
    samples: int  # values per pixel
    allocated: int  # bits per value
    stored: int  # used bits per value
    high: int  # index of the highest used bit
    signed: bool
    planar: bool  # one plane per colour instead of interleaved pixels
    meaning: str  # PhotometricInterpretation

    @property
    def halved(self) -> bool:
        """Whether each two neighbouring pixels share their colour (4:2:2)."""
        return self.meaning == "YBR_FULL_422"

    @property
    def bytes(self) -> int:
        samples = 2 if self.halved else self.samples
        return self.rows * self.columns * samples * self.allocated // 8


@dataclass(frozen=True)
class Native:
    """The layout and the number of uncompressed frames."""

    layout: Layout
    count: int


def layout_of(header: Any) -> Layout:
    meaning = str(header.get("PhotometricInterpretation") or "")
    samples = int(header.get("SamplesPerPixel") or (1 if meaning in ONE_SAMPLE else 3))
    allocated = int(header.BitsAllocated)
    stored = int(header.get("BitsStored") or allocated)
    high = header.get("HighBit")
    return Layout(
        int(header.Rows),
        int(header.Columns),
        samples,
        allocated,
        stored,
        high if isinstance(high, int) else stored - 1,
        bool(header.get("PixelRepresentation") or 0),
        samples > 1 and bool(header.get("PlanarConfiguration") or 0),
        meaning or ("MONOCHROME2" if samples == 1 else "RGB"),
    )


def pixel_sides(header: Any) -> Fraction:
    """Width over height of a pixel; 1 if the file does not state height and width (PS3.3, C.7.6.3.1.7)."""
    stated = header.get("PixelAspectRatio")
    sides = list(stated) if isinstance(stated, Sequence) else []
    if len(sides) != 2 or not all(isinstance(s, int | float) and s > 0 for s in sides):
        return Fraction(1)
    return Fraction(sides[1]) / Fraction(sides[0])


def native_frames(
    path: Path, file: BinaryIO, pixels: Pixels, layout: Layout, stated: int | None
) -> Native:
    """The layout and number of frames that match the length of the pixels.

    `stated` is NumberOfFrames. Raises LusError if the length matches no interpretation of the
    header, or two.
    """
    if pixels.there < pixels.length:
        whole = pixels.there // layout.bytes
        expected = stated or pixels.length // layout.bytes
        raise LusError(f"{path} holds {whole} of its {expected} stated frames", AGAIN)
    possible = options(layout)
    for option in possible:
        count, rest = divmod(pixels.length, option.bytes)
        if count == (stated or max(count, 1)) and rest <= 1:  # one byte makes the length even
            return Native(option, count)
    if len(possible) > 1 and not layout.halved:
        raise LusError(
            f"{path} states {layout.samples} values per pixel and {layout.meaning}, but its "
            f"{pixels.length} bytes match neither",
            AGAIN,
        )
    needed = (stated or 1) * layout.bytes
    if pixels.length < needed:
        whole = pixels.length // layout.bytes
        raise LusError(f"{path} holds {whole} of its {stated or 1} stated frames", AGAIN)
    count, rest = divmod(pixels.length, layout.bytes)
    excess = pixels.length - needed
    if stated and holds_only_zeros(file, pixels.start + needed, excess):
        return Native(layout, stated)  # the rest is padding
    if rest > 1:
        raise LusError(
            f"{path} has {pixels.length} bytes of pixels, but its header states {needed}",
            AGAIN,
        )
    factors = WIDER.get((layout.samples, layout.allocated), ()) if stated else ()
    if stated and any(count == stated * factor for factor in factors):
        raise LusError(
            f"{path} states {stated} frames of {layout.allocated} bits, but holds bytes for {count}: "
            "the number of frames or the size of a pixel is wrong",
            AGAIN,
        )
    return Native(layout, count)


def options(layout: Layout) -> list[Layout]:
    """The stated layout, and the possible ones if the header contradicts itself."""
    layouts = [layout]
    if layout.halved:
        layouts.append(replace(layout, meaning="YBR_FULL"))  # not halved
    gray = layout.meaning in ONE_SAMPLE
    if layout.samples == 1 and not gray:
        layouts.insert(0, replace(layout, samples=3))
        layouts[1] = replace(layout, meaning="MONOCHROME2")
    elif layout.samples == 3 and layout.meaning in GRAY:
        layouts = [replace(layout, meaning="RGB"), replace(layout, samples=1, planar=False)]
    return layouts


def read_native(
    file: BinaryIO, pixels: Pixels, native: Native, number: int, little: bool
) -> np.ndarray:
    """The values of one frame: (row, column[, sample])."""
    layout = native.layout
    start = number * layout.bytes
    content = swapped(file, pixels, start, layout.bytes, little or layout.allocated > 8)
    return as_values(content, layout, little)


def swapped(file: BinaryIO, pixels: Pixels, start: int, length: int, plain: bool) -> bytes:
    """The bytes of a frame, swapped in pairs if 8-bit values are in big-endian 16-bit words."""
    if plain or not pixels.words:
        file.seek(pixels.start + start)
        return file.read(length)
    shift = start % 2
    file.seek(pixels.start + start - shift)
    words = file.read(shift + length + (shift + length) % 2)
    return np.frombuffer(words, "<u2").byteswap().tobytes()[shift : shift + length]


def as_values(content: bytes, layout: Layout, little: bool) -> np.ndarray:
    """The values in the bytes of one frame: (row, column[, sample])."""
    kind = f"{'<' if little else '>'}{'i' if layout.signed else 'u'}{layout.allocated // 8}"
    flat = np.frombuffer(content, kind, count=layout.bytes * 8 // layout.allocated)
    rows, columns = layout.rows, layout.columns
    if layout.halved:  # two luminances, then their common blue and red differences
        pairs = flat.reshape(-1, 4)
        full = np.empty((len(pairs), 2, 3), flat.dtype)
        full[:, :, 0], full[:, :, 1], full[:, :, 2] = pairs[:, :2], pairs[:, 2:3], pairs[:, 3:]
        return full.reshape(rows, columns, 3)
    if layout.samples == 1:
        return flat.reshape(rows, columns)
    if layout.planar:
        return flat.reshape(layout.samples, rows, columns).transpose(1, 2, 0)
    return flat.reshape(rows, columns, layout.samples)
