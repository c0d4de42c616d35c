"""Locks that keep two commands from writing the same at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lus_cli.disk_errors import NO_LOCKS, explaining_disk_errors
from lus_cli.errors import InUseError

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextlib.contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Keeps a second command from writing the same artifacts at the same time.

    Raises LusError naming the holder.
    """
    with explaining_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".lock", root):
        yield


@contextlib.contextmanager
def locked(path: Path, what: Path, keep: bool = True, patience: float = 0) -> Iterator[None]:
    """Holds the lock file `path` for whoever writes to `what`; without `keep` it goes afterwards.

    The operating system drops the lock with the process that holds it, so none is ever stale,
    whatever files a killed process left. Raises LusError naming the holder, after `patience` seconds.
    """
    holder = path.with_name(f"{path.name}-holder")
    with explaining_disk_errors(path):
        lock = acquired(path, what, holder, patience)
    try:
        with explaining_disk_errors(path):
            holder.write_text(f"process {os.getpid()}")
        yield
    finally:
        for done in (holder,) if keep else (holder, path):
            with contextlib.suppress(OSError):
                done.unlink()
        lock.release()


def acquired(path: Path, what: Path, holder: Path, patience: float) -> BaseFileLock:
    """The lock of the operating system, or, where a file system has none, a file that says who holds
    it: that of a process killed on another machine has to be removed by hand."""
    import filelock

    soft = path.with_name(f"{path.name}-soft")
    try:
        try:
            with warnings.catch_warnings(action="ignore"):  # that it takes a soft one by itself
                return taken(filelock.FileLock(path), patience)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in {*NO_LOCKS, errno.EINVAL}:
                raise
            return taken(filelock.SoftFileLock(soft), patience)
    except filelock.Timeout:
        who = holder.read_text() if holder.is_file() else "another lus"
        remedy = "wait for it to end"
        if soft.exists():
            remedy += f"; if it was killed on another machine, remove {soft}"
        raise InUseError(f"{who} is writing to {what}", remedy) from None


def taken(lock: BaseFileLock, patience: float) -> BaseFileLock:
    lock.acquire(timeout=patience)
    return lock
