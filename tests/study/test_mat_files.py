"""How much a .mat file of version 5 may claim, before SciPy takes the memory."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from lus_cli.errors import LusError

scipy_io = pytest.importorskip("scipy.io", reason="reading .mat files needs SciPy")
mat_files = pytest.importorskip("lus_cli.study.mat_files", reason="reading .mat files needs SciPy")

FRAMES = np.arange(2 * 5 * 3 * 4, dtype=np.uint8).reshape(2, 5, 3, 4)
OTHERS = {
    "frames": FRAMES,
    "signal": np.ones(3000) * 1j,
    "text": "Lung ultrasound",
    "cell": np.array([1, "a", FRAMES], dtype=object),
    "empty": np.zeros((0, 0), dtype=[("a", object)]),
    "nested": {"depth_cm": 12.0, "probe": {"name": "C5-2"}},
    "number": 7,
}


@pytest.mark.parametrize("packed", [False, True])
def test_frames_are_read_among_arrays_of_every_kind(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "video.mat"
    scipy_io.savemat(path, OTHERS, do_compression=packed)
    np.testing.assert_array_equal(np.stack(list(mat_files.read_frames(path)), axis=3), FRAMES)


def claiming(path: Path, at: int, claimed: int, packed: bool) -> Path:
    """A file whose array claims at `at`, counted from its flags, to have so many bytes."""
    scipy_io.savemat(path, {"frames": FRAMES}, do_compression=False)
    content = bytearray(path.read_bytes())
    header, array = content[:128], content[128:]
    struct.pack_into("<I", array, 8 + at, claimed)
    if packed:
        inner = zlib.compress(bytes(array))
        array = bytearray(struct.pack("<II", 15, len(inner)) + inner)
    path.write_bytes(bytes(header + array))
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("part", "at"), [("flags", 4), ("axes", 20), ("name", 44), ("numbers", 60)]
)
def test_an_array_that_claims_gigabytes_is_refused(
    tmp_path: Path, part: str, at: int, packed: bool
) -> None:
    path = claiming(tmp_path / "video.mat", at, 2**30 + 8, packed)
    with pytest.raises(LusError, match=r"video\.mat cannot be read \(an array is too large"):
        list(mat_files.read_frames(path))


def test_the_places_that_claim_are_where_the_test_above_has_them(tmp_path: Path) -> None:
    scipy_io.savemat(tmp_path / "video.mat", {"frames": FRAMES}, do_compression=False)
    array = (tmp_path / "video.mat").read_bytes()[136:]
    assert mat_files.check_claims(array, "<") == [8, 16, 6, FRAMES.size]
    claimed = [struct.unpack_from("<I", array, at)[0] for at in (4, 20, 44, 60)]
    assert claimed == [8, 16, 6, FRAMES.size]


def test_numbers_that_begin_far_away_are_refused(tmp_path: Path) -> None:
    path = claiming(tmp_path / "video.mat", 44, 5000, packed=True)
    with pytest.raises(LusError, match="whose numbers begin after 5"):
        list(mat_files.read_frames(path))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [0, 8, 10, 11, 14, 15, 19, 51721])
def test_numbers_of_a_type_that_there_is_not_are_refused(
    tmp_path: Path, kind: int, packed: bool
) -> None:
    """SciPy looks the type up in a table of twenty without asking whether it is there."""
    path = claiming(tmp_path / "video.mat", 56, kind, packed)
    with pytest.raises(LusError, match="numbers of an unknown type"):
        list(mat_files.read_frames(path))


@pytest.mark.parametrize("packed", [False, True])
def test_frames_with_imaginary_parts_are_refused(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "video.mat"
    scipy_io.savemat(path, {"frames": FRAMES * (1 + 1j)}, do_compression=packed)
    with pytest.raises(LusError, match="complex numbers"):
        list(mat_files.read_frames(path))
