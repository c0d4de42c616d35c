"""The seal covers every byte of a file, and HDF5 can still read the file."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from lus_cli.cache.hdf5 import LENGTH, is_sealed, sealing


def sealed(path: Path, content: bytes) -> Path:
    with sealing(path):
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_as_it_was_written_is_sealed(tmp_path: Path, size: int) -> None:
    path = sealed(tmp_path / "a", bytes(size))
    assert is_sealed(path)
    assert path.stat().st_size == size + LENGTH
    assert path.read_bytes()[:size] == bytes(size)


def test_any_change_of_any_byte_breaks_the_seal(tmp_path: Path) -> None:
    path = sealed(tmp_path / "a", b"some content")
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert not is_sealed(path)
    for other in (whole[:-1], whole[1:], whole + b"\0", whole[:10], b"", b"0" * len(whole)):
        path.write_bytes(other)
        assert not is_sealed(path)


def test_what_was_not_written_well_is_not_sealed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(RuntimeError), sealing(path):
        path.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"half"


def test_hdf5_reads_a_sealed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with sealing(path), h5py.File(path, "w", libver="v110") as file:
        file["x"] = range(100)
    assert is_sealed(path)
    with h5py.File(path) as file:
        assert file["x"][:].tolist() == list(range(100))
    assert is_sealed(path), "reading changes nothing"
    with h5py.File(path, "r+") as file:
        file["x"][0] = 7
    assert not is_sealed(path), "writing does"
