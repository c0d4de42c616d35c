"""A checksum over every byte of a file, at its end, where HDF5 does not look.

The checksums in videos.h5 are of pixels and tables. What HDF5 itself keeps in the file has none in
part, and a damaged byte of it may only matter to another reader, or later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

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
