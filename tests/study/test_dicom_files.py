"""DICOM files whose header and bytes differ: every frame comes out as it was, or none does."""

from __future__ import annotations

import io
import logging
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import apply_color_lut
from pydicom.uid import (
    HEVCMP51,
    JPEG2000,
    MPEG2MPML,
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from lus_cli.config import PredictConfig
from lus_cli.errors import LusError
from lus_cli.progress import silent
from lus_cli.steps import predict, train
from lus_cli.study.dicom_colours import eight_bits, read_palette
from lus_cli.study.dicom_files import read_frames
from lus_cli.study.sources import kind_of
from tests.conftest import tiny
from tests.study.test_sources import (
    dicom,
    dicom_header,
    pixels,
    region,
    run,
    settings,
    write_dicom,
)

LENGTH = 5


def frames_of(path: Path, color: bool = True) -> np.ndarray:
    return np.stack([frame for _, frame in read_frames(path, color, False)])


def refusal(path: Path) -> str:
    with pytest.raises(LusError) as caught:
        list(read_frames(path, True, False))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def save(header: Dataset, path: Path, content: bytes, syntax: str, vr: str = "OB") -> Path:
    """A DICOM file with these bytes for its pixels, whatever the header says of them."""
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    header.PixelData = content
    header["PixelData"].VR = vr
    header["PixelData"].is_undefined_length = content.startswith(b"\xfe\xff\x00\xe0")
    header.save_as(path, enforce_file_format=True)
    return path


def said_to_be(path: Path, syntax: str) -> Path:
    """The file with another transfer syntax in its header, which pydicom would not write."""
    content = path.read_bytes()
    place = content.index(b"\x02\0\x10\0UI") + 8
    end = place + int.from_bytes(content[place - 2 : place], "little")
    new = syntax.encode() + bytes(len(syntax) % 2)
    size = int.from_bytes(content[140:144], "little") + len(new) - (end - place)
    path.write_bytes(
        content[:140] + struct.pack("<L", size) + content[144 : place - 2]
        + struct.pack("<H", len(new)) + new + content[end:]
    )  # fmt: skip
    return path


def changed(path: Path, **tags: Any) -> Path:
    """The file with other tags; None removes one."""
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(path)
    return path


def jpeg(frame: np.ndarray, strip: bool = False, **settings: Any) -> bytes:
    """A JPEG by Pillow; `strip` takes the JFIF segment out."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", **{"quality": 97, "subsampling": 0} | settings)
    content = file.getvalue()
    return content[:2] + content[20:] if strip else content


def adobe(transform: int) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def codestream(frame: np.ndarray, **settings: Any) -> bytes:
    file = io.BytesIO()
    settings = {"irreversible": False, "no_jp2": True} | settings
    Image.fromarray(frame).save(file, "JPEG2000", **settings)
    return file.getvalue()


def red_square() -> np.ndarray:
    """(frame, row, column, 3): gray with a strong red square, where a wrong colour shows."""
    frames = np.stack([pixels()] * 3, axis=-1)
    frames[:, 16:32, 16:40] = (220, 40, 30)
    return frames


def ybr(frames: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(f).convert("YCbCr")) for f in frames])


def worst(found: np.ndarray, right: np.ndarray) -> int:
    assert found.shape == right.shape
    return int(np.abs(found.astype(int) - right).max())


# --------------------------------------------------------------------------------- number of frames


@pytest.mark.parametrize("number", [None, "", 0, 3, 4])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_frames_that_the_header_does_not_count_are_read(
    tmp_path: Path, number: int | str | None, syntax: str
) -> None:
    header = dicom_header((7, 33, 65), "MONOCHROME2")
    values = np.random.default_rng(0).integers(0, 256, (7, 33, 65), np.uint8)
    content = values.tobytes() + b"\0"  # an odd length is made even
    if number is None:
        del header.NumberOfFrames
    else:
        header.NumberOfFrames = number
    path = save(header, tmp_path / "a.dcm", content, syntax, "OW")
    np.testing.assert_array_equal(frames_of(path), values)


def test_colour_frames_of_a_deflated_file_without_a_count_are_read(tmp_path: Path) -> None:
    values = red_square()
    path = write_dicom(tmp_path / "a.dcm", values, "RGB")
    header = pydicom.dcmread(path)
    del header.NumberOfFrames
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(path, implicit_vr=False, little_endian=True)
    np.testing.assert_array_equal(frames_of(path), values)
    assert re.search("not read|cannot be decoded|holds", refusal(cut(path, 0.5)))


def without_meta(path: Path) -> Path:
    """The data set of a file alone: no preamble and no file meta information."""
    content = path.read_bytes()
    path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_data_set_without_file_meta_information_is_read(tmp_path: Path, syntax: str) -> None:
    values = red_square()
    header = dicom_header(values.shape, "RGB")
    path = save(header, tmp_path / "L1", values.tobytes(), syntax, "OW")
    assert pydicom.dcmread(without_meta(path), force=True)[0x00080016].tag.group == 8
    assert kind_of(path) == "dicom"
    np.testing.assert_array_equal(frames_of(path), values)
    content = path.read_bytes()
    for start in (b"\x08\0", b"\x08\0\x16\0\xff\xff\xff\xff", b"\x10\0" + content[2:]):
        path.write_bytes(start)
        assert kind_of(path) is None
        assert "is not a DICOM file" in refusal(path)


def test_jpegs_without_file_meta_information_are_read(tmp_path: Path) -> None:
    values = red_square()
    header = dicom_header(values.shape, "YBR_FULL_422")
    content = encapsulate([jpeg(frame) for frame in values])
    path = save(header, tmp_path / "a.dcm", content, JPEGBaseline8Bit)
    whole = frames_of(path)
    np.testing.assert_array_equal(frames_of(without_meta(path)), whole)
    assert worst(whole, values) <= 12


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((5, 48, 64), np.uint8))
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(path, implicit_vr=False, little_endian=True)
    monkeypatch.setattr("lus_cli.study.dicom_files.MOST_INFLATED", 4000)
    assert "decompresses to more" in refusal(path)


@pytest.mark.parametrize("number", [None, 2, 3])
def test_halved_colours_take_two_bytes_a_pixel(tmp_path: Path, number: int | None) -> None:
    full = ybr(red_square())
    pairs = [full[:, :, 0::2, 0], full[:, :, 1::2, 0], full[:, :, 0::2, 1], full[:, :, 0::2, 2]]
    content = np.stack(pairs, axis=-1).tobytes()
    header = dicom_header(full.shape, "YBR_FULL_422")
    header.NumberOfFrames = number or ""
    path = save(header, tmp_path / "a.dcm", content, ExplicitVRLittleEndian)
    assert worst(frames_of(path), red_square()) <= 4


@pytest.mark.parametrize(
    ("number", "complaint"),
    [(6, "holds 5 of its 6 stated frames"), (1, None), (2, None), (4, None)],
)
def test_the_frames_of_uncompressed_pixels_are_all_there_or_none(
    tmp_path: Path, number: int, complaint: str | None
) -> None:
    path = changed(write_dicom(tmp_path / "a.dcm", pixels()), NumberOfFrames=number)
    if complaint:
        assert complaint in refusal(path)
    else:
        np.testing.assert_array_equal(frames_of(path), pixels())
        notes: list[str] = []
        list(read_frames(path, True, False, note=notes.append))
        assert notes == [f"its header states {number} frames, but it holds 5: all are read"]


@pytest.mark.parametrize(("bits", "factor"), [(16, 2), (8, 2), (8, 3), (8, 6)])
def test_more_bytes_that_may_be_wider_pixels_are_refused(
    tmp_path: Path, bits: int, factor: int
) -> None:
    """Two frames of 8 bits are one of 16: which of the two is not known."""
    values = np.full((2 * factor, 8, 8), 99, np.uint8)
    path = changed(write_dicom(tmp_path / "a.dcm", values), NumberOfFrames=2)
    assert "the number of frames or the size of a pixel is wrong" in refusal(path)


@pytest.mark.parametrize("extra", [100, 4000])
@pytest.mark.parametrize("filling", [b"\0", b"\x07"])
def test_bytes_after_the_frames_are_zeros_or_the_file_is_refused(
    tmp_path: Path, extra: int, filling: bytes
) -> None:
    content = pixels().tobytes() + filling * extra
    header = dicom_header(pixels().shape, "MONOCHROME2")
    path = save(header, tmp_path / "a.dcm", content, ExplicitVRLittleEndian)
    if filling == b"\0":
        np.testing.assert_array_equal(frames_of(path), pixels())
    else:
        assert "bytes of pixels, but its header states" in refusal(path)


@pytest.mark.parametrize("number", [LENGTH, None])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, number: int | None) -> None:
    path = write_dicom(tmp_path / "a.dcm", pixels())
    if number is None:
        changed(path, NumberOfFrames=None)
    assert "of its 5 stated frames" in refusal(cut(path, 0.7))


def test_too_few_bytes_in_a_makers_own_compression_name_it(tmp_path: Path) -> None:
    path = said_to_be(write_dicom(tmp_path / "a.dcm", pixels()), "1.2.840.113619.5.9")
    np.testing.assert_array_equal(frames_of(path), pixels(), "its bytes fit: not compressed")
    few = changed(path, NumberOfFrames=None, PixelData=pixels().tobytes()[: pixels().nbytes // 3])
    few = said_to_be(changed(few, NumberOfFrames=LENGTH), "1.2.840.113619.5.9")
    complaint = refusal(few)
    assert "has transfer syntax 1.2.840.113619.5.9 (a private one)" in complaint
    assert complaint.endswith("export it uncompressed, or as a video file")


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("number", [None, 0, 1, 3, 5, 6])
@pytest.mark.parametrize("table", ["none", "basic", "extended", "of zeros"])
def test_compressed_frames_are_counted_by_what_is_there(
    tmp_path: Path, syntax: str, number: int | None, table: str
) -> None:
    path = tmp_path / "a.dcm"
    header = dicom_header(pixels().shape, "MONOCHROME2")
    if syntax == RLELossless:
        header.PixelData = pixels().tobytes()
        header.compress(RLELossless)
        encoded = list(pydicom.encaps.generate_frames(header.PixelData, number_of_frames=LENGTH))
    else:
        encoded = [(jpeg if syntax == JPEGBaseline8Bit else codestream)(f) for f in pixels()]
    content = encapsulate(encoded, has_bot=table != "none")
    if table == "extended":
        content, header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = (
            encapsulate_extended(encoded)
        )
    if table == "of zeros":  # as of writers that leave the room and never fill it
        content = content[:8] + bytes(4 * LENGTH) + content[8 + 4 * LENGTH :]
    if number is None:
        del header.NumberOfFrames
    else:
        header.NumberOfFrames = number
    save(header, path, content, syntax)
    if number == 6:
        assert "holds 5 of its 6 stated frames" in refusal(path)
    else:
        assert worst(frames_of(path), pixels()) <= (8 if syntax == JPEGBaseline8Bit else 0)


@pytest.mark.parametrize("number", [None, 5])
@pytest.mark.parametrize("form", ["fragments", "one item"])
def test_frames_in_several_items_or_one_item_are_found(
    tmp_path: Path, number: int | None, form: str
) -> None:
    encoded = [jpeg(frame) for frame in pixels()]
    if form == "fragments":
        content = encapsulate(encoded, fragments_per_frame=3, has_bot=False)
    else:
        content = encapsulate([b"".join(encoded)], has_bot=False)
    header = dicom_header(pixels().shape, "MONOCHROME2")
    header.NumberOfFrames = number or ""
    path = save(header, tmp_path / "a.dcm", content, JPEGBaseline8Bit)
    assert worst(frames_of(path), pixels()) <= 8
    assert (
        worst(np.stack([f for _, f in read_frames(path, True, False, {1, 4})]), pixels()[[1, 4]])
        <= 8
    )


@pytest.mark.parametrize("number", [5, None, 0])
@pytest.mark.parametrize("ending", ["whole", "without an end", "a frame less", "half a frame less"])
def test_a_compressed_file_without_its_end_is_whole_only_if_its_count_says_so(
    tmp_path: Path, number: int | None, ending: str
) -> None:
    encoded = [jpeg(frame) for frame in pixels()]
    header = dicom_header(pixels().shape, "MONOCHROME2")
    header.NumberOfFrames = "" if number is None else number
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), JPEGBaseline8Bit)
    last = 8 + len(encoded[-1]) + len(encoded[-1]) % 2
    missing = {"whole": 0, "without an end": 8, "a frame less": 8 + last}.get(ending, 8 + last // 2)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - missing])
    if ending == "whole" or (ending == "without an end" and number):
        assert worst(frames_of(path), pixels()) <= 8
    else:
        assert re.search("cut short|holds 4 of its 5", refusal(path))


# ----------------------------------------------------------------------------------------- byte order


@pytest.mark.parametrize("vr", ["OB", "OW"])
@pytest.mark.parametrize("kind", ["gray", "rgb", "planar", "12 bits", "signed", "422", "palette"])
@pytest.mark.parametrize("columns", [64, 63])
def test_a_big_endian_file_shows_what_a_little_endian_one_does(
    tmp_path: Path, vr: str, kind: str, columns: int
) -> None:
    gray = pixels()[:, :47, :columns]  # frames of an odd size begin within a word
    tags: dict[str, Any] = {}
    values: np.ndarray = gray
    meaning, bits = "MONOCHROME2", 8
    if kind in ("rgb", "planar", "422"):
        meaning, values = "RGB", red_square()[:, :47, :columns]
    if kind == "planar":
        tags["PlanarConfiguration"] = 1
    if kind == "422":
        meaning, values = "YBR_FULL_422", np.ascontiguousarray(ybr(values)[..., :2])
        tags = {"Columns": columns // 2 * 2, "SamplesPerPixel": 3}
        values = values[:, :, : columns // 2 * 2]
    if kind == "12 bits":
        bits, values = 12, gray.astype(np.uint16) * 16
    if kind == "signed":
        bits, values = 16, (gray.astype(np.int32) * 257 - 32768).astype(np.int16)
        tags = {"PixelRepresentation": 1}
    if kind == "palette":
        meaning, ramp = "PALETTE COLOR", np.arange(256, dtype=np.uint16) * 257
    paths = []
    for order, syntax in (("<", ExplicitVRLittleEndian), (">", ExplicitVRBigEndian)):
        header = dicom_header(values.shape, meaning, bits)
        for name, value in tags.items():
            setattr(header, name, value)
        if kind == "palette":
            for colour in ("Red", "Green", "Blue"):
                setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
                data = ramp.astype(f"{order}u2").tobytes()
                setattr(header, f"{colour}PaletteColorLookupTableData", data)
        content = values.astype(values.dtype.newbyteorder(order)).tobytes()
        content += bytes(len(content) % 2)
        if order == ">" and vr == "OW" and values.itemsize == 1:
            content = np.frombuffer(content, "<u2").byteswap().tobytes()
        name = tmp_path / f"{'big' if order == '>' else 'little'}.dcm"
        paths.append(save(header, name, content, syntax, vr))
    np.testing.assert_array_equal(frames_of(paths[1]), frames_of(paths[0]))
    some = [frame for _, frame in read_frames(paths[1], True, False, {3})]
    np.testing.assert_array_equal(some[0], frames_of(paths[0])[3])


# -------------------------------------------------------------------- headers that the data contradict


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("stated", ["RGB", "YBR_FULL", "YBR_FULL_422", "MONOCHROME2", "YBR_RCT"])
@pytest.mark.parametrize(
    "made",
    ["JFIF", "JFIF, halved", "halved, no marker", "Adobe 1", "Adobe 2", "Adobe 0", "RGB by ids"],
)
def test_a_jpegs_colours_are_those_that_its_own_markers_name(
    tmp_path: Path, stated: str, made: str, color: bool
) -> None:
    frames = red_square()
    if made in ("Adobe 0", "RGB by ids"):
        encoded = [jpeg(frame, keep_rgb=True) for frame in frames]
        assert all(adobe(0) in content for content in encoded)  # libjpeg names it in both ways
        if made == "RGB by ids":
            encoded = [content.replace(adobe(0), b"") for content in encoded]
        else:  # the ids as of YCbCr: 1, 2, 3
            encoded = [plain_ids(content) for content in encoded]
    elif "halved" in made:
        encoded = [jpeg(frame, strip="no marker" in made, subsampling=1) for frame in frames]
    elif made == "JFIF":
        encoded = [jpeg(frame) for frame in frames]
    else:
        encoded = [content[:2] + adobe(int(made[-1])) + content[2:]
                   for content in (jpeg(frame, strip=True) for frame in frames)]  # fmt: skip
    header = dicom_header(frames.shape, stated)
    header.SamplesPerPixel, header.PlanarConfiguration = 3, 0
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), JPEGBaseline8Bit)
    if color:
        found, right = frames_of(path), frames
    else:
        found = np.stack([np.asarray(image) for _, image in dicom(path).frames("L")])
        right = ybr(frames)[..., 0]
    inside = np.s_[:, 20:28, 20:36]
    assert worst(found[inside], right[inside]) <= 8
    assert worst(found[:, :12], right[:, :12]) <= 8


def plain_ids(content: bytes) -> bytes:
    """A JPEG whose components R, G and B are called 1, 2 and 3."""
    start = content.index(b"\xff\xc0") + 10
    scan = content.index(b"\xff\xda") + 5
    changed_ = bytearray(content)
    for number in range(3):
        changed_[start + 3 * number] = changed_[scan + 2 * number] = number + 1
    return bytes(changed_)


@pytest.mark.parametrize("stated", ["RGB", "YBR_FULL"])
def test_a_jpeg_without_markers_has_the_colours_of_the_files_header(
    tmp_path: Path, stated: str
) -> None:
    frames = red_square()
    if stated == "RGB":
        encoded = [plain_ids(jpeg(f, keep_rgb=True).replace(adobe(0), b"")) for f in frames]
    else:
        encoded = [jpeg(frame, strip=True) for frame in frames]
    header = dicom_header(frames.shape, stated)
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), JPEGBaseline8Bit)
    assert worst(frames_of(path)[:, 20:28, 20:36], frames[:, 20:28, 20:36]) <= 8


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000, RLELossless])
@pytest.mark.parametrize("stored", ["gray", "colour"])
def test_values_a_pixel_are_those_of_the_compressed_frame(
    tmp_path: Path, syntax: str, stored: str
) -> None:
    frames = pixels() if stored == "gray" else red_square()
    header = dicom_header(frames.shape, "MONOCHROME2" if stored == "gray" else "RGB")
    if syntax == RLELossless:
        header.PixelData = frames.tobytes()
        header.compress(RLELossless)
        encoded = list(pydicom.encaps.generate_frames(header.PixelData, number_of_frames=LENGTH))
    else:
        encoded = [(jpeg if syntax == JPEGBaseline8Bit else codestream)(f) for f in frames]
    # The header says the other.
    header.SamplesPerPixel = 3 if stored == "gray" else 1
    header.PhotometricInterpretation = "RGB" if stored == "gray" else "MONOCHROME2"
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), syntax)
    assert worst(frames_of(path), frames) <= (60 if syntax == JPEGBaseline8Bit else 0)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000])
def test_a_frame_is_as_large_as_its_own_header_says(tmp_path: Path, syntax: str) -> None:
    encoded = [(jpeg if syntax == JPEGBaseline8Bit else codestream)(f) for f in pixels()]
    header = dicom_header(pixels().shape, "MONOCHROME2")
    header.Rows, header.Columns = 30, 40
    header.SequenceOfUltrasoundRegions = [region(0, 10, 39, 29)]
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), syntax)
    assert worst(frames_of(path), pixels()) <= 8
    with pytest.raises(LusError, match="has frames of 64x48, but regions for 40x30"):
        list(read_frames(path, True, True))


@pytest.mark.parametrize("bits", [12, 16])
def test_a_jpeg_of_8_bits_in_a_file_of_more_is_of_8(tmp_path: Path, bits: int) -> None:
    header = dicom_header(pixels().shape, "MONOCHROME2", bits)
    content = encapsulate([jpeg(frame) for frame in pixels()])
    path = save(header, tmp_path / "a.dcm", content, JPEGBaseline8Bit)
    assert worst(frames_of(path), pixels()) <= 8


def test_jpeg_2000_of_8_bits_in_a_file_of_16_is_of_8(tmp_path: Path) -> None:
    header = dicom_header(pixels().shape, "MONOCHROME2", 16)
    content = encapsulate([codestream(frame) for frame in pixels()])
    path = save(header, tmp_path / "a.dcm", content, JPEG2000Lossless)
    np.testing.assert_array_equal(frames_of(path), pixels())


def test_jpeg_2000_of_16_bits_in_a_file_of_8_is_of_16(tmp_path: Path) -> None:
    encoded = [codestream(frame.astype(np.uint16) * 257) for frame in pixels()]
    header = dicom_header(pixels().shape, "MONOCHROME2")
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), JPEG2000Lossless)
    np.testing.assert_array_equal(frames_of(path), pixels())


@pytest.mark.parametrize("stored", [12, 16])
def test_jpeg_2000_of_16_bits_in_a_file_of_fewer(tmp_path: Path, stored: int) -> None:
    """The codestream may leave bits unused that the header does not count; it never uses more."""
    wide = pixels().astype(np.uint16) * (16 if stored == 12 else 257)
    encoded = [codestream(frame) for frame in wide]
    header = dicom_header(pixels().shape, "MONOCHROME2", 12)
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), JPEG2000Lossless)
    if stored == 12:
        assert worst(frames_of(path), pixels()) <= 1
    else:
        assert "states 12 bits per value, but holds" in refusal(path)


@pytest.mark.parametrize("stated", ["YBR_RCT", "YBR_ICT", "RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("jp2", [False, True])
def test_jpeg_2000_that_transforms_its_colours_itself_is_rgb(
    tmp_path: Path, stated: str, jp2: bool
) -> None:
    frames = red_square()
    encoded = [codestream(frame, mct=1, no_jp2=not jp2) for frame in frames]
    path = save(
        dicom_header(frames.shape, stated),
        tmp_path / "a.dcm",
        encapsulate(encoded),
        JPEG2000Lossless,
    )
    np.testing.assert_array_equal(frames_of(path), frames)


@pytest.mark.parametrize("stated", ["YBR_FULL", "RGB", "YBR_RCT"])
def test_jpeg_2000_without_a_transform_has_the_colours_of_the_header(
    tmp_path: Path, stated: str
) -> None:
    frames = red_square()
    stored = ybr(frames) if stated == "YBR_FULL" else frames
    encoded = [codestream(frame, mct=0) for frame in stored]
    path = save(
        dicom_header(frames.shape, stated),
        tmp_path / "a.dcm",
        encapsulate(encoded),
        JPEG2000Lossless,
    )
    assert worst(frames_of(path), frames) <= (4 if stated == "YBR_FULL" else 0)


@pytest.mark.parametrize("stated", [ExplicitVRLittleEndian, RLELossless, JPEG2000, "1.2.3.4.5"])
@pytest.mark.parametrize("held", ["JPEG", "JPEG 2000"])
def test_the_compression_is_seen_in_the_bytes(tmp_path: Path, stated: str, held: str) -> None:
    encoded = [(jpeg if held == "JPEG" else codestream)(f) for f in pixels()]
    header = dicom_header(pixels().shape, "MONOCHROME2")
    path = save(header, tmp_path / "a.dcm", encapsulate(encoded), JPEGBaseline8Bit)
    assert worst(frames_of(said_to_be(path, stated)), pixels()) <= 8


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("form", ["plain", "in items"])
def test_pixels_that_are_not_compressed_after_all_are_read(
    tmp_path: Path, syntax: str, form: str
) -> None:
    header = dicom_header(pixels().shape, "MONOCHROME2")
    content = pixels().tobytes()
    if form == "in items":
        content = encapsulate([frame.tobytes() for frame in pixels()])
        np.testing.assert_array_equal(
            frames_of(save(header, tmp_path / "a.dcm", content, syntax)), pixels()
        )
        return
    path = save(header, tmp_path / "a.dcm", content, ExplicitVRLittleEndian)
    np.testing.assert_array_equal(frames_of(said_to_be(path, syntax)), pixels())


@pytest.mark.parametrize("stated", ["RGB", "MONOCHROME2"])
def test_the_length_tells_how_many_values_an_uncompressed_pixel_has(
    tmp_path: Path, stated: str
) -> None:
    """SamplesPerPixel and PhotometricInterpretation contradict each other."""
    for values in (pixels(), red_square()):
        header = dicom_header(values.shape, stated)
        header.SamplesPerPixel = 1 if stated == "RGB" else 3
        header.PlanarConfiguration = 0
        path = save(header, tmp_path / "a.dcm", values.tobytes(), ExplicitVRLittleEndian)
        np.testing.assert_array_equal(frames_of(path), values)
    del header.NumberOfFrames
    cut_short = save(header, tmp_path / "b.dcm", values.tobytes()[:5000], ExplicitVRLittleEndian)
    refusal(cut_short)


def test_colours_that_are_not_halved_after_all_are_whole(tmp_path: Path) -> None:
    header = dicom_header(red_square().shape, "YBR_FULL_422")
    content = ybr(red_square()).tobytes()
    path = save(header, tmp_path / "a.dcm", content, ExplicitVRLittleEndian)
    assert worst(frames_of(path), red_square()) <= 4


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        ({"BitsStored": 8, "HighBit": 7}, "states 8 bits per value, but holds 3800"),
        ({"BitsStored": 24, "HighBit": 23}, "stores 24 bits in 16"),
        ({"SamplesPerPixel": 4}, "has 4 values per pixel"),
        ({"NumberOfFrames": -3}, "states -3 frames"),
        ({"Rows": None}, "lacks Rows"),
        (
            {"PhotometricInterpretation": "HSV", "SamplesPerPixel": 3},
            "holds 1 of its 5 stated frames",
        ),
    ],
)
def test_a_header_that_cannot_be_right_is_one_line(
    tmp_path: Path, tags: dict[str, Any], complaint: str
) -> None:
    values = np.full((LENGTH, 8, 8), 3800, np.uint16)
    path = changed(write_dicom(tmp_path / "a.dcm", values, bits=12), **tags)
    assert complaint in refusal(path)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, RLELossless, JPEG2000Lossless])
def test_the_order_of_planes_matters_to_uncompressed_pixels_only(
    tmp_path: Path, syntax: str
) -> None:
    frames = red_square()
    header = dicom_header(frames.shape, "RGB")
    if syntax == RLELossless:
        header.PixelData = frames.tobytes()
        header.compress(RLELossless)
        encoded = list(pydicom.encaps.generate_frames(header.PixelData, number_of_frames=LENGTH))
    else:
        encoded = [(jpeg if syntax == JPEGBaseline8Bit else codestream)(f) for f in frames]
    for planar in (0, 1, None):
        header.PlanarConfiguration = planar
        path = save(header, tmp_path / "a.dcm", encapsulate(encoded), syntax)
        inside = np.s_[:, 20:28, 20:36]
        assert worst(frames_of(path)[inside], frames[inside]) <= 8


# ---------------------------------------------------------------------------------------- palettes


def with_palette(
    tables: Sequence[bytes], descriptor: Sequence[int], segmented: bool = False
) -> Dataset:
    header = dicom_header((2, 4, 256), "PALETTE COLOR")
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", list(descriptor))
        name = f"{'Segmented' if segmented else ''}{colour}PaletteColorLookupTableData"
        setattr(header, name, table)
    return header


def shown(header: Dataset, tmp_path: Path, syntax: str = ExplicitVRLittleEndian) -> np.ndarray:
    """What each value from 0 to 255 looks like: (value, 3)."""
    values = np.tile(np.arange(256, dtype=np.uint8), (2, 4, 1))
    path = save(header, tmp_path / "a.dcm", values.tobytes(), syntax)
    found = frames_of(path)
    assert (found == found[:1, :1]).all()
    return found[0, 0].astype(int)


SEGMENTS = {
    "discrete": (0, 256, *(257 * n for n in range(256))),
    "linear": (0, 1, 0, 1, 255, 65535),
    "falling": (0, 1, 65535, 1, 255, 0),
    "discrete and linear": (0, 3, 0, 257, 514, 1, 125, 32896, 0, 2, 33000, 33400, 1, 126, 65535),
    "indirect": (0, 1, 0, 1, 63, 65535, 1, 64, 0, 2, 2, 6, 0, 0, 1, 7),  # copies the linear pair
}


@pytest.mark.parametrize("name", [name for name in SEGMENTS if name != "indirect"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_segmented_palettes_are_what_pydicom_expands(
    tmp_path: Path, name: str, syntax: str
) -> None:
    table = SEGMENTS[name]
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    packed = struct.pack(f"{order}{len(table)}H", *table)
    found = shown(with_palette([packed] * 3, (256, 0, 16), segmented=True), tmp_path, syntax)
    plain = with_palette([struct.pack(f"<{len(table)}H", *table)] * 3, (256, 0, 16), segmented=True)
    right = apply_color_lut(np.arange(256, dtype=np.uint8), plain) >> 8
    assert worst(found, right) <= 1


def test_a_segment_that_points_back_is_copied() -> None:
    """Two segments from byte 6 on, in the words after it: 0 up to 65535 and down again."""
    table = struct.pack("<16H", 0, 1, 0, 1, 63, 65535, 1, 64, 0, 2, 2, 6, 0, 0, 1, 7)
    header = with_palette([table] * 3, (1 + 63 + 64 + 63 + 64 + 1, 0, 16), segmented=True)
    levels = read_palette(header, True, False).colours[:, 0].astype(int)
    assert levels[63] == 255
    assert levels[127] == 0
    np.testing.assert_array_equal(
        levels[128:191], [round(n * 65535 / 63) >> 8 for n in range(1, 64)]
    )
    assert levels[254] == 0


def test_segments_of_8_bits_are_bytes(tmp_path: Path) -> None:
    """0, then 127 steps up to 254, then copies: one segment, from byte 3, twice."""
    table = bytes((0, 1, 0, 1, 127, 254, 1, 128, 126))
    found = shown(with_palette([table + b"\0"] * 3, (256, 0, 8), segmented=True), tmp_path)
    assert found[127].tolist() == [254] * 3
    assert found[255].tolist() == [126] * 3
    assert found[1].tolist() == [2] * 3


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ((1, 255, 65535), "begins with a linear segment"),
        ((0, 1, 0, 1, 200, 65535), "256 entries has segments of 201"),
        ((0, 1, 0, 7, 255, 65535), "kind 7"),
        ((0, 1, 0, 2, 1, 0, 0, 2, 1, 6, 0), "points at another one"),
        ((0, 60000, 0), "has segments of"),
        ((0, 1, 0, *(1, 65535, 7) * 20_000), "has segments of"),  # 1.3 billion entries
        ((0,), "has segments of 0"),
    ],
)
def test_a_damaged_segmented_palette_is_one_line(
    tmp_path: Path, table: tuple[int, ...], complaint: str
) -> None:
    packed = struct.pack(f"<{len(table)}H", *table)
    header = with_palette([packed] * 3, (256, 0, 16), segmented=True)
    values = np.zeros((2, 4, 256), np.uint8)
    path = save(header, tmp_path / "a.dcm", values.tobytes(), ExplicitVRLittleEndian)
    assert re.search(f"cannot be decoded.*({complaint}|Segmented)", refusal(path))


@pytest.mark.parametrize("form", ["bytes", "words", "words, 16 stated"])
@pytest.mark.parametrize("first", [0, 20])
@pytest.mark.parametrize("count", [256, 200])
def test_palettes_of_8_bits_lie_in_bytes_or_in_words(
    tmp_path: Path, form: str, first: int, count: int
) -> None:
    """Values before the first entry and after the last one look like these."""
    ramp = (np.arange(count) * 255 // (count - 1)).astype(np.uint8)
    table = ramp.tobytes() if form == "bytes" else ramp.astype("<u2").tobytes()
    header = with_palette([table] * 3, (count, first, 16 if "16" in form else 8))
    right = ramp[np.clip(np.arange(256) - first, 0, count - 1)]
    np.testing.assert_array_equal(shown(header, tmp_path)[:, 1], right)


def test_a_palette_of_65536_entries_says_0(tmp_path: Path) -> None:
    table = np.arange(65536).astype("<u2").tobytes()
    values = (pixels().astype(np.uint16) * 257).astype("<u2")
    header = dicom_header(values.shape, "PALETTE COLOR", 16)
    for colour in ("Red", "Green", "Blue"):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [0, 0, 16])
        setattr(header, f"{colour}PaletteColorLookupTableData", table)
    path = save(header, tmp_path / "a.dcm", values.tobytes(), ExplicitVRLittleEndian, "OW")
    np.testing.assert_array_equal(frames_of(path)[..., 2], pixels())


# ------------------------------------------------------------------------------------ bits in use


@pytest.mark.parametrize(
    ("values", "tags"),
    [
        (pixels().astype(np.uint16), {"bits": 16}),
        (pixels().astype(np.uint16), {"bits": 12}),
        (pixels().astype(np.uint16) * 16, {"bits": 16}),
        (pixels().astype(np.int16), {"bits": 16, "PixelRepresentation": 1}),
        (red_square().astype(np.uint16), {"bits": 16, "meaning": "RGB"}),
        (pixels().astype(np.uint16), {"bits": 16, "meaning": "MONOCHROME1"}),
    ],
)
def test_values_that_leave_most_of_their_bits_unused_are_refused_without_a_window(
    tmp_path: Path, values: np.ndarray, tags: dict[str, Any]
) -> None:
    """Stretched from all of their bits, they would be stored as a black or a gray picture."""
    assert ": export it with as many bits" in refusal(
        write_dicom(tmp_path / "a.dcm", values, **tags)
    )


def test_a_dark_first_frame_says_nothing_of_the_others(tmp_path: Path) -> None:
    values = np.zeros((3, 8, 8), np.uint16)
    values[2] = 4095
    path = write_dicom(tmp_path / "a.dcm", values, bits=12, WindowCenter=100, WindowWidth=100)
    assert frames_of(path)[:, 0, 0].tolist() == [0, 0, 255]
    assert [n for n, _ in read_frames(path, True, False, {0})] == [0]


# ------------------------------------------------------------------------------------------- films


def film(codec: str, container: str, frames: np.ndarray, **options: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate, stream.options = 4_000_000, options
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return file.getvalue()


FILMS = [
    ("mpeg2video", "mpeg2video", MPEG2MPML),
    ("mpeg2video", "mpegts", MPEG2MPML),
    ("mpeg2video", "mpeg", MPEG2MPML),
    ("libx264", "h264", MPEG4HP41),
    ("libx264", "mp4", MPEG4HP41),
    ("libx264", "mpegts", MPEG4HP41),
    ("libx265", "hevc", HEVCMP51),
    ("libx265", "mp4", HEVCMP51),
]


@pytest.mark.parametrize(("codec", "container", "syntax"), FILMS)
@pytest.mark.parametrize("number", [12, None])
def test_films_in_dicom_are_read(
    tmp_path: Path, codec: str, container: str, syntax: str, number: int | None
) -> None:
    frames = np.repeat(pixels(), 2, axis=0)[[0, *range(10), 9]]
    options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
    content = film(codec, container, frames, **options)
    header = dicom_header((12, 48, 64, 3), "YBR_PARTIAL_420")
    header.NumberOfFrames = number or ""
    path = save(
        header,
        tmp_path / "a.dcm",
        encapsulate([content], fragments_per_frame=3, has_bot=False),
        syntax,
    )
    found = frames_of(path)
    assert len(found) == 12
    assert np.abs(found.astype(int) - frames).mean() < 4
    some = dict(read_frames(path, True, False, {7}))
    np.testing.assert_array_equal(some[7], found[7])
    assert "holds 12 of its 13 stated frames" in refusal(changed(path, NumberOfFrames=13))


@pytest.mark.parametrize(
    ("stated", "shape"),
    [
        ([1, 2], (48, 128)),
        ([4, 3], (64, 64)),
        *((no_ratio, (48, 64)) for no_ratio in ([1, 1], [0, 0], [1, 99], 2, [1, 2, 3], "")),
    ],
)
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, stated: list[int] | int | str, shape: tuple[int, int]
) -> None:
    """Height and width of a pixel."""
    ramp = np.add.outer(2 * np.arange(48), 2 * np.arange(64)).astype(np.uint8)[None]
    path = write_dicom(tmp_path / "a.dcm", ramp, PixelAspectRatio=stated)
    frame = frames_of(path)[0]
    right = np.asarray(Image.fromarray(ramp[0]).resize(shape[::-1], Image.Resampling.BILINEAR))
    assert worst(frame, right) <= 2
    masked = changed(path, SequenceOfUltrasoundRegions=[region(0, 24, 63, 47)])
    (_, frame), *_ = read_frames(masked, False, True)
    assert not frame[: shape[0] // 2 - 2].any()
    assert worst(frame[shape[0] // 2 + 2 :], right[shape[0] // 2 + 2 :]) <= 2


def test_a_film_that_lacks_bytes_is_refused(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64), np.uint8)
    content = film("libx264", "mpegts", frames)
    middle = len(content) // 2 // 188 * 188  # a packet of the transport stream
    for lost in (0, 188):
        header = dicom_header((12, 48, 64, 3), "YBR_PARTIAL_420")
        pixel_data = encapsulate([content[:middle] + content[middle + lost :]], has_bot=False)
        path = save(header, tmp_path / f"{lost}.dcm", pixel_data, MPEG4HP41)
    assert len(frames_of(tmp_path / "0.dcm")) == 12
    assert "cannot be decoded (a damaged film)" in refusal(path)


# ---------------------------------------------------------------------------------- text that stays

WHOLE = [region(0, 0, 63, 47)]
HALVES = [region(0, 0, 31, 47), region(32, 0, 64, 48)]
MOST = [region(0, 0, 63, 46)]  # all but a row, which has no room for text
FAN = [region(0, 8, 63, 47)]


def masked_study(root: Path) -> Path:
    """A study of six videos with an area each: where regions leave no room for text, or do."""
    areas = {"whole": WHOLE, "halves": HALVES, "fan": FAN, "none": []}
    lines = []
    for number in range(6):
        for area, regions in areas.items():
            write_dicom(
                root / f"p{number}/1/{area}.dcm",
                pixels(10 * number + len(area)),
                SequenceOfUltrasoundRegions=regions,
            )
            lines.append(f"p{number}/1/{area};{number % 4}")
    (root / "Annotations.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize(
    ("regions", "right"), [(WHOLE, True), (HALVES, True), (MOST, False), (FAN, False), ([], False)]
)
def test_a_region_of_the_whole_frame_masks_nothing(
    tmp_path: Path, regions: list[Dataset], right: bool
) -> None:
    path = write_dicom(tmp_path / "a.dcm", pixels(), SequenceOfUltrasoundRegions=regions)
    notes: list[str] = []
    list(dicom(path).frames("L", note=notes.append))
    assert notes == []
    if regions:
        list(dicom(path, mask_text=True).frames("L", note=notes.append))
    assert ["masks nothing" in sentence for sentence in notes] == [True] * right


def test_prepare_and_predict_name_the_videos_whose_text_is_not_masked(tmp_path: Path) -> None:
    exams = masked_study(tmp_path / "exams")
    result = run(settings(exams, tmp_path / "cache", mask_text=True))
    [note] = [note for note in result.notes if "masks nothing" in note]
    assert note.startswith("p0/1/halves.dcm and 11 more: its ultrasound region is the whole frame")
    assert set(result.numbers["notes"]) == {
        f"p{n}/1/{area}.dcm" for n in range(6) for area in ("halves", "whole")
    }
    # Nothing is decoded again, and the note is shown again.
    assert note in run(settings(exams, tmp_path / "cache", mask_text=True)).notes
    assert not run(settings(exams, tmp_path / "other")).numbers["notes"]
    train.run(tiny(tmp_path / "cache", epochs=1), silent)
    config = PredictConfig(
        paths=(exams / "p0",), cache=tmp_path / "cache", page=False, device="cpu", threads=1
    )
    notes = [note for note in predict.run(config, silent).notes if "masks nothing" in note]
    assert [note.split(":")[0] for note in notes] == ["1/halves.dcm", "1/whole.dcm"]


# -------------------------------------------------------------------------------------- remedies


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            b"\x01\x02\x03\x04" * 50,
            "unsupported compression: export it uncompressed, or as a video",
        ),
        (jpeg(pixels()[0]).replace(b"\x08\x00\x30", b"\x0c\x00\x30", 1), "pylibjpeg-libjpeg"),
        (jpeg(pixels()[0]).replace(b"\xff\xc0", b"\xff\xc3", 1), "pylibjpeg-libjpeg"),
        (jpeg(pixels()[0]).replace(b"\xff\xc0", b"\xff\xf7", 1), "pylibjpeg-libjpeg"),
        (
            codestream(pixels()[0]).replace(b"\xff\x52", b"\xff\x50\x00\x06\0\0\0\0\xff\x52", 1),
            "pylibjpeg-openjpeg",
        ),
    ],
)
def test_a_remedy_is_one_that_helps(tmp_path: Path, content: bytes, complaint: str) -> None:
    header = dicom_header((1, 48, 64), "MONOCHROME2", 12)
    path = save(header, tmp_path / "a.dcm", encapsulate([content]), JPEGBaseline8Bit)
    assert complaint in refusal(said_to_be(path, "1.2.840.113619.5.2"))  # a maker's own


# ------------------------------------------------------------------------------- pydicom's own files


def own_files(classes: Callable[[str], bool]) -> list[Path]:
    """Files with pixels that come with pydicom, of some classes."""
    root = Path(str(get_testdata_file("CT_small.dcm", download=False))).parents[1]
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file():
            try:
                header = pydicom.dcmread(path)
            except Exception:  # they are not all DICOM
                continue
            name = getattr(header.get("SOPClassUID"), "name", "")
            if "PixelData" in header and classes(name):
                found.append(path)
    return found


def ultrasound_or_capture(name: str) -> bool:
    return name.startswith(("Ultrasound", "Secondary Capture"))


# Why lus does not store what pydicom shows.
REFUSED = {
    "SC_rgb_rle_32bit.dcm": "32 bits per value",
    "SC_rgb_rle_32bit_2frame.dcm": "32 bits per value",
    # Of a bone scan: it would come out black.
    "JPEG2000.dcm": "its largest value is 275",
}


def as_pydicom_shows(path: Path) -> np.ndarray:
    """(frame, row, column, sample) of 8 bits. Raises whatever pydicom does."""
    header = pydicom.dcmread(path)
    array = header.pixel_array
    if header.PhotometricInterpretation == "PALETTE COLOR":
        array = apply_color_lut(array, header) >> 8
    elif array.itemsize == 2:
        array = eight_bits(array, header.BitsStored, bool(header.PixelRepresentation))
    return array.reshape(int(header.get("NumberOfFrames") or 1), header.Rows, header.Columns, -1)


@pytest.mark.parametrize("path", own_files(ultrasound_or_capture), ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore")
def test_every_ultrasound_and_capture_of_pydicom_looks_as_pydicom_shows_it(path: Path) -> None:
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    if path.name in REFUSED:
        assert REFUSED[path.name] in refusal(path)
        return
    try:
        right = as_pydicom_shows(path)
    except Exception:  # damaged, or no decoder: then lus has no other
        refusal(path)
        return
    found = frames_of(path)
    # pydicom changes YBR to RGB in floating point, and other JPEG libraries than Pillow's round
    # otherwise.
    limit = 4 if "ybr" in path.name or "jpeg" in path.name or "+eb+cy" in path.name else 0
    assert worst(found.reshape(right.shape), right) <= limit


def test_the_comparison_with_pydicom_is_not_empty() -> None:
    files = own_files(ultrasound_or_capture)
    assert len(files) > 40
    assert sum("Ultrasound" in pydicom.dcmread(f).SOPClassUID.name for f in files) >= 5
