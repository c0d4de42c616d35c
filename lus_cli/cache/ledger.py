"""What the files of a video held when they were decoded: where times deceive, content decides.

A video whose files have other times than when it was decoded, but the same names and sizes, may
only have been copied or touched. One whose files were written less than RACY_S before they were
read may have been written once more since, at what the disk calls the same time. In both cases the
files are read and compared by their content, which costs much less than decoding them. Git does the
same with its index.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from lus_cli.cache.chunks import FrameFormat
from lus_cli.errors import LusError
from lus_cli.files import fingerprint, read_json, write_json
from lus_cli.processes import cores
from lus_cli.study.sources import Source

BLOCK = 1 << 20
RACY_S = 2.0  # the coarsest time of files that is met, that of FAT


@dataclass(frozen=True)
class Reading:
    """The files of a video at one moment, and the format that their frames are wanted in."""

    sizes: str  # names their names and sizes, not their times
    content: str  # names their content too
    newest: float  # time of the file written last, s since 1970
    taken: float  # before any of them was read, s since 1970

    @property
    def racy(self) -> bool:
        """Whether equal times do not prove that nothing was written since."""
        return self.newest > self.taken - RACY_S


Ledger = dict[str, Reading]  # by source key


def take_reading(source: Source, frame_format: FrameFormat) -> Reading:
    """Reads the files of a source. Raises LusError if one of them cannot be read."""
    taken, newest, digest = time.time(), 0.0, xxhash.xxh3_128()
    path = source.location
    try:
        for path in source.files:
            with path.open("rb", buffering=0) as file:
                newest = max(newest, os.fstat(file.fileno()).st_mtime)
                while block := file.read(BLOCK):
                    digest.update(block)
    except OSError as error:
        raise LusError(f"{path} cannot be decoded", error.strerror or str(error)) from error
    sizes = sizes_of(source, frame_format)
    return Reading(sizes, fingerprint([sizes, digest.hexdigest()]), newest, taken)


def sizes_of(source: Source, frame_format: FrameFormat) -> str:
    """Names a video's files by name and size, and everything else that decides its frames.

    The size of a file that is gone is none: no reading has that.
    """

    def size(path: Path) -> int | None:
        try:
            return path.stat().st_size
        except OSError:
            return None

    root = f"{source.root.as_posix()}/"  # Path.relative_to is slow, and this is for every frame
    files = [[path.as_posix().removeprefix(root), size(path)] for path in source.files]
    return fingerprint([asdict(frame_format), source.id, source.kind, source.options, files])


def take_readings(sources: Iterable[Source], frame_format: FrameFormat) -> list[Reading | None]:
    """Readings of several sources, side by side; None for one that cannot be read."""

    def one(source: Source) -> Reading | None:
        try:
            return take_reading(source, frame_format)
        except (LusError, OSError):
            return None  # decoding it will say why

    with ThreadPoolExecutor(cores()) as pool:  # hashing holds no interpreter's lock
        return list(pool.map(one, sources))


def read_ledger(path: Path) -> Ledger:
    """The readings in a file. Empty if there is none: then times alone decide."""
    try:
        return {key: as_reading(value) for key, value in read_json(path, "").items()}
    except (LusError, TypeError, ValueError, OverflowError):
        return {}


def as_reading(value: dict[str, Any]) -> Reading:
    """What `asdict` made of a reading. Raises TypeError, ValueError or OverflowError if it is none."""
    reading = Reading(**value)
    times = float(reading.newest), float(reading.taken)
    if not all(map(math.isfinite, times)):
        raise ValueError("no times")
    return Reading(str(reading.sizes), str(reading.content), *times)


def write_ledger(path: Path, ledger: Ledger) -> None:
    write_json(path, {key: asdict(reading) for key, reading in sorted(ledger.items())})
