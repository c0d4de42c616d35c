"""Errors of the operating system become one line, with what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lus_cli.disk_errors import explaining_disk_errors, explaining_refusal, placed_by
from lus_cli.errors import CannotReadError, LusError

PATH = Path("folder") / "file"


def refused(code: int) -> CannotReadError:
    with pytest.raises(CannotReadError) as caught, explaining_refusal(PATH):
        raise OSError(code, "many lines\nof HDF5")
    return caught.value


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EACCES, "give your user permission to read it"),
        (errno.ENOLCK, "its file system has no locks: set HDF5_USE_FILE_LOCKING=FALSE"),
        (errno.ENODEV, "the operating system refuses it; the file itself may be intact"),
    ],
)
def test_a_refusal_of_the_system_is_not_damage(code: int, remedy: str) -> None:
    error = refused(code)
    assert error.message == f"{PATH} cannot be read ({os.strerror(code)})"
    assert error.remedy == remedy


@pytest.mark.parametrize("code", [0, errno.EINVAL, errno.EFBIG, -1094995529])
def test_what_a_damaged_file_causes_is_left_to_its_reader(code: int) -> None:
    """The last one is FFmpeg's "invalid data"."""
    with pytest.raises(OSError, match="damage") as caught, explaining_refusal(PATH):
        raise OSError(code, "damage")
    assert type(caught.value) is OSError


def test_a_remedy_names_the_option_that_sets_the_place() -> None:
    def remedy() -> str | None:
        with pytest.raises(LusError) as caught, explaining_disk_errors(PATH):
            raise OSError(errno.ENOSPC, "full")
        return caught.value.remedy

    assert remedy() == "free some space, or use another --cache"
    with placed_by("--output"):
        assert remedy() == "free some space, or use another --output"
    assert remedy() == "free some space, or use another --cache"


@pytest.mark.parametrize(
    ("name", "explained"), [(None, True), ("folder/.file.part", True), ("other/file", False)]
)
def test_only_a_folder_of_its_own_that_disappears_is_explained(
    name: str | None, explained: bool
) -> None:
    """That another file is missing is an error of the program."""
    expected = LusError if explained else FileNotFoundError
    with pytest.raises(expected), explaining_disk_errors(PATH):
        raise OSError(errno.ENOENT, "gone", name)
