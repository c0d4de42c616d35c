"""videos.h5: its layout, and how it is read.

The dataset `frames` is uint8 (video, frame, row, column[, channel]), zero-padded to the longest
video. A chunk is CHUNK_FRAMES frames of one video, compressed with Zstandard. Chunks of padding are
not written, so padding costs neither space nor time. h5py reads the file once hdf5plugin is
imported. lus compresses and decompresses chunks outside HDF5, whose global lock would limit it to
one core.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
import zstandard

from lus_cli.cache.chunks import CHUNK_FRAMES, FrameFormat, StoredVideo
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.files import fingerprint
from lus_cli.study.hdf5_reading import open_hdf5
from lus_cli.study.ids import VideoId, is_name, leads_out

FORMAT_VERSION = 4  # increase it when frames are decoded or stored differently
TABLES = "tables_checksum"  # the attribute
# An attribute of the file and of its frames, for readers who do not know lus.
READ_WITH = (
    "The frames are compressed with Zstandard. In Python: pip install hdf5plugin, then import "
    'hdf5plugin before reading them with h5py; otherwise HDF5 says "can\'t open directory". Elsewhere, '
    "set HDF5_PLUGIN_PATH to a folder with the HDF5 filter 32015. The first length[i] frames of video i "
    "are real, the others padding."
)
MAX_TABLE = 10**9  # values of a table: that of a million long videos has fewer
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


def tables_checksum(file: h5py.File) -> str:
    """The checksum of everything in the file except the frames, which have their own."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(set(file) - {"frames"}):
        values = file[name][:]
        texts = b"\0".join(values) if values.dtype == object else values.tobytes()
        digest.update(f"{name} {values.shape} ".encode() + texts)
    for name in sorted(set(file.attrs) - {TABLES}):
        digest.update(f"{name} {file.attrs[name]} ".encode())
    return digest.hexdigest()


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
        """Reads the tables. Raises LusError if `path` is missing, damaged or of another format."""
        self.path = path
        self._verified: set[tuple[int, int]] = set()  # chunks that match their checksum
        if not path.is_file():
            raise LusError(f"there is no {path}", "run `lus prepare` first")
        try:
            with explaining_refusal(path):
                self._read_tables(self.file)
        except READING as error:
            raise LusError(
                f"{path} is damaged ({error})", "delete it and run `lus prepare`"
            ) from error

    def _read_tables(self, file: h5py.File) -> None:
        version = int(file.attrs["format_version"])
        if version != FORMAT_VERSION:
            raise LusError(
                f"{self.path} has format {version}, but this version of lus reads {FORMAT_VERSION}",
                "run `lus prepare` again",
            )
        if any(file[name].size > MAX_TABLE for name in set(file) - {"frames"}):
            raise ValueError("a table is too large")
        if tables_checksum(file) != file.attrs[TABLES]:
            raise ValueError("its table of ids, scores and settings does not match its checksum")
        self.stored_format = FrameFormat.from_json(json.loads(file.attrs["frame_format"]))
        self.frame_format = self.stored_format  # of the frames that `read` returns
        self.provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
        self.fingerprint = str(file.attrs["fingerprint"])
        columns = (file[name].asstr()[:] for name in ("patient", "exam", "area"))
        self.ids = [VideoId(*row) for row in zip(*columns, strict=True)]
        if not all(is_name(part) for video in self.ids for part in video):
            raise ValueError("an id is not a valid name")  # ids become file names
        self.lengths: np.ndarray = file["length"][:]
        if not ((self.lengths >= 0) & (self.lengths <= file["frames"].shape[1])).all():
            raise ValueError("a length is out of range")
        self.scores: np.ndarray = file["score"][:].astype(np.int64)
        self.a_lines: np.ndarray = file["a_lines"][:]
        self.b_lines: np.ndarray = file["b_lines"][:]
        self.source_shapes: np.ndarray = file["source_shape"][:]
        self.source_keys = list(file["source_key"].asstr()[:])
        self.source_kinds = list(file["source_kind"].asstr()[:])
        self.source_paths = list(file["source_path"].asstr()[:])
        if any(leads_out(path) for path in self.source_paths):
            raise ValueError("a source path leads out of its study")
        self.checksums = list(file["checksum"].asstr()[:])
        self.notes = [tuple(map(str, json.loads(row))) for row in file["notes"].asstr()[:]]
        # A study without groups has no such table, nor has a file from before lus knew groups.
        self.groups: list[str] = [""] * len(self.ids)
        if "group" in file:
            self.groups = list(file["group"].asstr()[:])
            if len(self.groups) != len(self.ids) or not all(map(is_name, self.groups)):
                raise ValueError("a group is not a valid name")
        self._numbers: np.ndarray = file["frame_number"][:]

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
        return {name: value for name, value in self.__dict__.items() if name != "file"}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def patients(self) -> list[str]:
        """The patient of each video."""
        return [video.patient for video in self.ids]

    @cached_property
    def labels(self) -> str:
        """A fingerprint of ids and scores, as `fingerprint` is one of ids and pixels."""
        rows = zip(self.ids, self.scores.tolist(), strict=True)
        return fingerprint([[*video, score] for video, score in rows])

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
        return self._numbers[index, : self.lengths[index]]

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
            raise LusError(
                f"{self.path}: video {self.ids[index]} is damaged ({error})",
                "delete the file and run `lus prepare`",
            ) from error

    def raw_chunk(self, index: int, chunk: int) -> bytes:
        """One chunk as stored, compressed."""
        frames = self.file["frames"]
        offset = (index, chunk * CHUNK_FRAMES, *(0 for _ in self.stored_format.shape))
        return bytes(frames.id.read_direct_chunk(offset)[1])

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

    @property
    def entries(self) -> list[Entry]:
        """The metadata of each video."""
        columns = (self.scores, self.a_lines, self.b_lines)
        numbers = (map(int, column) for column in columns)
        sources = (self.source_keys, self.source_kinds, self.source_paths, self.groups)
        return [Entry(*row) for row in zip(self.ids, *numbers, *sources, strict=True)]

    def damaged(self) -> Iterator[tuple[int, bool]]:
        """Reads every video completely; yields its index and whether it fails its checksum."""
        for index in range(len(self)):
            try:
                digest = xxhash.xxh3_128(self.read(index).data).hexdigest()
            except LusError:
                digest = ""
            yield index, digest != self.checksums[index]
