"""Opens HDF5 files for reading, also on file systems without locks."""

from __future__ import annotations

import errno
from pathlib import Path

import h5py

HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}  # locked by a program that writes


def open_hdf5(path: Path) -> h5py.File:
    """Opens a file, locked against writers if possible. Raises OSError.

    The "best-effort" mode of HDF5 handles only one error of file systems without locks, ENOSYS, but
    not ENOLCK, EOPNOTSUPP and others.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "unable to lock file" not in str(error) or error.errno in HELD:
            raise
        return h5py.File(path, "r", locking=False)
