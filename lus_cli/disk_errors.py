"""What a system can answer to a reader or a writer, as one line for the user."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from lus_cli.errors import CannotReadError, LusError

PLACE = ContextVar("PLACE", default="--cache")
# What a file system says that keeps no locks: some mounts of NFS, Lustre, FUSE, SMB.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
WRITING = {
    errno.ENOSPC: "free some space, or use another {folder}",
    errno.EDQUOT: "free some of your quota, or use another {folder}",
    errno.EFBIG: "this disk holds no file so large: use another {folder}",
    errno.EIO: "the disk fails: use another {folder}",
    errno.ESTALE: "mount the folder that it lies in again, or use another {folder}",
    errno.EACCES: "use a {folder} you may write to",
    errno.EPERM: "use a {folder} you may write to",
    errno.EROFS: "use a {folder} that can be written to",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EEXIST: "a file is where a folder should be",
    errno.EISDIR: "a folder is where a file should be",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.EMFILE: "too many files are open: see `ulimit -n`",
    errno.ENFILE: "too many files are open: end what has them open",
    errno.ENOENT: "its folder is gone: run the command again",
    errno.EBUSY: "end what is using it, and run the command again",
    errno.ETXTBSY: "end what is using it, and run the command again",
    errno.ETIMEDOUT: "the disk does not answer: use another {folder}",
}
READING = {
    errno.EACCES: "let your user read it",
    errno.EPERM: "let your user read it",
    errno.EAGAIN: "end what is writing it, and run the command again",
    errno.EBUSY: "end what is using it, and run the command again",
    errno.EIO: "the disk fails: copy what it still gives to another",
    errno.EMFILE: "too many files are open: see `ulimit -n`",
    errno.ENFILE: "too many files are open: end what has them open",
    errno.ENOENT: "it was there a moment ago: run the command again",
    errno.ESTALE: "mount the folder that it lies in again",
    errno.ENOMEM: "free some memory",
    errno.EISDIR: "a folder is where a file should be",
    **dict.fromkeys(NO_LOCKS, "its file system keeps no locks: set HDF5_USE_FILE_LOCKING=FALSE"),
}
# What a file says that is not what was written: a place in it that cannot be.
DAMAGE = {None, 0, errno.EINVAL, errno.EFBIG, errno.EOVERFLOW}


@contextlib.contextmanager
def placed_by(words: str) -> Iterator[None]:
    """For the block, in what words a user names another place for the files that are written."""
    before = PLACE.set(words)
    try:
        yield
    finally:
        PLACE.reset(before)


@contextlib.contextmanager
def explaining_disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk can do to a writer into one line for the user."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and Path(os.fsdecode(error.filename)).parent != path.parent
        if error.errno not in WRITING or (error.errno == errno.ENOENT and elsewhere):
            raise
        raise LusError(
            f"{path} cannot be written ({error.strerror})",
            WRITING[error.errno].format(folder=PLACE.get()),
        ) from error


@contextlib.contextmanager
def explaining_refusal(path: Path) -> Iterator[None]:
    """Makes a CannotReadError of an OSError that is not the file's fault."""
    try:
        yield
    except OSError as error:
        if error.errno in DAMAGE or error.errno not in errno.errorcode:  # or FFmpeg's own number
            raise
        number = error.errno or 0
        message = f"{path} cannot be read ({os.strerror(number)})"  # HDF5's own has many lines
        remedy = READING.get(number, "this is what the system says of it; the file may be whole")
        raise CannotReadError(message, remedy) from error
