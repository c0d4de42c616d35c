"""videos.h5: its layout, and how it is read.

The dataset `frames` is uint8 (video, frame, row, column[, channel]), zero-padded to the longest
video. A chunk is CHUNK_FRAMES frames of one video, compressed with Zstandard. Chunks of padding are
not written, so padding costs neither space nor time. h5py reads the file once hdf5plugin is
imported. lus compresses and decompresses chunks outside HDF5, whose global lock would limit it to
one core.

The other datasets are tables with one row per video; see tables.py.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
import zstandard

from lus_cli.cache.chunks import CHUNK_FRAMES, FrameFormat, StoredVideo
from lus_cli.cache.tables import (
    NUMBER_ROWS,
    TABLES,
    check_tables,
    from_texts,
    is_too_large,
    labels_of,
    read_numbers,
    read_row,
    read_table,
    tables_checksum,
)
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.study.hdf5_reading import open_hdf5
from lus_cli.study.ids import VideoId, is_name, leads_out
from lus_cli.words import joined

FORMAT_VERSION = 5  # increase it when videos.h5 is laid out differently
READABLE = (4, 5)  # a file of format 4 is copied to one of 5 when `lus prepare` has to write it
# An attribute of the file and of its frames, for readers who do not know lus.
READ_WITH = (
    "The frames are compressed with Zstandard. In Python: pip install hdf5plugin, then import "
    'hdf5plugin before reading them with h5py; otherwise HDF5 says "can\'t open directory". Elsewhere, '
    "set HDF5_PLUGIN_PATH to a folder with the HDF5 filter 32015. The first length[i] frames of video i "
    "are real, the others padding."
)
# What reading a damaged file raises: HDF5 has no single exception for it.
READING = (OSError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Entry:
    """The metadata of a video in the cache."""

    id: VideoId
    score: int  # UNKNOWN if unlabelled
    a_lines: int  # 0, 1 or UNKNOWN
    b_lines: int  # 0, 1 or UNKNOWN
    source_key: str  # changes when the source files or the frame format change
    source_kind: str = "frames"  # of the original frames: see sources.Kind
    source_path: str = ""  # relative to the root of the study; "": patient/exam/area
    group: str = ""  # hospital or scanner of the patient; "" if there are no groups


def table(name: str, made: Callable[[np.ndarray], Any] = np.asarray) -> cached_property[Any]:
    """A property of VideoCache: a table, read when it is first used, and converted by `made`."""

    def read(videos: VideoCache) -> Any:
        with videos.explained():
            return made(read_table(videos.file, name))

    return cached_property(read)


class VideoCache:
    """Reads videos.h5. The file is opened on first use, so a VideoCache can be pickled.

    Example:
        >>> videos = VideoCache(Path("cache/videos.h5"))
        >>> len(videos), str(videos.ids[0])
        (18, '1017/1048/11')
        >>> frames = videos.read(0, np.array([0, 5]))  # None: all frames
        >>> frames.dtype, frames.shape
        (dtype('uint8'), (2, 64, 64))
        >>> videos.frame_numbers(0)[[0, 5]]  # of these frames in the study
        array([0, 5], dtype=int32)
        >>> videos.groups[0]  # the hospital or scanner; '' if the study names none
        ''

    """

    def __init__(self, path: Path) -> None:
        """Reads ids, scores and lengths; other tables are read when they are needed.

        Raises LusError if `path` is missing, damaged or of another format. A table that is damaged
        raises it when it is read.
        """
        self.path = path
        self._verified: set[tuple[int, int]] = set()  # chunks that match their checksum
        self._block: tuple[int, np.ndarray] = (-1, np.empty(0))  # frame numbers read last
        if not path.is_file():
            raise LusError(f"there is no {path}", "run `lus prepare` first")
        with self.explained():
            self._open(self.file)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Raises LusError for what reading a damaged file raises."""
        try:
            with explaining_refusal(self.path):
                yield
        except READING as error:
            raise LusError(
                f"{self.path} is damaged ({error})", "delete it and run `lus prepare`"
            ) from error

    def _open(self, file: h5py.File) -> None:
        version = int(file.attrs["format_version"])
        if version not in READABLE:
            raise LusError(
                f"{self.path} has format {version}, but this version of lus reads "
                f"{joined(READABLE, 'and')}",
                "run `lus prepare` again",
            )
        if any(is_too_large(file[name]) for name in set(file) - {"frames"}):
            raise ValueError("a table is too large")
        if tables_checksum(file) != file.attrs[TABLES]:
            raise ValueError("its table of ids, scores and settings does not match its checksum")
        self.stored_format = FrameFormat.from_json(json.loads(file.attrs["frame_format"]))
        self.frame_format = self.stored_format  # of the frames that `read` returns
        self.provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
        self.fingerprint = str(file.attrs["fingerprint"])
        self.lengths: np.ndarray = read_table(file, "length")
        if not ((self.lengths >= 0) & (self.lengths <= file["frames"].shape[1])).all():
            raise ValueError("a length is out of range")
        self.scores: np.ndarray = read_table(file, "score").astype(np.int64)
        # Of each video. Equal names are one object.
        self.patients, self._exams, self._areas = (
            from_texts(read_table(file, name)) for name in ("patient", "exam", "area")
        )
        for names in (self.patients, self._exams, self._areas):
            if len(names) != len(self.lengths):
                raise ValueError("its tables have different lengths")
            if not all(map(is_name, set(names))):
                raise ValueError("an id is not a valid name")  # ids become file names

    @cached_property
    def ids(self) -> list[VideoId]:
        """The id of each video."""
        return list(map(VideoId, self.patients, self._exams, self._areas))

    # Tables with a value of each video.
    a_lines = table("a_lines")  # (video,) int8: 0, 1 or UNKNOWN
    b_lines = table("b_lines")
    source_shapes = table("source_shape")  # (video, 2) int32: rows and columns of original frames
    source_keys = table("source_key", from_texts)
    source_kinds = table("source_kind", from_texts)
    checksum_table = table("checksum")  # of the pixels: (video,) bytes
    checksums = table("checksum", from_texts)

    @cached_property
    def notes(self) -> list[tuple[str, ...]]:
        """The sentences of the reader on each video, see study.notes."""
        with self.explained():
            rows = from_texts(read_table(self.file, "notes"))
            sentences = {row: tuple(map(str, json.loads(row))) for row in set(rows)}
        return [sentences[row] for row in rows]

    @cached_property
    def groups(self) -> list[str]:
        """The hospital or scanner of each video; "" if the study names none."""
        if "group" not in self.file:
            return [""] * len(self)
        with self.explained():
            groups = from_texts(read_table(self.file, "group"))
            if len(groups) != len(self) or not all(map(is_name, set(groups))):
                raise ValueError("a group is not a valid name")
        return groups

    @cached_property
    def source_paths(self) -> list[str]:
        """The path of each video in its study, see `Entry`."""
        with self.explained():
            paths = from_texts(read_table(self.file, "source_path"))
            if any(map(leads_out, paths)):
                raise ValueError("a source path leads out of its study")
        return paths

    def source(self, index: int) -> tuple[Any, str]:
        """Kind and path of the original frames of one video, see `Entry`; reads no other video's."""
        with self.explained():
            names = "source_kind", "source_path"
            kind, path = (read_row(self.file, name, index).decode() for name in names)
            if leads_out(path):
                raise ValueError("a source path leads out of its study")
        return kind, path

    @cached_property
    def file(self) -> h5py.File:
        """Raises LusError if `lus prepare` replaced the file since its tables were read."""
        file = open_hdf5(self.path)
        if self.__dict__.get("fingerprint", file.attrs["fingerprint"]) != file.attrs["fingerprint"]:
            raise LusError(f"{self.path} was replaced while it was in use", "run the command again")
        return file

    def close(self) -> None:
        """Closes the file. It is opened again when it is needed."""
        if (file := self.__dict__.pop("file", None)) is not None:
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle: without tables, which are read again when they are needed."""
        read_again = {
            name for name, value in vars(VideoCache).items() if isinstance(value, cached_property)
        }
        return {name: value for name, value in self.__dict__.items() if name not in read_again}

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def labels(self) -> str:
        """A fingerprint of ids and scores, as `fingerprint` is one of ids and pixels."""
        stored = self.file.attrs.get("labels")
        return labels_of(self.ids, self.scores.tolist()) if stored is None else str(stored)

    def index(self, video: VideoId) -> int:
        """The index of a video. Raises LusError, naming the existing ids, if it is not in the cache."""
        if video in self.ids:
            return self.ids.index(video)
        for depth, (kind, kinds) in enumerate(
            (("patient", "patients"), ("exam", "exams"), ("area", "areas"))
        ):
            siblings = [other for other in self.ids if other[:depth] == video[:depth]]
            if not any(other[depth] == video[depth] for other in siblings):
                names = list(dict.fromkeys(other[depth] for other in siblings))
                owner = (
                    f"{('the study', 'patient', 'exam')[depth]} {'/'.join(video[:depth])}".strip()
                )
                raise LusError(
                    f"there is no {kind} {video[depth]}", f"{owner} has {kinds} {', '.join(names)}"
                )
        raise AssertionError("patient, exam and area exist, but not the video")

    def frame_numbers(self, index: int) -> np.ndarray:
        """The original number of each real frame of a video: (frame,) int32."""
        block, row = divmod(index, NUMBER_ROWS)
        if self._block[0] != block:
            with self.explained():
                self._block = block, read_numbers(self.file, block, self.lengths)
        return self._block[1][row, : self.lengths[index]]

    def read(self, index: int, positions: np.ndarray | None = None) -> np.ndarray:
        """Frames of one video: (frame, row, column[, channel]) uint8.

        `positions` are indices of frames, in any order; None reads all frames. Raises IndexError
        for a position beyond the length of the video, LusError if a chunk is damaged.
        """
        length = int(self.lengths[index])
        if positions is None:
            out = np.empty((length, *self.stored_format.shape), np.uint8)
            for start in range(0, length, CHUNK_FRAMES):
                into = out[start : start + CHUNK_FRAMES]
                into[...] = self._chunk(index, start // CHUNK_FRAMES)[: len(into)]
            return out
        positions = np.asarray(positions)
        if len(positions) and not (positions.min() >= 0 and positions.max() < length):
            raise IndexError(f"video {self.ids[index]} has {length} frames")
        out = np.empty((len(positions), *self.stored_format.shape), np.uint8)
        chunk_of, inside = np.divmod(positions, CHUNK_FRAMES)
        for chunk in np.unique(chunk_of):
            where = np.flatnonzero(chunk_of == chunk)
            frames = int(inside[where].max()) + 1
            out[where] = self._chunk(index, int(chunk), frames)[inside[where]]
        return out

    def _chunk(self, index: int, chunk: int, frames: int = CHUNK_FRAMES) -> np.ndarray:
        """At least the first `frames` frames of a chunk.

        The checksum covers a whole chunk. So a chunk is decompressed completely the first time, and
        afterwards only up to the frames needed.
        """
        frame_shape = self.stored_format.shape
        try:
            with explaining_refusal(self.path):
                raw = self.raw_chunk(index, chunk)
            decompressor = zstandard.ZstdDecompressor()
            if frames == CHUNK_FRAMES or (index, chunk) not in self._verified:
                if zstandard.frame_content_size(raw) != CHUNK_FRAMES * math.prod(frame_shape):
                    raise ValueError("a chunk has the wrong size")
                whole = decompressor.decompress(raw)
                self._verified.add((index, chunk))
                return np.frombuffer(whole, np.uint8).reshape(CHUNK_FRAMES, *frame_shape)
            pixels = np.empty((frames, *frame_shape), np.uint8)
            if decompressor.stream_reader(raw).readinto(pixels.reshape(-1).data) != pixels.size:
                raise ValueError("a chunk is too short")
            return pixels
        except (zstandard.ZstdError, *READING) as error:
            video = VideoId(self.patients[index], self._exams[index], self._areas[index])
            raise LusError(
                f"{self.path}: video {video} is damaged ({error})",
                "delete the file and run `lus prepare`",
            ) from error

    def raw_chunk(self, index: int, chunk: int) -> bytes:
        """One chunk as stored, compressed."""
        offset = (index, chunk * CHUNK_FRAMES, *(0 for _ in self.stored_format.shape))
        try:
            return bytes(self.file["frames"].id.read_direct_chunk(offset)[1])
        except MemoryError:  # HDF5 gives a chunk that was never written a size without bounds
            raise ValueError("a chunk is missing") from None

    def stored(self, index: int) -> StoredVideo:
        """One video as stored, for copying it into another cache without decoding."""
        chunks = -(-int(self.lengths[index]) // CHUNK_FRAMES)
        return StoredVideo(
            self.frame_numbers(index),
            self.checksums[index],
            tuple(self.source_shapes[index].tolist()),
            tuple(self.raw_chunk(index, chunk) for chunk in range(chunks)),
            self.notes[index],
        )

    @cached_property
    def entries(self) -> list[Entry]:
        """The metadata of each video."""
        columns = (self.scores, self.a_lines, self.b_lines)
        numbers = (map(int, column) for column in columns)
        sources = (self.source_keys, self.source_kinds, self.source_paths, self.groups)
        return [Entry(*row) for row in zip(self.ids, *numbers, *sources, strict=True)]

    def damaged(self) -> Iterator[tuple[int, bool]]:
        """Reads everything; yields the index of each video and whether it fails its checksum."""
        with self.explained():
            check_tables(self.file, self.lengths)
        for index in range(len(self)):
            try:
                digest = xxhash.xxh3_128(self.read(index).data).hexdigest()
            except LusError:
                digest = ""
            yield index, digest != self.checksums[index]
