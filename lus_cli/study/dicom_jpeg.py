"""Reads the headers of compressed DICOM frames: JPEG, JPEG-LS and JPEG 2000.

If they contradict the header of the file, they are right, as they were written with the pixels.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lus_cli.study.dicom_streams import CODESTREAM_START, JP2_START
from lus_cli.study.frames import MOST_SCANS, SCAN_START

BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7
FRAME_MARKERS = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1
JFIF, ADOBE = 0xE0, 0xEE  # APP0, APP14
RGB_IDS = (b"RGB", b"rgb")
SRGB, SYCC = 16, 18  # the colour spaces of JP2's colour specification (ISO 15444-1, I.5.3.3)


@dataclass(frozen=True)
class FrameHeader:
    """The fields that JPEG and JPEG 2000 have in common."""

    rows: int
    columns: int
    samples: int
    precision: int  # bits


@dataclass(frozen=True)
class JpegHeader(FrameHeader):
    process: int  # the marker of the frame: BASELINE, ...
    ids: bytes  # of the colours
    subsampled: bool
    jfif: bool
    adobe: int | None  # the colour transform in the Adobe segment

    def is_ybr(self, meaning: str) -> bool:
        """Whether the three colours are YBR (luminance and differences) or RGB.

        Follows libjpeg, but uses the header of the file where libjpeg guesses.
        """
        if self.jfif:
            return True
        if self.adobe is not None:
            return self.adobe != 0
        if self.ids in RGB_IDS:
            return False
        return self.subsampled or meaning != "RGB"

    @property
    def libjpeg_takes_ybr(self) -> bool:
        plain = self.adobe == 0 or (self.adobe is None and self.ids == b"RGB")
        return self.jfif or not plain


@dataclass(frozen=True)
class CodestreamHeader(FrameHeader):
    """The header of a JPEG 2000 frame."""

    transformed: bool  # to luminance and colour by the encoder; decoders invert it
    subsampled: bool
    high_throughput: bool
    jp2_colours: int | None

    def is_ybr(self, meaning: str) -> bool:
        """Whether the colours are YBR after decoding."""
        if self.transformed or self.subsampled:  # Pillow converts subsampled colours from YBR
            return False
        if self.jp2_colours in (SRGB, SYCC):
            return self.jp2_colours == SYCC
        return meaning in ("YBR_FULL", "YBR_FULL_422")


# -------------------------------------------------------------------------------------------- JPEG


def jpeg_header(content: bytes) -> JpegHeader:
    """The header of a JPEG or JPEG-LS (ITU-T T.81, annex B). Raises ValueError if it has none."""
    at, jfif, adobe = 2, False, None
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            break
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        length = int.from_bytes(content[at + 2 : at + 4])
        segment = content[at + 4 : at + 2 + length]
        if marker in FRAME_MARKERS:
            return frame_header(marker, segment, jfif, adobe)
        if marker == JFIF and segment.startswith(b"JFIF\0") and len(segment) >= 12:
            jfif = True
        if marker == ADOBE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
        at += 2 + length
    raise ValueError("a JPEG without a frame")


def frame_header(marker: int, segment: bytes, jfif: bool, adobe: int | None) -> JpegHeader:
    precision, rows, columns, samples = struct.unpack(">BHHB", segment[:6])
    ids, sampling = segment[6::3][:samples], segment[7::3][:samples]
    return JpegHeader(
        rows, columns, samples, precision, marker, ids, len(set(sampling)) > 1, jfif, adobe
    )


def decode_jpeg(
    content: bytes, header: JpegHeader, meaning: str, color: bool
) -> tuple[np.ndarray, str]:
    """Decodes a JPEG of 8 bits as luminance or colours; also returns MONOCHROME2 or RGB.

    `meaning` is the colour space in the header of the file. Raises ValueError or an error of Pillow.
    """
    if content.count(SCAN_START) > MOST_SCANS:
        raise ValueError(f"a JPEG of more than {MOST_SCANS} scans")
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        if header.samples == 1:
            return np.asarray(image), "MONOCHROME2"
        if image.mode != "RGB":
            raise ValueError(f"a JPEG of colours as {image.mode}")
        ybr = header.is_ybr(meaning)
        if ybr and not color:
            image.draft("L", image.size)  # decodes only the luminance: same pixels, faster
        elif not ybr and header.libjpeg_takes_ybr:
            image.draft("YCbCr", image.size)  # without conversion
        return np.asarray(image), "MONOCHROME2" if image.mode == "L" else "RGB"


# --------------------------------------------------------------------------------------- JPEG 2000


def codestream(content: bytes) -> tuple[bytes, int | None]:
    """The codestream in a JP2 file and the colour space it names; a bare codestream as it is."""
    if not content.startswith(JP2_START):
        return content, None
    at, colours = 0, None
    place = content.find(b"colr\x01")  # enumerated: method, precedence, approximation, number
    if place >= 0:
        colours = int.from_bytes(content[place + 7 : place + 11])
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4])
        if content[at + 4 : at + 8] == b"jp2c":
            begin = at + (16 if length == 1 else 8)
            return content[begin : at + length if length > 1 else len(content)], colours
        if length < 8:
            break
        at += length
    raise ValueError("a JP2 without a picture")


def codestream_header(content: bytes, jp2_colours: int | None) -> CodestreamHeader:
    """The header of a JPEG 2000 codestream (ISO 15444-1, annex A). Raises ValueError or struct.error."""
    if not content.startswith(CODESTREAM_START):
        raise ValueError("a JPEG 2000 without a header")
    right, bottom, left, top = struct.unpack(">4L", content[8:24])
    (samples,) = struct.unpack(">H", content[40:42])
    parts = [content[42 + 3 * n : 45 + 3 * n] for n in range(samples)]
    if not parts or len(parts[-1]) < 3:
        raise ValueError("a JPEG 2000 without colours")
    transformed = throughput = False
    at = 2
    while at + 4 <= len(content) and content[at : at + 2] != b"\xff\x90":  # start of a tile
        marker, length = struct.unpack(">HH", content[at : at + 4])
        if marker == 0xFF52:  # COD
            transformed = content[at + 8 : at + 9] == b"\x01"
        throughput |= marker == 0xFF50  # CAP
        at += 2 + length
    return CodestreamHeader(
        bottom - top,
        right - left,
        samples,
        max(part[0] & 0x7F for part in parts) + 1,
        transformed,
        any(part[1:] != b"\x01\x01" for part in parts),
        throughput,
        jp2_colours,
    )
