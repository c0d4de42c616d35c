"""Where the disk gets full, at whatever byte: an error with its number, no crash, and the old file."""

from __future__ import annotations

import errno
import itertools
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lus_cli.errors import LusError
from lus_cli.exam_tree import VideoId
from lus_cli.hdf5_writing import writing
from lus_cli.mask_file import joined, read_maps, write_masks

MAPS = {
    "frame_number": np.arange(8),
    "mask": np.random.default_rng(0).random((8, 12, 12), np.float32),
}
FIRST, SECOND = VideoId("1", "1", "1"), VideoId("1", "1", "2")


def test_what_is_written_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for new, name in ((True, "one"), (False, "two")):
        with writing(path, new=new) as (file, _):
            file[name] = np.arange(5)
    with h5py.File(path) as file:
        assert {name: values[:].tolist() for name, values in file.items()} == {
            "one": [0, 1, 2, 3, 4],
            "two": [0, 1, 2, 3, 4],
        }
    with writing(path) as (file, _):
        assert not list(file)


def small_files(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit if limit else hard, hard))


def said(limit: int, add: Callable[[], None]) -> str:
    """What a command that adds masks says where no file may have more bytes than `limit`."""
    small_files(limit)
    try:
        add()
    except LusError as error:
        return str(error)
    finally:
        small_files(0)
    return ""


def attempt_at_every_limit(folder: Path) -> None:
    """For a process of its own: HDF5 would take it with it."""
    path, part = folder / "masks.h5", folder / "part.h5"
    write_masks(path, {FIRST: MAPS})
    write_masks(part, {SECOND: MAPS})
    before, refused = path.read_bytes(), 0
    ways = (lambda: write_masks(path, {SECOND: MAPS})), (lambda: joined(path, {SECOND: part}))
    for limit, add in itertools.product(range(1, len(before) + 14_000, 613), ways):
        if message := said(limit, add):
            assert "masks.h5 cannot be written (File too large)" in message
            assert path.read_bytes() == before
            assert {entry.name for entry in folder.iterdir()} == {"masks.h5", "part.h5"}
            refused += 1
        else:
            np.testing.assert_array_equal(read_maps(path, SECOND)["mask"], MAPS["mask"])
            path.write_bytes(before)
    assert refused > 20


def test_a_full_disk_is_no_crash_wherever_it_gets_full(tmp_path: Path) -> None:
    script = (
        f"from tests.test_hdf5_writing import *; attempt_at_every_limit(Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_disks_error_comes_before_what_hdf5_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:  # noqa: SIM117
        with writing(tmp_path / "a.h5") as (file, disk):
            disk.error = OSError(errno.ENOSPC, "No space left on device")
            file["numbers"] = np.arange(1000)
            raise RuntimeError("what HDF5 reads back is not what it wrote")
    assert caught.value.errno == errno.ENOSPC
