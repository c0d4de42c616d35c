"""One video as it lies in videos.h5: compressed chunks, and a file of its own on the way there."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zstandard

from lus_cli.files import replacing

CHUNK_FRAMES = 16
ZSTD_LEVEL = 1  # 3 takes 2.4 times as long and saves a seventh
SHARD_SUFFIX = ".video"


@dataclass(frozen=True)
class StoredVideo:
    """One video as it lies in videos.h5: compressed chunks and what belongs to them."""

    frame_numbers: np.ndarray  # (frame,) int32
    checksum: str  # of the stored pixels
    source_shape: tuple[int, int]  # rows, columns of the original frames
    chunks: tuple[bytes, ...]
    notes: tuple[str, ...] = ()  # what its reader had to say, a sentence each

    @property
    def length(self) -> int:
        return len(self.frame_numbers)

    def save(self, path: Path) -> None:
        """Writes the video to a file of its own, whole or not at all.

        A line of JSON, the chunks, and a CRC-32 of both: faster than NumPy's .npz, most for short videos.
        """
        head = json.dumps(
            {
                "frame_numbers": self.frame_numbers.tolist(),
                "checksum": self.checksum,
                "source_shape": self.source_shape,
                "notes": self.notes,
                "sizes": [len(chunk) for chunk in self.chunks],
            }
        )
        crc = 0
        with replacing(path, lasting=False) as part, part.open("wb") as file:
            for piece in (head.encode() + b"\n", *self.chunks):
                crc = zlib.crc32(piece, crc)
                file.write(piece)
            file.write(crc.to_bytes(4))

    @classmethod
    def load(cls, path: Path) -> StoredVideo | None:
        """Reads what `save` wrote; None if it is not there or not whole."""
        try:
            with path.open("rb") as file:
                line = file.readline()
                head = json.loads(line)
                chunks = tuple(file.read(size) for size in head["sizes"])
                end = file.read()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        crc = 0
        for piece in (line, *chunks):
            crc = zlib.crc32(piece, crc)
        if end != crc.to_bytes(4):
            return None
        numbers = np.array(head["frame_numbers"], np.int32)
        rows, columns = head["source_shape"]
        return cls(numbers, head["checksum"], (rows, columns), chunks, tuple(head["notes"]))


def store_video(
    frames: Iterable[np.ndarray], frame_numbers: Sequence[int], source_shape: tuple[int, int]
) -> StoredVideo:
    """Compresses frames, each (row, column[, channel]) uint8, holding one chunk in memory."""
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
    digest = xxhash.xxh3_128()
    chunks: list[bytes] = []
    buffer: np.ndarray | None = None
    filled = 0
    for frame in frames:
        if buffer is None:
            buffer = np.zeros((CHUNK_FRAMES, *frame.shape), np.uint8)
        buffer[filled] = frame
        digest.update(buffer[filled])
        filled += 1
        if filled == CHUNK_FRAMES:
            chunks.append(compressor.compress(buffer.data))
            filled = 0
    if filled and buffer is not None:
        buffer[filled:] = 0
        chunks.append(compressor.compress(buffer.data))
    numbers = np.asarray(frame_numbers, np.int32)
    return StoredVideo(numbers, digest.hexdigest(), source_shape, tuple(chunks))


MAX_SIZE = 2048  # pixels: the largest frames that `lus prepare` stores


@dataclass(frozen=True)
class FrameFormat:
    """How frames are stored: what a video must be turned into before the model sees it."""

    size: int
    letterbox: bool
    color: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one stored frame: (row, column) or (row, column, channel)."""
        return (self.size, self.size, 3) if self.color else (self.size, self.size)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> FrameFormat:
        """What `asdict` made. Raises ValueError or TypeError if it is no format."""
        read = cls(**content)
        kinds = type(read.size), type(read.letterbox), type(read.color)
        if kinds != (int, bool, bool) or not 0 < read.size <= MAX_SIZE:
            raise ValueError(f"no frame format: {content}")
        return read
