"""Turns errors of the operating system into one line with a remedy."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from lus_cli.errors import CannotReadError, LusError

PLACE = ContextVar("PLACE", default="--cache")
# The errors of file systems without locks: some mounts of NFS, Lustre, FUSE and SMB.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
WRITING = {
    errno.ENOSPC: "free some space, or use another {folder}",
    errno.EDQUOT: "free some of your quota, or use another {folder}",
    errno.EFBIG: "this disk cannot store a file of this size: use another {folder}",
    errno.EIO: "the disk is failing: use another {folder}",
    errno.ESTALE: "mount its folder again, or use another {folder}",
    errno.EACCES: "use a {folder} you may write to",
    errno.EPERM: "use a {folder} you may write to",
    errno.EROFS: "use a {folder} that is not read-only",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EEXIST: "a file is where a folder should be",
    errno.EISDIR: "a folder is where a file should be",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.EMFILE: "too many files are open: see `ulimit -n`",
    errno.ENFILE: "too many files are open: close the programs that use them",
    errno.ENOENT: "its folder no longer exists: run the command again",
    errno.EBUSY: "close the program that uses it, and run the command again",
    errno.ETXTBSY: "close the program that uses it, and run the command again",
    errno.ETIMEDOUT: "the disk does not respond: use another {folder}",
}
READING = {
    errno.EACCES: "give your user permission to read it",
    errno.EPERM: "give your user permission to read it",
    errno.EAGAIN: "close the program that writes it, and run the command again",
    errno.EBUSY: "close the program that uses it, and run the command again",
    errno.EIO: "the disk is failing: copy what can still be read to another disk",
    errno.EMFILE: "too many files are open: see `ulimit -n`",
    errno.ENFILE: "too many files are open: close the programs that use them",
    errno.ENOENT: "it has disappeared: run the command again",
    errno.ESTALE: "mount its folder again",
    errno.ENOMEM: "free some memory",
    errno.EISDIR: "a folder is where a file should be",
    **dict.fromkeys(NO_LOCKS, "its file system has no locks: set HDF5_USE_FILE_LOCKING=FALSE"),
}
# The errors that damaged files cause, such as a seek to an impossible position.
DAMAGE = {None, 0, errno.EINVAL, errno.EFBIG, errno.EOVERFLOW}


@contextlib.contextmanager
def placed_by(words: str) -> Iterator[None]:
    """Within the block, sets how remedies call the place of the files: an option or `folder`."""
    before = PLACE.set(words)
    try:
        yield
    finally:
        PLACE.reset(before)


@contextlib.contextmanager
def explaining_disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError while writing `path` into a LusError with a remedy."""
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
    """Turns an OSError while reading `path` into a CannotReadError, unless the file is damaged."""
    try:
        yield
    except OSError as error:
        if error.errno in DAMAGE or error.errno not in errno.errorcode:  # or FFmpeg's own number
            raise
        number = error.errno or 0
        message = f"{path} cannot be read ({os.strerror(number)})"  # that of HDF5 has many lines
        remedy = READING.get(
            number, "the operating system refuses it; the file itself may be intact"
        )
        raise CannotReadError(message, remedy) from error
