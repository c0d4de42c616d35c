"""Decodes compressed DICOM frames: JPEG with Pillow, other formats with pydicom.

The format is determined from the bytes of the frame, not from the header of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from lus_cli.errors import LusError
from lus_cli.study.dicom_colours import Stored
from lus_cli.study.dicom_jpeg import (
    JPEG_LS,
    LOSSLESS,
    FrameHeader,
    codestream,
    codestream_header,
    decode_jpeg,
    jpeg_header,
)
from lus_cli.study.dicom_layout import AGAIN, ONE_SAMPLE, Layout, as_values
from lus_cli.study.dicom_streams import CODESTREAM_START, JP2_START, JPEG_START, is_run_length
from lus_cli.study.exam_tree import MAX_PIXELS

LIBJPEG = "pip install pylibjpeg pylibjpeg-libjpeg, or export it uncompressed"
OPENJPEG = "pip install pylibjpeg pylibjpeg-openjpeg, or export it uncompressed"
NAMES = {
    JPEGExtended12Bit: ("JPEG of 12 bits", LIBJPEG),
    JPEGLossless: ("JPEG Lossless", LIBJPEG),
    JPEGLSLossless: ("JPEG-LS", LIBJPEG),
    JPEG2000: ("JPEG 2000 of these colours", OPENJPEG),
    HTJ2K: ("High-Throughput JPEG 2000", OPENJPEG),
}


@dataclass(frozen=True)
class Decoder:
    """Decodes the frames of one file, whose header states `layout`."""

    path: Path
    layout: Layout
    color: bool  # whether colours are wanted, or luminance is enough

    def decode(self, content: bytes) -> Stored:
        """Decodes one frame. Raises LusError if no decoder supports it, others if it is damaged."""
        if content.startswith(JPEG_START):
            return self.jpeg(content)
        if content.startswith((CODESTREAM_START, JP2_START)):
            return self.jpeg_2000(content)
        if is_run_length(content):
            return self.run_length(content)
        if 0 <= len(content) - self.layout.bytes <= 1:  # not compressed at all
            return stored(self.path, as_values(content, self.layout, True), self.layout)
        raise LusError(
            f"{self.path} has an unsupported compression",
            "export it uncompressed, or as a video file",
        )

    def jpeg(self, content: bytes) -> Stored:
        header = jpeg_header(content)
        self.check(header)
        if header.process not in (LOSSLESS, JPEG_LS) and header.precision == 8:
            array, meaning = decode_jpeg(content, header, self.layout.meaning, self.color)
            gray = self.one_sample() if header.samples == 1 else meaning
            return Stored(array, gray, 8, False)
        syntax = {LOSSLESS: JPEGLossless, JPEG_LS: JPEGLSLossless}.get(
            header.process, JPEGExtended12Bit
        )
        signed = self.layout.signed and header.samples == 1
        array, meaning = self.by_pydicom(content, header, syntax, signed)
        return self.limited(array, meaning, header.precision, signed)

    def jpeg_2000(self, content: bytes) -> Stored:
        bare, colours = codestream(content)
        header = codestream_header(bare, colours)
        self.check(header)
        signed = self.layout.signed and header.samples == 1
        syntax = HTJ2K if header.high_throughput else JPEG2000
        array, meaning = self.by_pydicom(bare, header, syntax, signed)
        if header.samples == 3:
            meaning = "YBR_FULL" if header.is_ybr(self.layout.meaning) else "RGB"
        return self.limited(array, meaning, header.precision, signed)

    def run_length(self, content: bytes) -> Stored:
        """Decodes RLE, which has a segment for each byte of a pixel, each a plane."""
        count = int.from_bytes(content[:4], "little")
        samples, size = {1: (1, 1), 2: (1, 2), 3: (3, 1), 6: (3, 2)}.get(count, (0, 0))
        if not samples:
            raise LusError(f"{self.path} has {count} bytes per pixel", "lus reads 1, 2, 3 and 6")
        header = FrameHeader(self.layout.rows, self.layout.columns, samples, 8 * size)
        signed = self.layout.signed and samples == 1
        array, meaning = self.by_pydicom(content, header, RLELossless, signed)
        return self.limited(array, meaning, 8 * size, signed)

    def check(self, header: FrameHeader) -> None:
        """Raises LusError for an implausible size or format, before allocating memory."""
        if not 0 < header.rows * header.columns <= MAX_PIXELS:
            raise LusError(
                f"{self.path} has a frame of {header.columns}x{header.rows}",
                "that is not an ultrasound video",
            )
        if header.samples not in (1, 3) or header.precision > 16:
            raise LusError(
                f"{self.path} has {header.samples} values of {header.precision} bits per pixel",
                "lus reads 1 or 3 values of up to 16 bits",
            )

    def one_sample(self) -> str:
        """The meaning of the values if there is one per pixel."""
        return self.layout.meaning if self.layout.meaning in ONE_SAMPLE else "MONOCHROME2"

    def by_pydicom(
        self, content: bytes, header: FrameHeader, syntax: UID, signed: bool
    ) -> tuple[np.ndarray, str]:
        """The frame and its colour space. Raises LusError if no decoder is installed."""
        gray, wide = header.samples == 1, header.precision > 8
        decoder = get_decoder(syntax)
        plugins = set(decoder.available_plugins)
        if syntax == JPEGExtended12Bit or (syntax == JPEG2000 and wide and not gray):
            plugins.discard("pillow")  # which reads 8 bits of these
        if not plugins:
            name, remedy = NAMES[syntax]
            raise LusError(f"{self.path}: no decoder for {name} is installed", remedy)
        meaning = self.layout.meaning
        colours = meaning if meaning == "RGB" or meaning.startswith("YBR_FULL") else "RGB"
        array, properties = decoder.as_array(
            encapsulate([content], has_bot=False),
            index=0,
            raw=True,  # pydicom's conversion from YBR to RGB takes five times as long as decoding
            rows=header.rows,  # type: ignore[arg-type]
            columns=header.columns,  # type: ignore[arg-type]
            samples_per_pixel=header.samples,  # type: ignore[arg-type]
            bits_allocated=16 if wide else 8,  # type: ignore[arg-type]
            bits_stored=header.precision,  # type: ignore[arg-type]
            pixel_representation=int(signed),  # type: ignore[arg-type]
            planar_configuration=0,  # type: ignore[arg-type]
            photometric_interpretation="MONOCHROME2" if gray else colours,  # type: ignore[arg-type]
            number_of_frames=1,  # type: ignore[arg-type]
            pixel_keyword="PixelData",  # type: ignore[arg-type]
        )
        return array, self.one_sample() if gray else str(properties["photometric_interpretation"])

    def limited(self, array: np.ndarray, meaning: str, precision: int, signed: bool) -> Stored:
        """A frame whose file may state fewer bits than it was compressed with."""
        possible = precision <= self.layout.allocated  # else the header is wrong
        bits = min(self.layout.stored, precision) if possible else precision
        refuse_larger(self.path, array, bits, signed)
        return Stored(array, meaning, bits, signed)


def stored(path: Path, array: np.ndarray, layout: Layout) -> Stored:
    """An uncompressed frame, with only the bits that it uses. Raises LusError."""
    if layout.signed and layout.stored < layout.allocated:
        shift = layout.allocated - layout.stored
        native = array.astype(array.dtype.newbyteorder("="))
        array = np.right_shift(np.left_shift(native, shift), shift)
    refuse_larger(path, array, layout.stored, layout.signed)
    return Stored(array, layout.meaning, layout.stored, layout.signed)


def refuse_larger(path: Path, array: np.ndarray, bits: int, signed: bool) -> None:
    """Raises LusError if values exceed the stated number of bits."""
    if not signed and bits < 8 * array.dtype.itemsize and (largest := int(array.max())) >> bits:
        raise LusError(f"{path} states {bits} bits per value, but holds {largest}", AGAIN)
