"""Writing HDF5 to a disk that may get full, or until Ctrl-C is pressed, of which HDF5 bears neither: it
goes on and loses what it was writing, or crashes, and Python with it."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import h5py
import xxhash


class Disk(io.RawIOBase):
    """A file that takes all that HDF5 writes, and keeps what ends the writing for afterwards: the disk's
    first error, or Ctrl-C.

    HDF5 does not bear an error while it closes a file: it prints it once for every object of the
    file, and may crash.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self.raw = raw
        self.error: OSError | KeyboardInterrupt | None = None

    def press(self, _number: int, _frame: FrameType | None) -> None:
        """Takes SIGINT."""
        self.error = self.error or KeyboardInterrupt()

    def write(self, content: Any) -> int:
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while len(rest) and self.error is None:
                rest = rest[self.raw.write(rest) or 0 :]
        except OSError as error:
            self.error = self.error or error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return self.raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        return self.raw.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()

    def tell_error(self) -> None:
        """Raises the error that was kept: to be asked now and then, or all is written in vain."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def writing(
    path: Path, *, new: bool = True, libver: str | None = None
) -> Iterator[tuple[h5py.File, Disk]]:
    """A file that is made, in place of what is there, or else added to; and what it is written by.

    Raises OSError, with the system's number, if the disk did not take everything. Ctrl-C waits for
    `tell_error`, or for the end.
    """
    with path.open("w+b" if new else "r+b", buffering=0) as raw:
        disk = Disk(raw)
        try:
            with (
                keeping_interrupts(disk),
                h5py.File(disk, "w" if new else "r+", libver=libver) as file,
            ):
                yield file, disk
        finally:
            disk.tell_error()  # before what HDF5 made of it


@contextlib.contextmanager
def keeping_interrupts(disk: Disk) -> Iterator[None]:
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield  # nobody is to be interrupted, or not here
        return
    signal.signal(signal.SIGINT, disk.press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


MARK = b"lus xxh3 "
BLOCK = 1 << 20
LENGTH = len(MARK) + xxhash.xxh3_128().digest_size


@contextlib.contextmanager
def sealing(path: Path) -> Iterator[None]:
    """Seals the file at `path` when the block that writes it ends well."""
    yield
    with path.open("r+b") as file:
        digest = digest_of(file, path.stat().st_size)
        file.write(MARK + digest)


def is_sealed(path: Path) -> bool:
    """Whether every byte of a file is as it was when it was sealed."""
    size = path.stat().st_size - LENGTH
    with path.open("rb") as file:
        return size >= 0 and MARK + digest_of(file, size) == file.read()


def digest_of(file: BinaryIO, size: int) -> bytes:
    """The digest of the next `size` bytes; the file is left where they end."""
    digest = xxhash.xxh3_128()
    while size > 0 and (block := file.read(min(size, BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.digest()
