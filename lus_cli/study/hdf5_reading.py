"""Opening HDF5 files to read, also where a file system keeps no locks."""

from __future__ import annotations

import errno
from pathlib import Path

import h5py

HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}  # by another program, which is writing


def open_hdf5(path: Path) -> h5py.File:
    """The file, locked against writers where that is possible.

    HDF5's own "best-effort" knows one of the answers of a file system without locks, ENOSYS, not
    ENOLCK, EOPNOTSUPP and others. Raises OSError.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "unable to lock file" not in str(error) or error.errno in HELD:
            raise
        return h5py.File(path, "r", locking=False)
