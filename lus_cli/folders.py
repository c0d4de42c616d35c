"""Folders that are made whole or not at all, alone or several that belong together.

Each is filled under a name of its own next to its place. When all are full they are renamed to
`.name.new`, the first one last: from then on all of them are whole and will be put in place, if need
be by the next command that writes there. The old ones are out of the way before the first new one is
in, so no one ever finds the new next to the old.
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
    """An empty folder to fill, moved to `path` when the block ends well and removed when not.

    Raises LusError if something is at `path` already and `force` is false, or if another process
    is making the same folder and does not end within `patience` seconds.
    """
    with replacing_folders(path, force=force, patience=patience) as [part]:
        yield part


@contextlib.contextmanager
def replacing_folders(*paths: Path, force: bool, patience: float = 0) -> Iterator[list[Path]]:
    """Empty folders to fill, moved to `paths` together, the first one last: see replacing_folder.

    One but the first that stays empty leaves nothing in its place.
    """
    places = [path.resolve() for path in paths]  # what a link points to is replaced, not the link
    lock = beside(places[0], "lock")
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
                    part.rename(beside(place, "new"))
            except BaseException:
                for part in parts:
                    remove(part)
                settle(places)
                raise
            settle(places)


def beside(place: Path, what: str) -> Path:
    """Hidden, so that nobody takes it for a study, and never a name that somebody chose."""
    return place.with_name(f".{place.name}.{what}")


def refuse_replacing(place: Path, force: bool) -> None:
    if place.exists() and not place.is_dir():
        raise LusError(f"{place} is a file", "name a folder")
    if place.is_dir() and not is_empty(place) and not force:
        raise AlreadyThereError(
            f"{place} is already there", "name another folder, or replace it with --force"
        )


def settle(places: Sequence[Path]) -> None:
    """Puts new folders in place where all are whole, and removes what is left beside them.

    May be stopped anywhere and done again.
    """
    first, *others = places
    if beside(first, "new").exists():
        for place in places:
            # A place whose new folder is in already holds nothing old.
            if place.exists() and beside(place, "new").exists():
                remove(beside(place, "old"))
                place.rename(beside(place, "old"))
        for place in others:
            if is_empty(beside(place, "new")):
                beside(place, "new").rmdir()
        for place in (*others, first):
            if beside(place, "new").exists():
                beside(place, "new").rename(place)
    for place in places:
        for what in ("new", "old"):
            remove(beside(place, what))
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
