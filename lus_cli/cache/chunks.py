"""One video as stored in videos.h5: compressed chunks, and the shard that holds them before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zstandard

from lus_cli.files import replacing

CHUNK_FRAMES = 16
ZSTD_LEVEL = 1  # level 3 takes 2.4 times as long and saves one seventh
SHARD_SUFFIX = ".video"


@dataclass(frozen=True)
class StoredVideo:
    """One video as stored in videos.h5: compressed chunks and their metadata."""

    frame_numbers: np.ndarray  # (frame,) int32
    checksum: str  # of the stored pixels
    source_shape: tuple[int, int]  # rows, columns of the original frames
    chunks: tuple[bytes, ...]
    notes: tuple[str, ...] = ()  # sentences of the reader, see study.notes

    @property
    def length(self) -> int:
        """The number of frames."""
        return len(self.frame_numbers)

    def save(self, path: Path) -> None:
        """Writes the video to a file of its own, atomically.

        The file is a line of JSON, the chunks, and a checksum of both. This is faster than NumPy's
        .npz, mostly for short videos.
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
        pieces = (head.encode() + b"\n", *self.chunks)
        with replacing(path, lasting=False) as part, part.open("wb") as file:
            for piece in (*pieces, checksum_of(pieces)):
                file.write(piece)

    @classmethod
    def load(cls, path: Path) -> StoredVideo | None:
        """Reads a file that `save` wrote; None if it is missing or damaged."""
        try:
            with path.open("rb") as file:
                line = file.readline()
                head = json.loads(line)
                chunks = tuple(file.read(size) for size in head["sizes"])
                end = file.read()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if end != checksum_of((line, *chunks)):
            return None
        numbers = np.array(head["frame_numbers"], np.int32)
        rows, columns = head["source_shape"]
        return cls(numbers, head["checksum"], (rows, columns), chunks, tuple(head["notes"]))


def checksum_of(pieces: Iterable[bytes]) -> bytes:
    """The checksum of a shard. It takes a tenth of the time of CRC-32."""
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def store_video(
    frames: Iterable[np.ndarray], frame_numbers: Sequence[int], source_shape: tuple[int, int]
) -> StoredVideo:
    """Compresses frames, each (row, column[, channel]) uint8; keeps one chunk in memory."""
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


MAX_SIZE = 2048  # pixels: side of the largest frames that `lus prepare` stores


@dataclass(frozen=True)
class FrameFormat:
    """How frames are stored, and therefore what the model gets: size in pixels, aspect, colour."""

    size: int
    letterbox: bool
    color: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one stored frame: (row, column) or (row, column, channel)."""
        return (self.size, self.size, 3) if self.color else (self.size, self.size)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> FrameFormat:
        """The inverse of `asdict`. Raises ValueError or TypeError if `content` is not a format."""
        frame_format = cls(**content)
        types = tuple(map(type, (frame_format.size, frame_format.letterbox, frame_format.color)))
        if types != (int, bool, bool) or not 0 < frame_format.size <= MAX_SIZE:
            raise ValueError(f"not a frame format: {content}")
        return frame_format
