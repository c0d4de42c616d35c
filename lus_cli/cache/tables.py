"""The tables of videos.h5: datasets with one row per video, which are read when they are needed.

The rows of a table lie in blocks, each with a checksum that is compared when the block is read. So
opening a file with a million videos reads no table, and the frame numbers of one video cost one
block. `tables_checksum` covers the checksums of the blocks. A file of format 4 has no blocks: its
`tables_checksum` covers the values themselves, which are all read when it is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numpy as np
import xxhash

from lus_cli.files import fingerprint
from lus_cli.study.ids import VideoId

SUMS = "checksums"  # the attribute of a table: (block,) uint64
TABLES = "tables_checksum"  # the attribute of the file
ROWS = 4096  # of a block
NUMBERS, NUMBER_ROWS = "frame_number", 256  # whose rows are long: one number per frame
NUMBER_FRAMES = 64  # frames per HDF5 chunk of this table
LONGEST_TEXT = 64  # bytes: longer texts have variable length, so that one does not widen all rows
MAX_TABLE = 10**9  # values that are read at once: those of a million long videos are fewer
PACKING = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


def content_of(values: np.ndarray) -> bytes:
    """The bytes of a block that its checksum covers."""
    return b"\0".join(values) if values.dtype == object else values.tobytes()


def sum_of(content: bytes) -> int:
    return xxhash.xxh3_64_intdigest(content)


def real_numbers(rows: np.ndarray, lengths: np.ndarray) -> bytes:
    """What the checksum of a block of frame numbers covers: padding depends on other videos.

    rows: (video, frame) int32; lengths: (video,).
    """
    return rows[np.arange(rows.shape[1]) < lengths[:, None]].tobytes()


def write_table(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Writes a table and its checksums; replaces one of the same name."""
    if name in file:
        del file[name]
    chunks = (min(ROWS, max(len(values), 1)), *values.shape[1:])
    table = file.create_dataset(name, data=values, chunks=chunks, **PACKING)
    blocks = (values[start : start + ROWS] for start in range(0, len(values), ROWS))
    table.attrs[SUMS] = np.array([sum_of(content_of(block)) for block in blocks], np.uint64)


def as_texts(values: Sequence[str]) -> np.ndarray:
    """Texts as HDF5 stores them, in UTF-8: of fixed length if all are short."""
    encoded = [value.encode() for value in values]
    longest = max(map(len, encoded), default=0)
    if longest > LONGEST_TEXT:
        return np.array(encoded, h5py.string_dtype())
    return np.array(encoded, h5py.string_dtype(length=max(longest, 1)))


def from_texts(values: np.ndarray) -> list[str]:
    """Texts as they were before `as_texts`; equal ones are one object, so names take little memory."""
    encoded = values.tolist()
    texts = {value: value.decode() for value in set(encoded)}
    return [texts[value] for value in encoded]


class NumbersWriter:
    """Writes the frame numbers of one video after another, a block at a time."""

    def __init__(self, file: h5py.File, videos: int) -> None:
        self.table = file.create_dataset(
            NUMBERS,
            shape=(videos, 0),
            maxshape=(videos, None),
            chunks=(min(NUMBER_ROWS, videos), NUMBER_FRAMES),
            dtype=np.int32,
            fillvalue=-1,
            **PACKING,
        )
        self.longest = 0
        self.block: list[np.ndarray] = []
        self.sums: list[int] = []

    def add(self, numbers: np.ndarray) -> None:
        """Adds the next video: (frame,) int32."""
        self.block.append(numbers)
        if len(self.block) == NUMBER_ROWS:
            self.write_block()

    def write_block(self) -> None:
        lengths = np.array(list(map(len, self.block)))
        rows = np.full((len(self.block), lengths.max()), -1, np.int32)
        for row, numbers in zip(rows, self.block, strict=True):
            row[: len(numbers)] = numbers
        start = len(self.sums) * NUMBER_ROWS
        if rows.shape[1] > self.longest:
            self.longest = rows.shape[1]
            self.table.resize(self.longest, axis=1)
        self.table[start : start + len(rows), : rows.shape[1]] = rows
        self.sums.append(sum_of(real_numbers(rows, lengths)))
        self.block.clear()

    def close(self) -> None:
        """Writes the last block and the checksums."""
        if self.block:
            self.write_block()
        self.table.attrs[SUMS] = np.array(self.sums, np.uint64)


def read_table(file: h5py.File, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows of a table, in blocks from that of `start` to that of `stop - 1`; None reads all.

    Raises ValueError if a block does not match its checksum. `start` must be the first of a block.
    """
    table: h5py.Dataset = file[name]
    values: np.ndarray = table[start:stop]
    sums = table.attrs.get(SUMS)
    if sums is not None:
        for place in range(0, len(values), ROWS):
            if sum_of(content_of(values[place : place + ROWS])) != sums[(start + place) // ROWS]:
                raise ValueError(f"its table {name} does not match its checksum")
    return values


def read_row(file: h5py.File, name: str, row: int) -> Any:
    """One row of a table, for which one block is read; see `read_table`."""
    start = row // ROWS * ROWS
    return read_table(file, name, start, start + ROWS)[row - start]


def read_numbers(file: h5py.File, block: int, lengths: np.ndarray) -> np.ndarray:
    """A block of frame numbers: (video, frame) int32, padded.

    lengths: (video,) of all videos. Raises ValueError if the block does not match its checksum.
    """
    table: h5py.Dataset = file[NUMBERS]
    here = slice(block * NUMBER_ROWS, (block + 1) * NUMBER_ROWS)
    rows: np.ndarray = table[here]
    sums = table.attrs.get(SUMS)
    if sums is not None and sum_of(real_numbers(rows, lengths[here])) != sums[block]:
        raise ValueError(f"its table {NUMBERS} does not match its checksum")
    return rows


def check_tables(file: h5py.File, lengths: np.ndarray) -> None:
    """Reads every table. Raises ValueError if one does not match its checksum.

    lengths: (video,) of all videos.
    """
    for name, table in file.items():
        if SUMS in table.attrs and name != NUMBERS:
            read_table(file, name)
    for block in range(-(-len(lengths) // NUMBER_ROWS)):
        read_numbers(file, block, lengths)


def tables_checksum(file: h5py.File) -> str:
    """The checksum of everything in the file except the frames, which have their own."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(set(file) - {"frames"}):
        table = file[name]
        sums = table.attrs.get(SUMS)
        content = content_of(table[:]) if sums is None else sums.tobytes()
        digest.update(f"{name} {table.shape} ".encode() + content)
    for name in sorted(set(file.attrs) - {TABLES}):
        digest.update(f"{name} {file.attrs[name]} ".encode())
    return digest.hexdigest()


def labels_of(ids: Iterable[VideoId], scores: Iterable[int]) -> str:
    """A fingerprint of ids and scores."""
    return fingerprint([[*video, score] for video, score in zip(ids, scores, strict=True)])


def is_too_large(table: h5py.Dataset) -> bool:
    """Whether reading a table, or a block of frame numbers, takes more memory than any study needs."""
    rows = NUMBER_ROWS if table.name == f"/{NUMBERS}" and SUMS in table.attrs else len(table)
    return bool(table.size // max(len(table), 1) * min(rows, len(table)) > MAX_TABLE)
