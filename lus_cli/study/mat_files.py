"""Reads MATLAB files in the format of the report's data: `frames`, and `Score_matrix` of a video.

Files of version 5 (and 4) are read by SciPy, as a whole because of their compression. Files of
version 7.3 are HDF5 with reversed axes, and are read frame by frame. Only arrays of numbers are read,
no MATLAB objects or references.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.study.annotations import SCORES
from lus_cli.study.exam_tree import MAX_PIXELS
from lus_cli.study.hdf5_reading import open_hdf5
from lus_cli.study.video_files import MAX_FRAMES

try:
    import h5py
    import scipy.io  # type: ignore[import-untyped]
except ImportError as error:
    raise LusError("reading .mat files needs SciPy", "pip install 'lus-cli[mat]'") from error

FRAMES = "frames"
SCORE_MATRIX = "Score_matrix"
# Of one array of version 5, which is held in memory; decompression takes up to 1.8 times as much.
MAX_BYTES = 2**30
# The whosmat names of arrays whose shape does not determine their size.
NO_NUMBERS = ("cell", "char", "function", "object", "opaque", "sparse", "struct", "unknown")
MOST_PACKED = 1100  # zlib packs at most 1032 bytes in one (zlib's technical details)
BLOCK_BYTES = 2**28  # of frames of version 7.3 that are read at once
VERSION_5_HEADER, COMPRESSED = 128, 15  # bytes; the type of an element
NUMBERS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)  # the types of elements that hold numbers
COMPLEX = 1 << 11  # among the flags of an array
HEAD = 4096  # bytes that hold the flags, up to 32 axes and the name (63 characters) of an array
AGAIN = "copy it again from its origin"
Shape = tuple[int, ...]


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Yields the frames of a .mat file in order, each (row, column, 3) uint8 RGB.

    Raises LusError if the file is damaged, or `frames` is not (row, column, 3, frame) uint8.
    """
    with explaining(path):
        frame_shape(path)
        if h5py.is_hdf5(path):
            with open_hdf5(path) as file:
                stored = array_in(file, path, FRAMES)
                for frame in frames_in(stored):
                    yield np.ascontiguousarray(frame.T)
        else:
            video = scipy.io.loadmat(path, variable_names=[FRAMES])[FRAMES]
            for number in range(1 if video.ndim == 3 else video.shape[3]):
                frame = video if video.ndim == 3 else video[..., number]
                yield np.ascontiguousarray(frame)


def highest_score(path: Path, scores: Path) -> int:
    """The highest score of a frame in the file `scores`, which belongs to the video in `path`.

    `Score_matrix` is (3, frame), binary and cumulative: a frame's score is the sum of its column.
    It may be one frame short of the video. Raises LusError for anything else.
    """
    if not scores.is_file():
        raise LusError(f"{path} has no scores", f"they are expected in {scores.name}")
    with explaining(path):
        *_, length = frame_shape(path)
    with explaining(scores):
        shape, _ = shape_of(scores, SCORE_MATRIX)
        if len(shape) != 2 or shape[0] != len(SCORES) - 1:
            raise wrong(scores, SCORE_MATRIX, shape, "numbers (3, frame)")
        if length - shape[1] not in (0, 1):  # before reading it, as it may be large
            raise LusError(f"{scores} scores {shape[1]} frames, but the video has {length}")
        if h5py.is_hdf5(scores):
            with open_hdf5(scores) as file:
                matrix = array_in(file, scores, SCORE_MATRIX)[...].T
        else:
            matrix = scipy.io.loadmat(scores, variable_names=[SCORE_MATRIX])[SCORE_MATRIX]
        if matrix.dtype.kind not in "buif":
            raise wrong(scores, SCORE_MATRIX, matrix.shape, "numbers (3, frame)")
        steps = np.diff(matrix.astype(float), axis=0)
        cumulative = (steps <= 0).all() or (steps >= 0).all()  # from the top, or from the bottom
        if not np.isin(matrix, (0, 1)).all() or not cumulative:
            raise LusError(
                f"{scores}: {SCORE_MATRIX} is not binary and cumulative",
                "a column is 0 0 0, 1 0 0, 1 1 0 or 1 1 1",
            )
    return int(matrix.sum(axis=0).max(initial=0))


def frame_shape(path: Path) -> Shape:
    """(row, column, 3, frame) of the video in a .mat file, without reading its pixels.

    Raises LusError if it holds none.
    """
    shape, dtype = shape_of(path, FRAMES)
    if len(shape) == 3:
        shape = (*shape, 1)  # MATLAB drops a last axis of one
    if len(shape) != 4 or shape[2] != 3 or dtype != "uint8" or not all(shape):
        raise wrong(path, FRAMES, shape, "uint8 (row, column, 3, frame)")
    if shape[0] * shape[1] > MAX_PIXELS or shape[3] > MAX_FRAMES:
        raise LusError(f"{path}: {FRAMES} is {shape}", "that is not an ultrasound video")
    return shape


def shape_of(path: Path, name: str) -> tuple[Shape, str]:
    """Shape in MATLAB's order of axes, and type, of an array in a .mat file. Raises LusError."""
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            stored = array_in(file, path, name)
            return stored.shape[::-1], str(stored.dtype)
    refuse_claims(path)
    arrays = scipy.io.whosmat(path)
    matches = [(shape, dtype) for other, shape, dtype in arrays if other == name]
    if len(matches) != 1:
        raise missing(path, name, [other for other, *_ in arrays])
    [(shape, dtype)] = matches
    if dtype in NO_NUMBERS:
        raise LusError(f"{path}: {name} is a {dtype} array", "lus reads numbers")
    if math.prod(shape) > MAX_BYTES:
        raise LusError(
            f"{path}: {name} is {shape}, too large", "save it as version 7.3, or in parts"
        )
    return shape, dtype


def refuse_claims(path: Path) -> None:
    """Raises ValueError if an array of version 5 states a size of more than MAX_BYTES.

    The axes may state a different size, but SciPy reads this one, and allocates memory for it.
    """
    with path.open("rb") as file:
        header = file.read(VERSION_5_HEADER)
        if 0 in header[:4]:  # version 4 has no compression
            return
        order = "<" if header.endswith(b"IM") else ">"
        while len(tag := file.read(8)) == 8:
            kind, length = struct.unpack(f"{order}II", tag)
            after = file.tell() + length
            start = file.read(min(length, 2 * HEAD))
            if kind == COMPRESSED:
                start = zlib.decompressobj().decompress(start, HEAD)[8:]
            check_claims(start[:HEAD], order)
            file.seek(after)


def check_claims(array: bytes, order: str) -> list[int]:
    """The stated sizes, in bytes, of flags, axes, name and real parts of an array of version 5.

    array: its first HEAD bytes or less, without its own tag.

    Raises ValueError if a size is more than MAX_BYTES, or if the numbers do not begin within HEAD.
    For frames and scores, also if the type is unknown, as SciPy crashes then, or if the numbers are
    complex, as imaginary parts follow the real ones.
    """
    place, is_complex, is_ours, claims = 0, False, False, list[int]()
    for part in ("flags", "axes", "name", "numbers"):
        if place + 8 > len(array):
            if place + 8 > HEAD:
                raise ValueError(f"an array whose {part} begin after {place} bytes")
            break  # an empty structure ends here
        kind, length = struct.unpack_from(f"{order}II", array, place)
        small = kind >> 16  # up to four bytes are in the tag itself
        begins, size = (place + 4, small) if small else (place + 8, length)
        if size > MAX_BYTES:
            raise ValueError("an array is too large")
        claims.append(size)
        if part == "flags":
            is_complex = bool(struct.unpack_from(f"{order}I", array, begins)[0] & COMPLEX)
        if part == "name":
            is_ours = array[begins : begins + size].decode("latin-1") in (FRAMES, SCORE_MATRIX)
        if part == "numbers" and is_ours and (is_complex or kind & 0xFFFF not in NUMBERS):
            raise ValueError("complex numbers" if is_complex else "numbers of an unknown type")
        place += 8 if small else 8 + -(-length // 8) * 8
    return claims


def frames_in(stored: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yields the frames (channel, column, row) of an array (frame, channel, column, row).

    Reads as many frames at once as a chunk holds, so that no chunk is decompressed twice.
    """
    if stored.ndim == 3:
        yield stored[...]
        return
    frame_bytes = math.prod(stored.shape[1:])
    chunk = stored.chunks or (1,)
    together = max(1, min(chunk[0], BLOCK_BYTES // frame_bytes))
    for start in range(0, len(stored), together):
        yield from stored[start : start + together]


def array_in(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """An array stored in the file itself, as HDF5 could link to other files. Raises LusError."""
    stored = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset):
        raise missing(path, name, file)
    if stored.external or stored.is_virtual:
        raise LusError(f"{path}: {name} is stored in another file", AGAIN)
    if stored.nbytes > MOST_PACKED * stored.id.get_storage_size():
        raise LusError(f"{path}: most of {name} was never written", AGAIN)
    chunk_bytes = math.prod(stored.chunks or ()) * stored.dtype.itemsize
    if chunk_bytes > BLOCK_BYTES:  # a chunk is always decompressed as a whole
        raise LusError(
            f"{path}: {name} has chunks of {chunk_bytes} bytes, which are too large", AGAIN
        )
    return stored


def missing(path: Path, name: str, names: Iterable[str]) -> LusError:
    return LusError(f"{path} has no {name}", f"it has {', '.join(names) or 'nothing'}")


def wrong(path: Path, name: str, shape: Shape, expected: str) -> LusError:
    return LusError(f"{path}: {name} has a wrong shape {shape} or type", f"it must be {expected}")


@contextlib.contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turns every exception of SciPy or HDF5 into a LusError: they raise many for a damaged file."""
    try:
        with explaining_refusal(path):
            yield
    except LusError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LusError(f"{path} cannot be read ({reason[:200]})", AGAIN) from error
