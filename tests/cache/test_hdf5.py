"""A full disk, or Ctrl-C, at any byte: an error instead of a crash, and the old file is kept."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest

from lus_cli.attention.mask_file import merge_files, read_maps, write_masks
from lus_cli.cache.hdf5 import Disk, writing
from lus_cli.errors import LusError
from lus_cli.study.ids import VideoId

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


def error_of(limit: int, add: Callable[[], None]) -> str:
    """The error of a command that adds masks if no file may have more bytes than `limit`."""
    small_files(limit)
    try:
        add()
    except LusError as error:
        return str(error)
    finally:
        small_files(0)
    return ""


def attempt_at_every_limit(folder: Path) -> None:
    """Runs in its own process, which HDF5 may crash."""
    path, part = folder / "masks.h5", folder / "part.h5"
    write_masks(path, {FIRST: MAPS})
    write_masks(part, {SECOND: MAPS})
    before, refused = path.read_bytes(), 0
    ways = (lambda: write_masks(path, {SECOND: MAPS})), (lambda: merge_files(path, {SECOND: part}))
    for limit, add in itertools.product(range(1, len(before) + 14_000, 613), ways):
        if message := error_of(limit, add):
            assert "masks.h5 cannot be written (File too large)" in message
            assert path.read_bytes() == before
            assert {entry.name for entry in folder.iterdir()} == {"masks.h5", "part.h5"}
            refused += 1
        else:
            np.testing.assert_array_equal(read_maps(path, SECOND)["mask"], MAPS["mask"])
            path.write_bytes(before)
    assert refused > 20


def attempt_at_every_call(folder: Path) -> None:
    """Ctrl-C as HDF5 calls a method of Disk for the n-th time; also for a process of its own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    path = folder / "masks.h5"
    write_masks(path, {FIRST: MAPS})
    before, pressed = path.read_bytes(), 0
    for name in ("write", "readinto", "seek", "truncate", "tell"):
        for number in itertools.count(1):
            calls, usual = itertools.count(1), getattr(Disk, name)

            def pressing(
                *given: Any, calls: Any = calls, usual: Any = usual, n: int = number
            ) -> Any:
                if next(calls) == n:
                    os.kill(os.getpid(), signal.SIGINT)
                return usual(*given)

            with mock.patch.object(Disk, name, pressing):
                try:
                    write_masks(path, {SECOND: MAPS})
                except KeyboardInterrupt:
                    pressed += 1
                    assert path.read_bytes() == before
                    assert [entry.name for entry in folder.iterdir()] == ["masks.h5"]
                else:
                    assert next(calls) <= number  # there were fewer calls
                    for video in (FIRST, SECOND):
                        np.testing.assert_array_equal(read_maps(path, video)["mask"], MAPS["mask"])
                    path.write_bytes(before)
                    break
    assert pressed > 20


@pytest.mark.parametrize("attempt", [attempt_at_every_limit, attempt_at_every_call])
def test_nothing_is_lost_wherever_writing_ends(
    tmp_path: Path, attempt: Callable[[Path], None]
) -> None:
    script = f"from tests.cache.test_hdf5 import *; {attempt.__name__}(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_process_that_ignores_ctrl_c_goes_on(tmp_path: Path) -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with writing(tmp_path / "a.h5") as (file, _):
            os.kill(os.getpid(), signal.SIGINT)
            file["one"] = np.arange(5)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, usual)


def test_ctrl_c_means_again_what_it_did(tmp_path: Path) -> None:
    usual = signal.getsignal(signal.SIGINT)
    with writing(tmp_path / "a.h5") as (file, _):
        file["one"] = np.arange(5)
    assert signal.getsignal(signal.SIGINT) is usual


def test_the_disks_error_comes_before_what_hdf5_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:  # noqa: SIM117
        with writing(tmp_path / "a.h5") as (file, disk):
            disk.error = OSError(errno.ENOSPC, "No space left on device")
            file["numbers"] = np.arange(1000)
            raise RuntimeError("what HDF5 reads back is not what it wrote")
    assert caught.value.errno == errno.ENOSPC
