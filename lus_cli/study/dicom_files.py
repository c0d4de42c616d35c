"""Reads ultrasound DICOM files through pydicom: pixels, but no data about the patient.

Only the tags in TAGS are read, all of them about pixels. Frames are decoded one at a time, so an
uncompressed recording of gigabytes needs no more memory than a short one.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.study.dicom_colours import COLOURS, GRAY, Stored, as_frame, read_palette
from lus_cli.study.dicom_layout import (
    AGAIN,
    Layout,
    Native,
    layout_of,
    native_frames,
    pixel_sides,
    read_native,
)
from lus_cli.study.dicom_regions import UNMASKED_FRAME, blackened, is_unmasked, ultrasound_regions
from lus_cli.study.dicom_streams import (
    Pixels,
    encoded_frames,
    has_meta,
    is_dicom,
    is_encapsulated,
    is_film,
    locate,
)
from lus_cli.study.exam_tree import MAX_PIXELS
from lus_cli.study.frames import USED, resized
from lus_cli.study.notes import Note, ignore
from lus_cli.study.video_files import MAX_FRAMES
from lus_cli.study.video_pictures import proportions

try:
    import pydicom
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import UncompressedTransferSyntaxes

    from lus_cli.study.dicom_film import film_frames
    from lus_cli.study.dicom_frames import Decoder, stored
except ImportError as error:
    raise LusError("reading DICOM needs pydicom", "pip install 'lus-cli[dicom]'") from error

TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"),
    *("SequenceOfUltrasoundRegions", "PixelAspectRatio"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in COLOURS),
)
MOST_INFLATED = 1 << 30  # bytes of a decompressed deflated file, which is held in memory


def read_frames(
    path: Path,
    color: bool,
    mask_text: bool,
    only: Collection[int] | None = None,
    note: Note = ignore,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the frames of a DICOM file, numbered from 0: those in `only`, or all.

    Gray frames are (row, column) uint8. Others are (row, column, 3) uint8 RGB or, without `color`,
    (row, column) luminance if the file stores that. Values of more than 8 bits are scaled by the
    range of the stored bits; display windows are not applied. Pixels become square. With `mask_text`,
    everything outside the ultrasound regions of the file is black; `note` is called if that masks
    nothing.

    Raises LusError if the file is not a DICOM, if no installed decoder supports its compression, if
    it holds fewer frames than stated or, with `mask_text`, if it states no region.
    """
    try:
        with explaining_refusal(path), path.open("rb") as raw:
            file = inflated(path, raw)
            header = read_header(file)
            pixels = locate_pixels(path, file, header)
            layout = checked_layout(path, header)
            regions = ultrasound_regions(path, header) if mask_text else None
            if regions is not None and is_unmasked(header, regions):
                note(UNMASKED_FRAME)
            palette, sides = None, pixel_sides(header)
            frames = stored_frames(path, file, header, pixels, (layout, color), only)
            used = UsedBits(path, header)
            number = -1
            for number, values in frames:
                used.add(values)
                if palette is None and values.meaning == "PALETTE COLOR":
                    palette = read_palette(header, is_little(header), layout.signed)
                frame = as_frame(values, palette, color)
                if regions is not None:
                    frame = blackened(path, frame, regions, header)
                rows, columns = frame.shape[:2]
                yield number, resized(frame, *proportions(columns, rows, sides))
            if only is None:
                used.refuse_few()
                stated, count = frame_count(header), number + 1
                if stated and count > stated:
                    note(f"its header states {stated} frames, but it holds {count}: all are read")
    except LusError:
        raise
    except Exception as error:  # pydicom has no single exception for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LusError(f"{path} cannot be decoded ({reason[:200]})", AGAIN) from error


# ------------------------------------------------------------------------------------------ header


def inflated(path: Path, file: BinaryIO) -> BinaryIO:
    """The file, decompressed if it uses the Deflate transfer syntax.

    Raises LusError if it is not a DICOM, or if it then has more than MOST_INFLATED bytes.
    """
    start = file.read(132)
    file.seek(0)
    if not is_dicom(start):
        raise LusError(f"{path} is not a DICOM file", AGAIN)
    if not has_meta(start):  # so nothing says that it is deflated
        return file
    meta = pydicom.filereader.read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
        return file
    file.seek(
        132 + 12 + meta.FileMetaInformationGroupLength
    )  # preamble, and the element with the length
    content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), MOST_INFLATED)
    if len(content) == MOST_INFLATED:
        raise LusError(f"{path} decompresses to more than 1 GiB", "export it without Deflate")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    return io.BytesIO(b"\0" * 128 + b"DICM" + head.getvalue() + content)


def read_header(file: BinaryIO) -> pydicom.Dataset:
    """The tags about pixels; leaves `file`, which is a DICOM, where its pixels begin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what it corrects
        header = pydicom.dcmread(
            file, stop_before_pixels=True, specific_tags=list(TAGS), force=True
        )
        list(header)  # makes pydicom parse the values
    return header


def is_little(header: pydicom.Dataset) -> bool:
    """Whether the numbers in the file are little-endian."""
    return header.original_encoding[1] is not False


def locate_pixels(path: Path, file: BinaryIO, header: pydicom.Dataset) -> Pixels:
    """The location of the pixels. Raises LusError if there are none."""
    pixels = locate(file, is_little(header))
    if pixels is None or not pixels.length:
        raise LusError(
            f"{path} contains no picture", "it may be a report, a waveform or another record"
        )
    return pixels


def checked_layout(path: Path, header: pydicom.Dataset) -> Layout:
    """The layout that the header states. Raises LusError for an unsupported one."""
    for name in ("Rows", "Columns", "BitsAllocated"):
        if not isinstance(header.get(name), int):
            raise LusError(f"{path} lacks {name}, which every picture has", AGAIN)
    stated = frame_count(header) or 1
    if not 0 < header.Rows * header.Columns <= MAX_PIXELS or not 0 < stated <= MAX_FRAMES:
        raise LusError(
            f"{path} states {stated} frames of {header.Columns}x{header.Rows}",
            "that is not an ultrasound video",
        )
    layout = layout_of(header)
    if layout.allocated not in (8, 16):
        raise LusError(f"{path} has {layout.allocated} bits per value", "lus reads 8 and 16")
    if layout.samples not in (1, 3):
        raise LusError(f"{path} has {layout.samples} values per pixel", "lus reads 1 and 3")
    return layout


def refuse_odd_bits(path: Path, layout: Layout) -> None:
    """Raises LusError if uncompressed values are not in the lowest bits."""
    if layout.stored > layout.allocated:
        raise LusError(f"{path} stores {layout.stored} bits in {layout.allocated}", AGAIN)
    if layout.high != layout.stored - 1:
        raise LusError(
            f"{path} stores its {layout.stored} bits from bit {layout.high} downwards",
            "export it with 8 bits",
        )


def frame_count(header: pydicom.Dataset) -> int | None:
    """NumberOfFrames; None if it is missing, empty or 0."""
    return int(header.get("NumberOfFrames") or 0) or None


# ------------------------------------------------------------------------------------------ frames


def stored_frames(
    path: Path,
    file: BinaryIO,
    header: pydicom.Dataset,
    pixels: Pixels,
    layout_and_color: tuple[Layout, bool],
    only: Collection[int] | None,
) -> Iterator[tuple[int, Stored]]:
    """Yields the number and values of each frame, or of those in `only`. Raises LusError."""
    layout, color = layout_and_color
    stated = frame_count(header)
    if is_encapsulated(file, pixels) and not fits(layout, stated, pixels):
        encoded = encoded_frames(file, pixels, must_end=stated is None)
        frames = encapsulated_frames(encoded, Decoder(path, layout, color), only)
    else:
        refuse_odd_bits(path, layout)
        native = uncompressed_frames(path, file, header, pixels, layout)
        little = is_little(header)
        frames = (
            (n, stored(path, read_native(file, pixels, native, n, little), native.layout))
            for n in (range(native.count) if only is None else sorted(only))
            if n < native.count
        )
    count = 0
    for number, values in frames:
        count = number + 1
        if count > MAX_FRAMES:
            raise LusError(f"{path} has more than {MAX_FRAMES} frames", "split it")
        yield number, values
    if only is None and count < (stated or 1):
        raise LusError(f"{path} holds {count} of its {stated or 1} stated frames", AGAIN)


def uncompressed_frames(
    path: Path, file: BinaryIO, header: pydicom.Dataset, pixels: Pixels, layout: Layout
) -> Native:
    """The layout and number of uncompressed frames. Raises LusError if the bytes do not match.

    If the file states a compression, even a private one, the error names it.
    """
    try:
        return native_frames(path, file, pixels, layout, frame_count(header))
    except LusError:
        syntax = header.file_meta.get("TransferSyntaxUID")
        if syntax is None or syntax in UncompressedTransferSyntaxes:
            raise
        name = "a private one" if syntax.is_private else syntax.name
        raise LusError(
            f"{path} has transfer syntax {syntax} ({name}), and its {pixels.length} bytes of pixels "
            "are not frames that lus can read",
            "export it uncompressed, or as a video file",
        ) from None


def fits(layout: Layout, stated: int | None, pixels: Pixels) -> bool:
    """Whether the pixels have exactly the length of uncompressed frames."""
    return not pixels.undefined and pixels.length - (stated or 1) * layout.bytes in (0, 1)


def encapsulated_frames(
    frames: Iterator[bytes], decoder: Decoder, only: Collection[int] | None
) -> Iterator[tuple[int, Stored]]:
    """Yields the number and values of frames compressed one by one, or together as a film."""
    last = None if only is None else max(only, default=-1)
    for number, content in enumerate(frames):
        if last is not None and number > last:
            return
        if number == 0 and is_film(content):
            film = film_frames(content + b"".join(frames))
            for place, array in enumerate(film):
                if only is None or place in only:
                    gray = array.ndim == 2
                    yield place, Stored(array, "MONOCHROME2" if gray else "RGB", 8, False)
            return
        if only is None or number in only:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = decoder.decode(content)
            yield number, values


# -------------------------------------------------------------------------------------------- bits


class UsedBits:
    """Tracks how much of the range of their bits the values of a video use.

    If values use only a small part, scaling by the whole range would give a black or gray picture.
    """

    def __init__(self, path: Path, header: pydicom.Dataset) -> None:
        self.path, self.header = path, header
        self.lowest, self.highest, self.bits, self.signed = 0, 0, 0, False

    def add(self, values: Stored) -> None:
        if values.bits <= 8 or values.meaning == "PALETTE COLOR":
            return
        low, high = int(values.array.min()), int(values.array.max())
        first = not self.bits
        self.lowest = low if first else min(low, self.lowest)
        self.highest = high if first else max(high, self.highest)
        self.bits, self.signed = values.bits, values.signed
        self.gray = values.meaning in GRAY

    def refuse_few(self) -> None:
        """Raises LusError if the values, and the display window, use a small part of the range."""
        if not self.bits:
            return
        used = float(self.highest - (self.lowest if self.signed else 0))
        if self.gray and not self.signed:
            used = max(used, brightest(self.header))
        if used <= (1 << self.bits) * USED:
            raise LusError(
                f"{self.path} stores {self.bits} bits per value, but its largest value is {used:.0f}",
                "export it with as many bits as it uses, or as a video file",
            )


def brightest(header: pydicom.Dataset) -> float:
    """The upper end of the display windows, in stored values; 0 without a window."""
    centers, widths = (all_of(header.get(f"Window{name}")) for name in ("Center", "Width"))
    ends = [center + width / 2 for center, width in zip(centers, widths, strict=False)]
    slope = float(header.get("RescaleSlope") or 1) or 1.0
    shift = float(header.get("RescaleIntercept") or 0)
    return (max(ends) - shift) / slope if ends else 0.0


def all_of(value: Any) -> list[float]:
    """The numbers in an element with none, one or several values."""
    if value is None or value == "":
        return []
    return [float(one) for one in (value if isinstance(value, Sequence) else [value])]
