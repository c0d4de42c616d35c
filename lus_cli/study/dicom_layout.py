"""How uncompressed pixels lie in a DICOM file: what the header says, held against their length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lus_cli.errors import LusError
from lus_cli.study.dicom_streams import Pixels, holds_only_zeros

AGAIN = "export it again"
GRAY = ("MONOCHROME1", "MONOCHROME2")
ONE_SAMPLE = (*GRAY, "PALETTE COLOR")
# Where NumberOfFrames is too small by one of these factors, pixels of more bytes explain it, too:
# 16 bits instead of 8, three colours instead of one, or both.
WIDER = {(1, 8): (2, 3, 6), (1, 16): (3,), (3, 8): (2,)}


@dataclass(frozen=True)
class Layout:
    """A frame: what the header says of it."""

    rows: int
    columns: int
    samples: int  # values of a pixel
    allocated: int  # bits that a value takes
    stored: int  # bits of them that it uses
    high: int  # the highest of them
    signed: bool
    planar: bool  # all of one colour after the other, not pixel by pixel
    meaning: str  # PhotometricInterpretation

    @property
    def halved(self) -> bool:
        """Whether two pixels next to each other share their colour."""
        return self.meaning == "YBR_FULL_422"

    @property
    def bytes(self) -> int:
        samples = 2 if self.halved else self.samples
        return self.rows * self.columns * samples * self.allocated // 8


@dataclass(frozen=True)
class Native:
    """Uncompressed frames: how each lies, and how many there are."""

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


def native_frames(
    path: Path, file: BinaryIO, pixels: Pixels, layout: Layout, promised: int | None
) -> Native:
    """How the frames lie, by the length of their bytes; `promised` is NumberOfFrames.

    Raises LusError if the length fits nothing that the header may mean, or two things.
    """
    if pixels.there < pixels.length:
        whole = pixels.there // layout.bytes
        promise = promised or pixels.length // layout.bytes
        raise LusError(f"{path} holds {whole} of the {promise} frames it promises", AGAIN)
    possible = options(layout)
    for option in possible:
        count, rest = divmod(pixels.length, option.bytes)
        if count == (promised or max(count, 1)) and rest <= 1:  # one makes the length even
            return Native(option, count)
    if len(possible) > 1 and not layout.halved:
        raise LusError(
            f"{path} says {layout.samples} values a pixel, and {layout.meaning}: its "
            f"{pixels.length} bytes fit neither",
            AGAIN,
        )
    needed = (promised or 1) * layout.bytes
    if pixels.length < needed:
        whole = pixels.length // layout.bytes
        raise LusError(f"{path} holds {whole} of the {promised or 1} frames it promises", AGAIN)
    count, rest = divmod(pixels.length, layout.bytes)
    excess = pixels.length - needed
    if promised and holds_only_zeros(file, pixels.start + needed, excess):
        return Native(layout, promised)  # a writer's padding
    if rest > 1:
        raise LusError(
            f"{path} has {pixels.length} bytes of pixels, and its header makes {needed} of them",
            AGAIN,
        )
    factors = WIDER.get((layout.samples, layout.allocated), ()) if promised else ()
    if promised and any(count == promised * factor for factor in factors):
        raise LusError(
            f"{path} says {promised} frames of {layout.allocated} bits, and holds bytes for {count}: "
            "the number of frames or the size of a pixel is wrong",
            AGAIN,
        )
    return Native(layout, count)


def options(layout: Layout) -> list[Layout]:
    """What the header says, and what it may mean where it contradicts itself."""
    found = [layout]
    if layout.halved:
        found.append(replace(layout, meaning="YBR_FULL"))  # not halved after all
    gray = layout.meaning in ONE_SAMPLE
    if layout.samples == 1 and not gray:
        found.insert(0, replace(layout, samples=3))
        found[1] = replace(layout, meaning="MONOCHROME2")
    elif layout.samples == 3 and layout.meaning in GRAY:
        found = [replace(layout, meaning="RGB"), replace(layout, samples=1, planar=False)]
    return found


def read_native(
    file: BinaryIO, pixels: Pixels, native: Native, number: int, little: bool
) -> np.ndarray:
    """One frame: (row, column[, sample]) of the numbers that the bytes are."""
    layout = native.layout
    start = number * layout.bytes
    content = swapped(file, pixels, start, layout.bytes, little or layout.allocated > 8)
    return as_values(content, layout, little)


def swapped(file: BinaryIO, pixels: Pixels, start: int, length: int, plain: bool) -> bytes:
    """The bytes of a frame; in a big-endian file, 8-bit values lie turned round in 16-bit words."""
    if plain or not pixels.words:
        file.seek(pixels.start + start)
        return file.read(length)
    shift = start % 2
    file.seek(pixels.start + start - shift)
    words = file.read(shift + length + (shift + length) % 2)
    return np.frombuffer(words, "<u2").byteswap().tobytes()[shift : shift + length]


def as_values(content: bytes, layout: Layout, little: bool) -> np.ndarray:
    """The numbers of one frame: (row, column[, sample])."""
    kind = f"{'<' if little else '>'}{'i' if layout.signed else 'u'}{layout.allocated // 8}"
    flat = np.frombuffer(content, kind, count=layout.bytes * 8 // layout.allocated)
    rows, columns = layout.rows, layout.columns
    if layout.halved:  # two luminances, then the blue and the red that they share
        pairs = flat.reshape(-1, 4)
        full = np.empty((len(pairs), 2, 3), flat.dtype)
        full[:, :, 0], full[:, :, 1], full[:, :, 2] = pairs[:, :2], pairs[:, 2:3], pairs[:, 3:]
        return full.reshape(rows, columns, 3)
    if layout.samples == 1:
        return flat.reshape(rows, columns)
    if layout.planar:
        return flat.reshape(layout.samples, rows, columns).transpose(1, 2, 0)
    return flat.reshape(rows, columns, layout.samples)
