"""Sources: every kind of file yields the same frames, or an error."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest
import scipy.io
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from lus_cli.attention import explained
from lus_cli.cache.chunks import FrameFormat
from lus_cli.cache.decoding import source_key
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import AttentionConfig, PrepareConfig
from lus_cli.errors import LusError, UsageError
from lus_cli.progress import Result, silent
from lus_cli.steps import attention, prepare, train
from lus_cli.study.finding import find_sources
from lus_cli.study.ids import VideoId
from lus_cli.study.sources import DicomFile, MatFile, Mode, Source, open_source
from lus_cli.study.study import StudyFiles, read_study
from lus_cli.study.video_writing import write_video
from tests.conftest import tiny

ROWS, COLUMNS, LENGTH = 48, 64, 5
VIDEO = VideoId("p0", "1", "a")
NAME = "Rossi^Anna"


def pixels(seed: int = 0, length: int = LENGTH) -> np.ndarray:
    """Smooth gray frames, each brighter than the one before: (frame, row, column) uint8."""
    corners = np.random.default_rng(seed).integers(0, 60, (3, 4), np.uint8)
    smooth = np.asarray(Image.fromarray(corners).resize((COLUMNS, ROWS), Image.Resampling.BILINEAR))
    return np.stack([smooth + np.uint8(30 * number + 10) for number in range(length)])


def coloured(gray: np.ndarray) -> np.ndarray:
    """(frame, row, column) as (frame, row, column, 3), red half as strong."""
    return np.stack([gray // 2, gray, gray], axis=-1)


def decoded(source: Source, mode: Mode = "L", only: set[int] | None = None) -> np.ndarray:
    return np.stack([np.asarray(image) for _, image in source.frames(mode, only)])


# ------------------------------------------------------------------------------------ writing them


# In a JPEG: the colours were transformed to YCbCr. It takes the place of the 18 bytes of JFIF.
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"


def dicom_header(shape: Sequence[int], meaning: str, bits: int = 8) -> Dataset:
    """A multi-frame ultrasound of a patient with a name, without pixels."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID = UltrasoundMultiFrameImageStorage
    header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.PatientName, header.PatientID, header.Modality = NAME, "ID-4711", "US"
    header.InstitutionName, header.StudyDate = "Ospedale Maggiore", "20190304"
    header.NumberOfFrames, header.Rows, header.Columns = shape[:3]
    header.SamplesPerPixel = shape[3] if len(shape) == 4 else 1
    if header.SamplesPerPixel == 3:
        header.PlanarConfiguration = 0
    header.PhotometricInterpretation = meaning
    header.BitsAllocated = 16 if bits > 8 else 8
    header.BitsStored, header.HighBit, header.PixelRepresentation = bits, bits - 1, 0
    return header


def write_dicom(
    path: Path, values: np.ndarray, meaning: str = "MONOCHROME2", bits: int = 8, **tags: Any
) -> Path:
    header = dicom_header(values.shape, meaning, bits)
    for name, value in tags.items():
        setattr(header, name, value)
    header.PixelData = values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def write_compressed(
    path: Path, values: np.ndarray, syntax: str, meaning: str, adobe: bool = False
) -> Path:
    """The frames as JPEG, with an Adobe segment or a JFIF one, or JPEG 2000 in DICOM."""
    kind, settings = (
        ("JPEG", {"quality": 95})
        if syntax == JPEGBaseline8Bit
        else ("JPEG2000", {"irreversible": False, "no_jp2": True})
    )
    frames = []
    for frame in values:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, kind, **settings)
        content = file.getvalue()
        frames.append(content[:2] + ADOBE + content[20:] if adobe else content)
    header = dicom_header(values.shape, meaning)
    header.file_meta.TransferSyntaxUID = syntax
    header.PixelData = encapsulate(frames)
    header.save_as(path, enforce_file_format=True)
    return path


def region(left: int, top: int, right: int, bottom: int, kind: int = 1) -> Dataset:
    box = Dataset()
    box.RegionSpatialFormat = kind
    box.RegionLocationMinX0, box.RegionLocationMinY0 = left, top
    box.RegionLocationMaxX1, box.RegionLocationMaxY1 = right, bottom
    return box


def write_mat(path: Path, name: str, array: np.ndarray, version: str) -> Path:
    """An array in MATLAB's order of axes, as MATLAB saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            file[name] = array.T
        with path.open("r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    else:
        scipy.io.savemat(path, {name: array}, do_compression=version == "5 compressed")
    return path


def write_mat_video(path: Path, frames: np.ndarray, version: str = "5") -> Path:
    """(frame, row, column, 3) as `frames`, (row, column, 3, frame)."""
    return write_mat(path, "frames", frames.transpose(1, 2, 3, 0), version)


def cumulative(scores: Sequence[int]) -> np.ndarray:
    """Score_matrix of frame scores: (3, frame)."""
    return np.array([[float(score > row) for score in scores] for row in range(3)])


def dicom(path: Path, mask_text: bool = False) -> DicomFile:
    return DicomFile(VIDEO, path.parent, path.name, mask_text)


# ------------------------------------------------------------------------------------------- DICOM


def stored_as(meaning: str, gray: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The values and tags with which a DICOM file of some photometric interpretation shows `gray`."""
    if meaning == "MONOCHROME1":
        return 255 - gray, {}
    if meaning == "12 bits":
        return np.round(gray * (4095 / 255)).astype(np.uint16), {"bits": 12}
    if meaning == "16 bits, signed":
        signed = (gray.astype(np.int32) * 257 - 32768).astype(np.int16)
        return signed, {"bits": 16, "PixelRepresentation": 1}
    if meaning == "RGB":
        return coloured(gray), {}
    if meaning == "RGB, by planes":
        planes = np.ascontiguousarray(coloured(gray).transpose(0, 3, 1, 2))
        return planes.reshape(coloured(gray).shape), {"PlanarConfiguration": 1}
    if meaning == "YBR_FULL":
        images = [Image.fromarray(frame).convert("YCbCr") for frame in coloured(gray)]
        return np.stack([np.asarray(image) for image in images]), {}
    if meaning == "YBR_FULL_422":
        full, _ = stored_as("YBR_FULL", gray)
        pairs = [full[:, :, 0::2, 0], full[:, :, 1::2, 0], full[:, :, 0::2, 1], full[:, :, 0::2, 2]]
        return np.stack(pairs, axis=-1).reshape(*gray.shape, 2), {
            "SamplesPerPixel": 3,
            "PlanarConfiguration": 0,
        }
    if meaning.startswith("PALETTE COLOR"):
        bits = 16 if "16" in meaning else 8
        ramp = np.arange(256, dtype=f"u{bits // 8}") * (257 if bits == 16 else 1)
        tags: dict[str, Any] = {}
        for colour, table in (("Red", ramp // 2), ("Green", ramp), ("Blue", ramp)):
            tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
            tags[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
        return gray, tags
    return gray, {}


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "meaning",
    [
        "MONOCHROME2",
        "MONOCHROME1",
        "12 bits",
        "16 bits, signed",
        "RGB",
        "RGB, by planes",
        "YBR_FULL",
        "YBR_FULL_422",
        "PALETTE COLOR",
        "PALETTE COLOR, 16 bits",
    ],
)
def test_every_way_to_store_a_colour_shows_the_same_frame(
    tmp_path: Path, meaning: str, mode: Mode
) -> None:
    gray = pixels()
    values, tags = stored_as(meaning, gray)
    word = meaning.partition(",")[0] if not meaning[0].isdigit() else "MONOCHROME2"
    path = write_dicom(tmp_path / "a.dcm", values, word, **tags)
    plain = word.startswith("MONOCHROME")
    expected = [Image.fromarray(f).convert(mode) for f in (gray if plain else coloured(gray))]
    found = decoded(dicom(path), mode).astype(int)
    # 8 bits of YCbCr and 4:2:2 lose a little; gray loses nothing.
    error = np.abs(found - np.stack([np.asarray(image) for image in expected])).max()
    assert error <= (4 if "YBR" in meaning else 1 if meaning == "PALETTE COLOR" else 0)


@pytest.mark.parametrize(
    ("syntax", "meaning", "largest_error"),
    [
        (JPEGBaseline8Bit, "YBR_FULL_422", 8),
        (JPEGBaseline8Bit, "MONOCHROME2", 8),
        (JPEG2000Lossless, "YBR_RCT", 0),
        (JPEG2000Lossless, "MONOCHROME2", 0),
        (RLELossless, "RGB", 0),
        (RLELossless, "MONOCHROME2", 0),
    ],
)
def test_compressed_frames_come_out_in_their_order(
    tmp_path: Path, syntax: str, meaning: str, largest_error: int
) -> None:
    gray = pixels()
    values = gray if meaning == "MONOCHROME2" else coloured(gray)
    path = tmp_path / "a.dcm"
    if syntax == RLELossless:
        dataset = pydicom.dcmread(write_dicom(path, values, meaning))
        dataset.compress(RLELossless)
        dataset.save_as(path)
    else:
        write_compressed(path, values, syntax, meaning)
    expected = np.stack([np.asarray(Image.fromarray(frame).convert("RGB")) for frame in values])
    found = decoded(dicom(path), "RGB")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= largest_error


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("examples_ybr_color.dcm", 30),
        ("examples_rgb_color.dcm", 1),
        ("examples_jpeg2k.dcm", 1),
        ("examples_palette.dcm", 1),
        ("SC_rgb_rle_2frame.dcm", 2),
        ("SC_rgb_dcmtk_+eb+cr.dcm", 1),
        ("SC_ybr_full_422_uncompressed.dcm", 1),
        ("ExplVR_BigEnd.dcm", 1),
    ],
)
def test_pydicoms_own_files_look_as_pydicom_shows_them(name: str, length: int) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    dataset = pydicom.dcmread(path)
    shown = dataset.pixel_array.reshape(length, dataset.Rows, dataset.Columns, -1)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        shown = pydicom.pixels.apply_color_lut(shown[..., 0], dataset) >> 8
    assert np.abs(decoded(dicom(path), "RGB").astype(int) - shown).max() <= 2
    gray = np.stack([np.asarray(Image.fromarray(f.astype(np.uint8)).convert("L")) for f in shown])
    # The stored luminance is not that of the RGB where black was clipped.
    assert np.abs(decoded(dicom(path), "L").astype(int) - gray).max() <= 6


def test_a_jpeg_that_names_its_colours_as_adobe_does_keeps_them(tmp_path: Path) -> None:
    """Pillow makes RGB of it, and pydicom goes on calling it YBR."""
    frame = np.full((64, 96, 3), 128, np.uint8)
    frame[16:48, 16:48] = (255, 0, 0)

    for adobe in (False, True):
        path = tmp_path / f"{adobe}.dcm"
        write_compressed(path, np.stack([frame] * 2), JPEGBaseline8Bit, "YBR_FULL_422", adobe=adobe)
        colours = decoded(dicom(path), "RGB")
        assert np.abs(colours[:, 4, 4].astype(int) - 128).max() <= 3
        assert np.abs(colours[:, 32, 32].astype(int) - (255, 0, 0)).max() <= 6
        assert np.abs(decoded(dicom(path))[:, 32, 32].astype(int) - 76).max() <= 4


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        ({"bits": 16, "WindowCenter": 128, "WindowWidth": 256}, "its largest value is 256"),
        (
            {"bits": 12, "WindowCenter": [90, 100], "WindowWidth": [60, 80]},
            "its largest value is 140",
        ),
        (
            {"bits": 8, "BitsAllocated": 16, "HighBit": 15},
            "stores its 8 bits from bit 15 downwards",
        ),
    ],
)
def test_bits_that_would_leave_a_black_picture_are_refused(
    tmp_path: Path, tags: dict[str, Any], complaint: str
) -> None:
    values = np.full((2, 8, 8), 131, np.uint16)
    with pytest.raises(LusError, match=complaint):
        decoded(dicom(write_dicom(tmp_path / "a.dcm", values, **tags)))


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"WindowCenter": 100, "WindowWidth": 80},  # the pixels are brighter
        {"WindowCenter": 127.5, "WindowWidth": 255, "RescaleSlope": 255 / 4095},
        {"WindowCenter": None, "WindowWidth": None, "HighBit": None},
    ],
)
def test_a_window_changes_nothing_where_the_bits_are_used(
    tmp_path: Path, tags: dict[str, Any]
) -> None:
    values = np.full((2, 8, 8), 2048, np.uint16)
    shown = decoded(dicom(write_dicom(tmp_path / "a.dcm", values, bits=12, **tags)))
    assert (shown == 128).all()


def test_a_gray_jpeg_with_an_adobe_segment_is_inverted_where_it_says_so(tmp_path: Path) -> None:
    values = np.full((2, 32, 32), 50, np.uint8)
    path = tmp_path / "a.dcm"
    write_compressed(path, values, JPEGBaseline8Bit, "MONOCHROME1", adobe=True)
    assert np.abs(decoded(dicom(path)).astype(int) - 205).max() <= 2


@pytest.mark.parametrize("factor", [1, 257])
def test_palettes_of_16_bits_may_hold_8(tmp_path: Path, factor: int) -> None:
    values = np.tile(np.arange(256, dtype=np.uint8), (2, 4, 1))
    table = (np.arange(256) * factor).astype("<u2").tobytes()
    tags: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = table
    shown = decoded(dicom(write_dicom(tmp_path / "a.dcm", values, "PALETTE COLOR", **tags)), "RGB")
    np.testing.assert_array_equal(shown, np.stack([values] * 3, axis=-1))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "no decoder for JPEG Lossless"),
        ("MR_small_jpeg_ls_lossless.dcm", "no decoder for JPEG-LS"),
        ("MR_truncated.dcm", "holds 0 of its 1 stated frames"),
        ("test-SR.dcm", "contains no picture"),
        ("rtdose.dcm", "32 bits per value"),
        ("badVR.dcm", "cannot be decoded"),
        ("no_meta.dcm", "is not a DICOM file"),
        ("meta_missing_tsyntax.dcm", "lacks Rows"),
    ],
)
def test_a_dicom_that_cannot_be_read_is_one_line(name: str, complaint: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    with pytest.raises(LusError, match=complaint) as caught:
        decoded(dicom(path))
    assert "\n" not in str(caught.value)


def test_a_dicom_too_large_to_be_true_is_not_decoded(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", pixels(), Rows=60_000, Columns=60_000)
    with pytest.raises(LusError, match="frames of 60000x60000"):
        decoded(dicom(path))


@pytest.mark.parametrize("color", [False, True])
def test_masked_frames_are_black_outside_the_region_and_untouched_inside(
    tmp_path: Path, color: bool
) -> None:
    gray = pixels()
    values, meaning = (coloured(gray), "RGB") if color else (gray, "MONOCHROME2")
    regions = [region(8, 10, 39, 29), region(0, 40, 63, 47, kind=4)]  # kind 4: an ECG
    path = write_dicom(tmp_path / "a.dcm", values, meaning, SequenceOfUltrasoundRegions=regions)
    mode: Mode = "RGB" if color else "L"
    plain, masked = decoded(dicom(path), mode), decoded(dicom(path, mask_text=True), mode)
    np.testing.assert_array_equal(masked[:, 10:30, 8:40], plain[:, 10:30, 8:40])
    masked[:, 10:30, 8:40] = 0
    assert not masked.any()
    assert plain.min() > 0


@pytest.mark.parametrize(
    ("regions", "complaint"),
    [
        ([], "states no ultrasound region"),
        ([region(0, 0, 20, 20, kind=4)], "states no ultrasound region"),
        ([region(8, 10, 200, 29)], "is not inside its 64x48 frames"),
        ([region(30, 10, 8, 29)], "is not inside"),
    ],
)
def test_a_video_whose_text_cannot_be_masked_is_refused(
    tmp_path: Path, regions: list[Dataset], complaint: str
) -> None:
    path = write_dicom(tmp_path / "a.dcm", pixels(), SequenceOfUltrasoundRegions=regions)
    with pytest.raises(LusError, match=complaint):
        decoded(dicom(path, mask_text=True))
    assert len(decoded(dicom(path))) == LENGTH


@pytest.mark.parametrize("name", ["examples_palette.dcm", "examples_ybr_color.dcm"])
def test_regions_of_frames_that_were_scaled_down_are_not_trusted(name: str) -> None:
    """pydicom made its examples smaller, and left their regions as they were."""
    path = Path(str(get_testdata_file(name, download=False)))
    with pytest.raises(LusError, match="is not inside its"):
        decoded(dicom(path, mask_text=True))


# -------------------------------------------------------------------------------------- MATLAB files

VERSIONS = ["5", "5 compressed", "7.3"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [LENGTH, 1])
def test_mat_frames_come_out_upright_and_in_order(
    tmp_path: Path, version: str, length: int
) -> None:
    frames = coloured(pixels(length=length))
    path = tmp_path / "x.mat"
    # MATLAB drops a last axis of one.
    array = frames.transpose(1, 2, 3, 0)
    write_mat(path, "frames", array[..., 0] if length == 1 else array, version)
    source = MatFile(VIDEO, tmp_path, "x.mat")
    np.testing.assert_array_equal(decoded(source, "RGB"), frames)
    assert [number for number, _ in source.frames("L")] == list(range(length))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("short", [0, 1])
def test_the_highest_frame_score_is_found(tmp_path: Path, version: str, short: int) -> None:
    write_mat_video(tmp_path / "x.mat", coloured(pixels()), version)
    matrix = cumulative([0, 1, 2, 1, 0][: LENGTH - short])
    write_mat(tmp_path / "x_score.mat", "Score_matrix", matrix, version)
    assert MatFile(VIDEO, tmp_path, "x.mat").highest_score() == 2


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [
        (cumulative([0, 1, 2]), "scores 3 frames, but the video has 5"),
        (cumulative([0] * 6), "scores 6 frames, but the video has 5"),
        (cumulative([0] * 5).T, r"must be numbers \(3, frame\)"),
        (cumulative([0] * 5) + 2, "not binary and cumulative"),
        (np.array([[1, 0, 0, 1, 1], [0] * 5, [1, 0, 0, 1, 1]]), "not binary and cumulative"),
        (None, "has no scores"),
    ],
)
def test_scores_that_cannot_be_right_are_refused(
    tmp_path: Path, matrix: np.ndarray | None, complaint: str
) -> None:
    write_mat_video(tmp_path / "x.mat", coloured(pixels()))
    if matrix is not None:
        write_mat(tmp_path / "x_score.mat", "Score_matrix", matrix, "5")
    with pytest.raises(LusError, match=complaint):
        MatFile(VIDEO, tmp_path, "x.mat").highest_score()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("video", np.zeros((4, 4, 3, 2), np.uint8), "has no frames: it has video"),
        ("frames", np.zeros((4, 4, 3, 2)), "must be uint8"),
        ("frames", np.zeros((4, 4, 2), np.uint8), "must be uint8"),
        ("frames", np.zeros((4, 4, 4, 2), np.uint8), "must be uint8"),
    ],
)
def test_a_mat_file_of_something_else_is_refused(
    tmp_path: Path, version: str, name: str, array: np.ndarray, complaint: str
) -> None:
    write_mat(tmp_path / "x.mat", name, array, version)
    with pytest.raises(LusError, match=complaint):
        decoded(MatFile(VIDEO, tmp_path, "x.mat"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_damaged_mat_file_is_one_line(tmp_path: Path, version: str) -> None:
    path = write_mat_video(tmp_path / "x.mat", coloured(pixels()), version)
    content = path.read_bytes()
    for cut in (0, 50, 700, len(content) // 2):
        path.write_bytes(content[:cut])
        with pytest.raises(LusError) as caught:
            decoded(MatFile(VIDEO, tmp_path, "x.mat"))
        assert "\n" not in str(caught.value)


def test_a_mat_file_that_points_at_another_file_is_refused(tmp_path: Path) -> None:
    write_mat_video(tmp_path / "other.mat", coloured(pixels()), "7.3")
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file["frames"] = h5py.ExternalLink("other.mat", "frames")
    with pytest.raises(LusError, match="has no frames"):
        decoded(MatFile(VIDEO, tmp_path, "x.mat"))


# --------------------------------------------------------------------------------- a study of all kinds


def write_area(folder: Path, kind: str, gray: np.ndarray) -> None:
    """A video of some kind as area `kind` of the exam in `folder`."""
    patient, exam = folder.parts[-2:]
    if kind == "frames":
        (folder / kind).mkdir(parents=True)
        for number, frame in enumerate(gray):
            Image.fromarray(frame).save(folder / kind / f"Frame_{number}.png")
    elif kind == "mat":
        write_mat_video(folder / f"LUS_{patient}_{exam}_mat.mat", coloured(gray))
    elif kind == "dicom":
        box = [region(0, 10, COLUMNS - 1, ROWS - 1)]
        write_dicom(folder / "dicom.dcm", gray, SequenceOfUltrasoundRegions=box)
    elif kind == "bare":  # as many scanners export: a folder, and a file without suffix
        write_dicom(folder / "bare" / "IM_0001", gray)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / "video.gif", (np.stack([f, f, f], axis=-1) for f in gray), 25)


KINDS = ("bare", "dicom", "frames", "mat", "video")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 here")
def test_a_video_file_whose_name_cannot_be_kept_is_named(tmp_path: Path) -> None:
    write_area(tmp_path / "p0/1/a", "video", pixels())
    [path] = (tmp_path / "p0/1/a").iterdir()
    path.rename(path.with_name(os.fsdecode(b"Fr\xe9d\xe9ric") + path.suffix))
    sources, problems = find_sources(tmp_path, mask_text=False)
    assert not sources
    assert len(problems) == 1
    assert "its name is not valid UTF-8: rename it" in problems[0]


def make_tree(root: Path, patients: int = 4) -> Path:
    """A study in which every patient has an area of each kind."""
    lines = []
    for patient in range(patients):
        for seed, kind in enumerate(KINDS):
            folder = root / f"p{patient}" / "1"
            write_area(folder, kind, pixels(10 * patient + seed))
            lines.append(f"p{patient}/1/{kind};{(patient + seed) % 4}")
    (root / "Annotations.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it, do not change it."""
    return make_tree(tmp_path_factory.mktemp("tree") / "exams")


def settings(root: Path, cache: Path, **changes: Any) -> PrepareConfig:
    values = {"size": 64, "letterbox": True, "workers": 1, "folds": 2} | changes
    return PrepareConfig(exams=root, cache=cache, **values)  # type: ignore[arg-type]


def run(config: PrepareConfig) -> Result:
    """`lus prepare`, without its pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "draw_figures", lambda *_: {})
        return prepare.run(config, silent)


@pytest.fixture(scope="module")
def prepared(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("prepared")
    assert run(settings(tree, cache)).problems == []
    return cache


def test_a_mixture_is_one_study(tree: Path, prepared: Path) -> None:
    videos = VideoCache(prepared / "videos.h5")
    assert [video.area for video in videos.ids[:5]] == list(KINDS)
    assert videos.source_kinds[:5] == ["dicom", "dicom", "frames", "mat", "video"]
    assert videos.source_paths[:5] == [
        "p0/1/bare/IM_0001",
        "p0/1/dicom.dcm",
        "p0/1/frames",
        "p0/1/LUS_p0_1_mat.mat",
        "p0/1/video.gif",
    ]
    for index, video in enumerate(videos.ids):
        expected = pixels(10 * int(video.patient[1]) + KINDS.index(video.area))
        stored = videos.read(index)[:, 8:56]  # letterboxed: bars above and below
        largest_error = 3 if video.area == "video" else 1 if video.area == "mat" else 0
        assert (
            np.abs(stored.astype(int) - coloured_gray(expected, video.area)).max() <= largest_error
        )
        assert videos.frame_numbers(index).tolist() == list(range(LENGTH))


def coloured_gray(gray: np.ndarray, area: str) -> np.ndarray:
    """What is left of `gray` where it went through colour."""
    if area != "mat":
        return gray
    return np.stack([np.asarray(Image.fromarray(f).convert("L")) for f in coloured(gray)])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("area", KINDS)
def test_some_frames_are_those_of_the_whole(tree: Path, area: str, mode: Mode) -> None:
    found, _ = find_sources(tree, mask_text=False)
    source = next(source for source in found if source.id.area == area)
    whole = dict(source.frames(mode))
    some = dict(source.frames(mode, {3, 1, 99}))
    assert list(some) == [1, 3]
    for number, image in some.items():
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), np.asarray(whole[number]))
    assert list(source.frames(mode, set())) == []


def test_the_key_is_of_the_files_and_of_what_changes_their_frames(
    tree: Path, tmp_path: Path
) -> None:
    frame_format = FrameFormat(32, False, False)

    def keys(root: Path, mask_text: bool = False) -> dict[str, str]:
        found, _ = find_sources(root, mask_text)
        return {source.id.area: source_key(source, frame_format) for source in found[:5]}

    before = keys(tree)
    assert len(set(before.values())) == len(KINDS)
    moved = shutil.copytree(tree, tmp_path / "elsewhere")
    assert keys(moved) == before
    masked = keys(moved, mask_text=True)
    assert {area for area in KINDS if masked[area] != before[area]} == {"bare", "dicom"}
    write_area(moved / "p0" / "1", "video", pixels(99))
    assert {area for area in KINDS if keys(moved)[area] != before[area]} == {"video"}


def test_nothing_of_a_patient_but_the_pixels_is_kept(prepared: Path) -> None:
    content = b"".join(path.read_bytes() for path in prepared.rglob("*") if path.is_file())
    assert len(content) > 10_000
    for text in ("Rossi", "Anna", "4711", "Ospedale", "20190304"):
        assert text.encode() not in content


def test_with_masking_a_dicom_without_region_is_left_out(tree: Path, tmp_path: Path) -> None:
    result = run(settings(tree, tmp_path, mask_text=True))
    assert [line.split(":")[0] for line in result.problems] == [
        f"video p{patient}/1/bare" for patient in range(4)
    ]
    assert all("states no ultrasound region" in line for line in result.problems)
    videos = VideoCache(tmp_path / "videos.h5")
    frame = videos.read(videos.index(VideoId("p1", "1", "dicom")))[0]
    assert not frame[:18].any()
    assert frame[18:56].min() > 0


def test_mat_scores_take_the_place_of_annotations(tmp_path: Path) -> None:
    root = tmp_path / "exams"
    for patient in range(5):
        folder = root / f"p{patient}" / "1"
        write_area(folder, "mat", pixels(patient))
        matrix = cumulative([0, patient % 4, 0, 0, 0]) if patient else np.ones((2, 2))
        write_mat(folder / f"LUS_p{patient}_1_mat_score.mat", "Score_matrix", matrix, "7.3")
    config = settings(root, tmp_path / "cache", mat_scores=True)
    result = run(config)
    videos = VideoCache(tmp_path / "cache" / "videos.h5")
    assert videos.scores.tolist() == [1, 2, 3, 0]
    assert len(result.problems) == 1
    assert "video p0/1/mat" in result.problems[0]
    (root / "Annotations.txt").write_text("".join(f"p{p}/1/mat;2\n" for p in range(5)))
    study = read_study(StudyFiles(root))
    assert set(study.scores.values()) == {2}
    study = read_study(StudyFiles(root, mat_scores=True))
    assert [study.scores[video] for video in study.sources] == [1, 2, 3, 0]


# ------------------------------------------------------------------------------- what is not a video


def problems_of(root: Path) -> list[str]:
    return find_sources(root, mask_text=False)[1]


def test_what_cannot_be_one_video_is_listed(tmp_path: Path) -> None:
    exam = tmp_path / "p0" / "1"
    write_area(exam, "frames", pixels())
    write_area(exam, "mat", pixels())
    (exam / "LUS_p0_1_mat.mat").rename(exam / "LUS_p9_1_4.mat")  # another patient's
    write_dicom(exam / "twice.dcm", pixels())
    write_dicom(exam / "twice" / "x.dcm", pixels())
    write_dicom(exam / "many" / "x.dcm", pixels())
    write_dicom(exam / "many" / "y.dcm", pixels())
    write_dicom(exam / "a;b.dcm", pixels())
    (exam / "empty").mkdir()
    (exam / "notes.txt").write_text("seen by both")
    (exam / "gone.mp4").symlink_to(exam / "nowhere.mp4")
    found, problems = find_sources(tmp_path, mask_text=False)
    assert [source.id.area for source in found] == ["frames"]
    for complaint in (
        "LUS_p9_1_4.mat: its name does not end in _p0_1_<area>.mat",
        "video p0/1/twice exists 2 times: keep one of p0/1/twice.dcm, p0/1/twice/x.dcm",
        "many holds 2 videos, 2 files (x.dcm, y.dcm): keep one video per area; if each is one frame, save",
        "a;b.dcm: ids must not contain",
        "empty contains no frame",
        "gone.mp4 cannot be read",
    ):
        assert sum(complaint in line for line in problems) == 1, complaint
    assert len(problems) == 6


def test_a_link_back_to_the_root_is_no_way_round(tmp_path: Path) -> None:
    write_area(tmp_path / "p0" / "1", "frames", pixels())
    (tmp_path / "p0" / "1" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "p0" / "1" / "self").symlink_to(tmp_path / "p0" / "1" / "self")
    found, problems = find_sources(tmp_path, mask_text=False)
    assert [str(source.id) for source in found] == ["p0/1/frames"]
    assert len(problems) == 2


@pytest.mark.parametrize("linked", ["p1", "p1/1", "p1/1/frames", "p0/1/again"])
def test_a_video_that_a_link_makes_two_of_is_left_out(tmp_path: Path, linked: str) -> None:
    """Or one patient would look like two, and be in two parts."""
    root = tmp_path / "exams"
    for kind in ("frames", "dicom"):
        write_area(root / "p0" / "1", kind, pixels())
    write_area(root / "p2" / "1", "frames", pixels())
    link = root / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    target = root.joinpath("p0", *link.relative_to(root).parts[1:])
    link.symlink_to(target if target != link else root / "p0/1/frames")
    found, problems = find_sources(root, mask_text=False)
    doubles = [line for line in problems if "are the same, because of a link" in line]
    twin = {"p0/1/again": "p0/1/again and p0/1/frames"}.get(linked, "p0/1/frames and p1/1/frames")
    both = f"videos {twin} are"
    assert any(line.startswith(both) for line in doubles), problems
    assert len(doubles) == len(problems) == (2 if linked in ("p1", "p1/1") else 1)
    assert "p2/1/frames" in map(str, (source.id for source in found))
    assert not {"p0/1/frames", "p1/1/frames"} & set(map(str, (source.id for source in found)))


def test_a_table_row_about_a_linked_file_is_left_out(tmp_path: Path) -> None:
    write_area(tmp_path / "videos" / "p0", "video", pixels())
    (tmp_path / "videos" / "other.gif").symlink_to(tmp_path / "videos" / "p0" / "video.gif")
    write_area(tmp_path / "videos" / "p1", "video", pixels(1))
    rows = ["p0/video.gif,1,1,1,0", "other.gif,2,1,1,0", "p1/video.gif,3,1,1,2"]
    labels = write_labels(tmp_path / "labels.csv", rows)
    study = read_study(StudyFiles(tmp_path / "videos", labels=labels))
    assert list(map(str, study.sources)) == ["3/1/1"]
    assert study.problems == [
        "videos 1/1/1 and 2/1/1 are the same, because of a link: remove the link"
    ]


def test_a_file_without_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    exam = tmp_path / "p0" / "1"
    write_dicom(exam / "1.2.840.113619", pixels())
    write_dicom(exam / "DICOMDIR", pixels())
    write_dicom(tmp_path / "p0" / "2" / "dicomdir", pixels())
    (exam / "README").write_text("About DICM. " * 100)
    found, problems = find_sources(tmp_path, mask_text=False)
    assert [str(source.id) for source in found] == ["p0/1/1.2.840.113619"]
    assert problems == []


def test_an_empty_folder_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(LusError, match="--labels CSV"):
        find_sources(tmp_path, mask_text=False)


@pytest.mark.parametrize(
    ("area", "package", "module", "extra"),
    [("dicom", "pydicom", "dicom_files", "dicom"), ("mat", "scipy.io", "mat_files", "mat")],
)
def test_a_missing_library_is_one_line_and_names_the_extra(
    tree: Path, monkeypatch: pytest.MonkeyPatch, area: str, package: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"lus_cli.study.{module}", raising=False)
    monkeypatch.delattr(f"lus_cli.study.{module}", raising=False)
    with pytest.raises(LusError, match=rf"pip install 'lus-cli\[{extra}\]'"):
        find_sources(tree, mask_text=False)


# ------------------------------------------------------------------------------------- label tables


def write_labels(path: Path, rows: Sequence[str]) -> Path:
    path.write_text("\n".join(["file,patient,exam,area,score", *rows]))
    return path


def test_a_label_table_names_videos_of_any_kind_anywhere(tree: Path, tmp_path: Path) -> None:
    names = ("bare/IM_0001", "dicom.dcm", "frames", "LUS_p0_1_mat.mat", "video.gif")
    rows = [f"p0/1/{name},q{i % 2},x,{i},{i % 4}" for i, name in enumerate(names)]
    rows += ["p1/1/dicom.dcm,q1,x,9,", "p9/none.mp4,q1,x,10,1"]
    labels = write_labels(tmp_path / "labels.csv", rows)
    study = read_study(StudyFiles(tree, labels=labels))
    assert list(map(str, study.sources)) == ["q0/x/0", "q0/x/2", "q0/x/4", "q1/x/1", "q1/x/3"]
    assert [study.scores[video] for video in study.sources] == [0, 2, 0, 1, 3]
    for video, source in study.sources.items():
        expected = coloured_gray(pixels(int(video.area)), KINDS[int(video.area)])
        assert np.abs(decoded(source).astype(int) - expected).max() <= 3
    lines = "\n".join(study.problems)
    assert "p9/none.mp4" in lines
    assert "video q1/x/9: no annotation" in lines
    assert "p3/1/video.gif: no row in" in lines


def test_labels_and_annotations_together_are_refused(tree: Path, tmp_path: Path) -> None:
    both = {"labels": tmp_path / "labels.csv", "annotations": tree / "Annotations.txt"}
    with pytest.raises(UsageError, match="use one of them"):
        read_study(StudyFiles(tree, **both))


# ---------------------------------------------------------------------------------------- attention


@pytest.fixture(scope="module")
def trained(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with masked DICOM, and a run on it."""
    cache = tmp_path_factory.mktemp("trained")
    run(settings(tree, cache, mask_text=True, color=True))
    train.run(tiny(cache, epochs=1), silent)
    return cache


def test_attention_is_drawn_over_the_original_frame_of_any_source(
    tree: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = []
    draw_card = explained.draw_card

    def keep(original: np.ndarray, *rest: Any) -> np.ndarray:
        originals.append(original)
        return draw_card(original, *rest)

    monkeypatch.setattr(explained, "draw_card", keep)
    areas = ("dicom", "frames", "mat", "video")
    wanted = tuple(f"p2/1/{area}/3" for area in areas)
    result = attention.run(AttentionConfig(cache=trained, frame=wanted, threads=1), silent)
    for area, name, original in zip(areas, wanted, originals, strict=True):
        gray = pixels(20 + KINDS.index(area))[3]
        expected = np.stack([gray] * 3, axis=-1) if area != "mat" else coloured(gray[None])[0]
        if area == "dicom":
            expected[:10] = 0  # text that was masked stays masked
        assert np.abs(original.astype(int) - expected).max() <= 3
        with Image.open(result.files[name]) as image:
            assert image.width > COLUMNS


def test_a_whole_video_is_drawn_frame_by_frame(trained: Path) -> None:
    config = AttentionConfig(cache=trained, video=("p1/1/video",), format="gif", threads=1)
    path = attention.run(config, silent).files["p1/1/video"]
    video = open_source("video", VIDEO, path.parent, path, mask_text=False)
    assert len(decoded(video)) == LENGTH


def test_an_original_that_is_gone_says_where_it_was(tree: Path, trained: Path) -> None:
    elsewhere = tree.parent / "elsewhere"
    config = AttentionConfig(cache=trained, frame=("p1/1/video/0",), exams=elsewhere, threads=1)
    with pytest.raises(
        LusError, match=r"elsewhere/p1/1/video\.gif: give their folder with --exams"
    ):
        attention.run(config, silent)
