"""Writing HDF5 files safely, and sealing them with a checksum.

HDF5 survives neither a write error, such as a full disk, nor Ctrl-C during a write: it loses data, or
crashes together with Python.
"""

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
    """A file that never fails for HDF5: it stores the first error of the disk, or Ctrl-C, for later.

    HDF5 does not handle an error while it closes a file: it prints the error once for each object
    of the file, and may crash.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self.raw = raw
        self.error: OSError | KeyboardInterrupt | None = None

    def press(self, _number: int, _frame: FrameType | None) -> None:
        """Handles SIGINT."""
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

    def raise_error(self) -> None:
        """Raises the stored error. Call it regularly, to stop writing soon after an error."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def writing(
    path: Path, *, new: bool = True, libver: str | None = None
) -> Iterator[tuple[h5py.File, Disk]]:
    """Opens an HDF5 file for writing, empty if `new`, and the Disk that receives its bytes.

    Raises OSError with the system's error number if the disk did not take everything. Ctrl-C is
    raised by `raise_error`, or at the end.
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
            disk.raise_error()  # instead of the error that HDF5 raises


@contextlib.contextmanager
def keeping_interrupts(disk: Disk) -> Iterator[None]:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield  # SIGINT is ignored, or does not arrive in this thread
        return
    signal.signal(signal.SIGINT, disk.press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


MARK = b"lus xxh3 "
BLOCK = 1 << 20
LENGTH = len(MARK) + xxhash.xxh3_128().digest_size


@contextlib.contextmanager
def sealing(path: Path) -> Iterator[None]:
    """Appends a checksum to the file at `path` when the block that writes it succeeds."""
    yield
    with path.open("r+b") as file:
        digest = digest_of(file, path.stat().st_size)
        file.write(MARK + digest)


def is_sealed(path: Path) -> bool:
    """Whether every byte of a file is the same as when it was sealed."""
    size = path.stat().st_size - LENGTH
    with path.open("rb") as file:
        return size >= 0 and MARK + digest_of(file, size) == file.read()


def digest_of(file: BinaryIO, size: int) -> bytes:
    """The digest of the next `size` bytes; leaves the file position after them."""
    digest = xxhash.xxh3_128()
    while size > 0 and (block := file.read(min(size, BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.digest()
