"""Ultrasound DICOM files, read through pydicom: pixels, and nothing that says whose they are.

Only the tags in TAGS are read, all of them about pixels. Frames are decoded one at a time from the
file, so an uncompressed recording of gigabytes needs no more memory than a short one.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.exam_tree import MAX_PIXELS
from lus_cli.video_files import MAX_FRAMES

try:
    import pydicom
    from pydicom.pixels import apply_color_lut, get_decoder
    from pydicom.pixels.utils import as_pixel_options
except ImportError as error:
    raise LusError("reading DICOM needs pydicom", "pip install 'lus-cli[dicom]'") from error

COLOURS = ("Red", "Green", "Blue")
TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    "SequenceOfUltrasoundRegions",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in COLOURS),
)
PIXEL_DATA = (0x7FE0, 0x0010)
GRAY = ("MONOCHROME1", "MONOCHROME2")
LUMINANCE_FIRST = ("YBR_FULL", "YBR_FULL_422")
USED = 1 / 8  # of the range of the stored bits, at least, by the file's own display window
ADOBE = b"\xff\xee\x00\x0eAdobe"  # the segment in a JPEG that says what its colours are
MARKED = 1 << 20  # bytes in which the first frame begins
PICTURE = 1  # RegionSpatialFormat of a two-dimensional picture (PS3.3, C.8.5.5.1.1)
Item = TypeVar("Item")
Box = tuple[slice, slice]  # rows, columns
AGAIN = "export it again"
UNMASKED = "mask it by other means, or prepare it without --mask-text"


def read_frames(
    path: Path, color: bool, mask_text: bool, only: Collection[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of a DICOM file, numbered from 0, those in `only` or all.

    Yields (row, column) uint8 for gray frames, and for any other (row, column, 3) uint8 RGB or,
    without `color`, (row, column) luminance where the file stores that. More than 8 bits are scaled
    by the range of the stored bits; display windows are not applied. With `mask_text`, everything
    outside the file's ultrasound regions is black.

    Raises LusError if the file is no DICOM, no decoder here knows its compression, it holds another
    number of frames than it says, or with `mask_text` it names no region to keep.
    """
    try:
        with explaining_refusal(path), path.open("rb") as file:
            header = read_header(path, file)
            regions = ultrasound_regions(path, header) if mask_text else None
            total = frame_count(header)
            wanted = range(total) if only is None else sorted(n for n in only if n < total)
            found = -1
            for found, stored in enumerate(decoded(file, header, wanted)):
                if found == len(wanted):
                    raise LusError(f"{path} holds more than the {total} frames it promises", AGAIN)
                refuse_unused_bits(path, header, stored[0], stored[1]["bits_stored"])
                frame = as_frame(*stored, header, color)
                yield wanted[found], frame if regions is None else blackened(frame, regions)
            if found + 1 < len(wanted):
                raise LusError(f"{path} holds {found + 1} of the {total} frames it promises", AGAIN)
    except LusError:
        raise
    except Exception as error:  # whatever a damaged file makes of pydicom: it has no one exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LusError(f"{path} cannot be decoded ({reason[:200]})", AGAIN) from error


def read_header(path: Path, file: BinaryIO) -> pydicom.Dataset:
    """The tags about pixels, with `file` left where its pixels begin. Raises LusError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what pydicom mends; what it cannot mend raises
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
        except pydicom.errors.InvalidDicomError:
            raise LusError(f"{path} is no DICOM file", AGAIN) from None
        list(header)  # reads the values, which pydicom puts off
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        raise LusError(f"{path}: {syntax.name} is not read here", "export it uncompressed")
    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    if not known:
        raise LusError(
            f"{path}: no decoder for {syntax.name} is installed",
            "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export it uncompressed",
        )
    implicit, little = header.original_encoding
    tag = file.read(4)
    if len(tag) < 4 or struct.unpack("<HH" if little else ">HH", tag) != PIXEL_DATA:
        raise LusError(f"{path} holds no picture", "it is a report, a waveform or another record")
    file.seek(4 if implicit else 8, 1)  # length, or value representation, reserved and length
    if (
        not 0 < header.Rows * header.Columns <= MAX_PIXELS
        or not 0 < frame_count(header) <= MAX_FRAMES
    ):
        raise LusError(
            f"{path} says {frame_count(header)} frames of {header.Columns}x{header.Rows}",
            "that is no ultrasound video",
        )
    refuse_odd_bits(path, header)
    return header


def refuse_odd_bits(path: Path, header: pydicom.Dataset) -> None:
    """Raises LusError where stretching the stored bits would leave a black picture."""
    if header.BitsAllocated not in (8, 16):
        raise LusError(f"{path} has {header.BitsAllocated} bits a value", "8 and 16 are read")
    stored = int(header.get("BitsStored") or header.BitsAllocated)
    high = header.get("HighBit")
    plain = not header.file_meta.TransferSyntaxUID.is_encapsulated  # else the decoder shifts them
    if plain and isinstance(high, int) and high != stored - 1:
        raise LusError(f"{path} has its {stored} bits from bit {high} downwards", "export 8 bits")


def refuse_unused_bits(path: Path, header: pydicom.Dataset, array: np.ndarray, bits: int) -> None:
    """Raises LusError if both the file's display window and a frame say that most of the stored bits
    are not used: stretching them would leave a black picture."""
    if bits <= 8 or header.get("PhotometricInterpretation") not in GRAY:
        return
    centers, widths = (all_of(header.get(f"Window{name}")) for name in ("Center", "Width"))
    if not centers or not widths or array.min() < 0:
        return
    slope = float(header.get("RescaleSlope") or 1) or 1.0
    brightest = (max(map(sum, zip(centers, (w / 2 for w in widths), strict=False)))
                 - float(header.get("RescaleIntercept") or 0)) / slope  # fmt: skip
    if max(brightest, float(array.max())) <= (1 << bits) * USED:
        raise LusError(
            f"{path} stores {bits} bits a value, and uses them up to {brightest:.0f} only",
            "export it with as many bits as it uses, or as video",
        )


def all_of(value: Any) -> list[float]:
    """The numbers of an element that may hold none, one or several."""
    if value is None or value == "":
        return []
    return [float(one) for one in (value if isinstance(value, Sequence) else [value])]


def frame_count(header: pydicom.Dataset) -> int:
    return int(header.get("NumberOfFrames") or 1)


def decoded(
    file: BinaryIO, header: pydicom.Dataset, wanted: Sequence[int]
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Frames as the file stores them, before any change of colour, and what they then mean.

    There may be more of them than the header says where all are wanted.
    """
    syntax, begin = header.file_meta.TransferSyntaxUID, file.tell()
    rgb = is_rgb_by_adobe(file, syntax)
    batches: list[Sequence[int] | None] = [wanted] if wanted else []
    if not syntax.is_encapsulated:
        # One after the other, pydicom 3.0 reads YBR_FULL_422 from the wrong place after the first.
        batches = [[number] for number in wanted]
    elif len(wanted) == frame_count(header):
        batches = [None]  # without looking up where each frame begins
    for indices in batches:
        file.seek(begin)
        frames = get_decoder(syntax).iter_array(
            file,
            raw=True,  # pydicom's own change from YBR to RGB takes five times as long as decoding
            indices=indices,
            transfer_syntax_uid=syntax,
            pixel_keyword="PixelData",
            decoding_plugin="pillow" if rgb else "",
            pixel_vr="OB" if syntax.is_encapsulated or header.BitsAllocated == 8 else "OW",
            **as_pixel_options(header),
        )
        for frame, meaning in quietly(frames):
            ybr = meaning["photometric_interpretation"] in LUMINANCE_FIRST
            yield frame, meaning | ({"photometric_interpretation": "RGB"} if rgb and ybr else {})


def is_rgb_by_adobe(file: BinaryIO, syntax: str) -> bool:
    """Whether Pillow, through pydicom, makes RGB of frames that the header calls YBR.

    It does of a JPEG whose Adobe segment says that its colours were transformed, and pydicom goes on
    calling it YBR.
    """
    if syntax not in (pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEGExtended12Bit):
        return False
    if "pillow" not in get_decoder(syntax).available_plugins:
        return False
    content = file.read(MARKED)
    place = content.find(ADOBE)
    return place >= 0 and content[place + len(ADOBE) + 6 : place + len(ADOBE) + 7] == b"\x01"


def quietly(frames: Iterator[Item]) -> Iterator[Item]:
    """The frames, without what pydicom has to say on the way: what it cannot mend raises."""
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                frame = next(frames)
            except StopIteration:
                return
        yield frame


def as_frame(
    array: np.ndarray, properties: dict[str, Any], header: pydicom.Dataset, color: bool
) -> np.ndarray:
    """A decoded frame as `read_frames` yields it. Raises LusError for colours not known here."""
    meaning = properties["photometric_interpretation"]
    if meaning == "PALETTE COLOR":
        colours = apply_color_lut(array, header)
        small = colours.dtype != np.uint16 or largest_entry(header) < 256  # 8 bits in 16
        return colours.astype(np.uint8) if small else (colours >> 8).astype(np.uint8)
    frame = eight_bits(array, properties["bits_stored"], bool(properties["pixel_representation"]))
    if meaning in GRAY:
        return 255 - frame if meaning == "MONOCHROME1" else frame
    if meaning in LUMINANCE_FIRST:
        if not color:
            return frame[..., 0]
        return np.asarray(Image.fromarray(frame, "YCbCr").convert("RGB"))
    if meaning == "RGB":
        return frame
    raise LusError(f"colours as {meaning} are not read here", "export it as RGB or MONOCHROME2")


def largest_entry(header: pydicom.Dataset) -> int:
    """The largest entry of 16 bits in the palettes."""
    tables = [header[f"{colour}PaletteColorLookupTableData"].value for colour in COLOURS]
    return max(int(np.frombuffer(table[: len(table) // 2 * 2], "<u2").max()) for table in tables)


def eight_bits(array: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Values of `bits` bits, stretched from their whole range to 0..255: uint8."""
    if bits == 8 and not signed:
        return array.astype(np.uint8, copy=False)
    lowest, whole = -(1 << bits - 1) if signed else 0, (1 << bits) - 1
    wide = np.clip(array.astype(np.int64) - lowest, 0, whole)
    return ((wide * 255 + whole // 2) // whole).astype(np.uint8)


# --------------------------------------------------------------------------------- what may be seen


def ultrasound_regions(path: Path, header: pydicom.Dataset) -> list[Box]:
    """Where the file says that its two-dimensional pictures lie (PS3.3, C.8.5.5).

    Raises LusError if it says nothing, or what cannot be: then nobody knows where names may stand.
    """
    boxes = []
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        if region.RegionSpatialFormat != PICTURE:
            continue  # an ECG, a Doppler spectrum, a legend
        left, top = region.RegionLocationMinX0, region.RegionLocationMinY0
        right, bottom = region.RegionLocationMaxX1, region.RegionLocationMaxY1
        # The last pixel belongs to the region; some scanners give the one after it.
        if not (0 <= left < right <= header.Columns and 0 <= top < bottom <= header.Rows):
            raise LusError(
                f"{path}: its ultrasound region ({left}, {top}) to ({right}, {bottom}) does not lie "
                f"in its {header.Columns}x{header.Rows} frames, so text cannot be masked",
                UNMASKED,
            )
        boxes.append((slice(top, bottom + 1), slice(left, right + 1)))
    if not boxes:
        raise LusError(f"{path} names no ultrasound region, so text cannot be masked", UNMASKED)
    return boxes


def blackened(frame: np.ndarray, keep: list[Box]) -> np.ndarray:
    """The frame, black outside the boxes."""
    masked = np.zeros_like(frame)
    for box in keep:
        masked[box] = frame[box]
    return masked
