"""Atomic replacement of one folder or several that belong together, and locks.

Each folder is filled under a unique temporary name next to its target. When all are complete, they
are renamed to `.name.new`, the first one last. Once that exists, all new folders are complete and
will be moved to their targets, if necessary by the next command that writes there. All old folders
are moved away before the first new one takes its place, so a new folder never appears together with
an old one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lus_cli.disk_errors import NO_LOCKS, explaining_disk_errors
from lus_cli.errors import AlreadyThereError, InUseError, LusError
from lus_cli.files import is_stale, part_of

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextlib.contextmanager
def replacing_folder(path: Path, force: bool, patience: float = 0) -> Iterator[Path]:
    """An empty folder to fill, renamed to `path` if the block succeeds, else removed.

    Raises LusError if `path` exists and `force` is false, or if another process is writing the same
    folder and does not finish within `patience` seconds.
    """
    with replacing_folders(path, force=force, patience=patience) as [part]:
        yield part


@contextlib.contextmanager
def replacing_folders(*paths: Path, force: bool, patience: float = 0) -> Iterator[list[Path]]:
    """Empty folders to fill, renamed to `paths` together: see replacing_folder.

    For a folder that stays empty, except the first, nothing is put in place.
    """
    places = [path.resolve() for path in paths]  # the target of a link is replaced, not the link
    lock = hidden(places[0], "lock")
    with explaining_disk_errors(places[0]):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock, places[0], keep=False, patience=patience):
            settle(places)
            for place in places:
                refuse_replacing(place, force)
            parts = [part_of(place) for place in places]
            try:
                for part in parts:
                    part.mkdir()
                yield parts
                for place, part in reversed([*zip(places, parts, strict=True)]):
                    part.rename(hidden(place, "new"))
            except BaseException:
                for part in parts:
                    remove(part)
                settle(places)
                raise
            settle(places)


def hidden(place: Path, what: str) -> Path:
    """A hidden path next to `place`, so that it is not taken for a study or a user's folder."""
    return place.with_name(f".{place.name}.{what}")


def refuse_replacing(place: Path, force: bool) -> None:
    if place.exists() and not place.is_dir():
        raise LusError(f"{place} is a file", "name a folder")
    if place.is_dir() and not is_empty(place) and not force:
        raise AlreadyThereError(
            f"{place} already exists", "name another folder, or replace it with --force"
        )


def settle(places: Sequence[Path]) -> None:
    """Moves new folders to their places if all are complete, and removes leftovers.

    Can be interrupted at any point and repeated.
    """
    first, *others = places
    if hidden(first, "new").exists():
        for place in places:
            # Without .new, the folder at `place` is already the new one.
            if place.exists() and hidden(place, "new").exists():
                remove(hidden(place, "old"))
                place.rename(hidden(place, "old"))
        for place in others:
            if is_empty(hidden(place, "new")):
                hidden(place, "new").rmdir()
        for place in (*others, first):
            if hidden(place, "new").exists():
                hidden(place, "new").rename(place)
    for place in places:
        for what in ("new", "old"):
            remove(hidden(place, what))
        for part in place.parent.glob(".*.part"):
            if part.name.startswith(f".{place.name}.") and is_stale(part):
                remove(part)


def is_empty(folder: Path) -> bool:
    return folder.exists() and not any(folder.iterdir())


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


# ----------------------------------------------------------------------------------------- locks


@contextlib.contextmanager
def only_writer(root: Path) -> Iterator[None]:
    """Prevents a second command from writing to `root` at the same time.

    Raises LusError, naming the other process.
    """
    with explaining_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".lock", root):
        yield


@contextlib.contextmanager
def locked(path: Path, what: Path, keep: bool = True, patience: float = 0) -> Iterator[None]:
    """Holds the lock file `path` for writing to `what`; without `keep`, removes it afterwards.

    The operating system releases the lock when its process ends, so a lock is never stale, even if
    a killed process left its files. Raises LusError, naming the other process, after `patience`
    seconds.
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


def writers(root: Path) -> list[str]:
    """The processes that are writing to a folder or to a folder in it, such as 'process 123'."""
    found = []
    locks = {p.with_name(p.name.removesuffix("-soft")) for p in root.rglob(".*lock*")}
    for path in sorted(p for p in locks if p.name.endswith(".lock")):
        holder = path.with_name(f"{path.name}-holder")
        try:
            acquired(path, root, holder, patience=0).release()
        except InUseError as error:
            found.append(error.message.partition(" is writing")[0])
        except OSError:  # nothing may be written there, so nothing is being written
            continue
    return found


def acquired(path: Path, what: Path, holder: Path, patience: float) -> BaseFileLock:
    """A lock of the operating system; on a file system without locks, a file that acts as one.

    Such a file of a process that was killed on another machine must be removed by hand.
    """
    import filelock

    soft = path.with_name(f"{path.name}-soft")
    try:
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # that it falls back to a soft lock by itself
                return acquire(filelock.FileLock(path), patience)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in {*NO_LOCKS, errno.EINVAL}:
                raise
            return acquire(filelock.SoftFileLock(soft), patience)
    except filelock.Timeout:
        writer = holder.read_text() if holder.is_file() else "another lus"
        remedy = "wait for it to end"
        if soft.exists():
            remedy += f"; if it was killed on another machine, remove {soft}"
        raise InUseError(f"{writer} is writing to {what}", remedy) from None


def acquire(lock: BaseFileLock, patience: float) -> BaseFileLock:
    lock.acquire(timeout=patience)
    return lock
