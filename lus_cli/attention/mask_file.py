"""masks.h5: the masks of videos, as numbers.

Each video has a group patient/exam/area with the datasets `frame_number`, (frame,) int32, and `mask`,
(frame, row, column) float32 in [0, 1]. If the whole split was explained, the group also has `scored`,
(scored frame,) int32, the numbers of the frames that the prediction is based on; `grad_cam`,
(scored frame, row, column) float32, non-negative; and `probability`, (score,) float32. The attribute
`weights` of the file is the digest of the weights that made the maps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from lus_cli.cache.hdf5 import Disk, writing
from lus_cli.disk_errors import explaining_refusal
from lus_cli.errors import LusError
from lus_cli.files import replacing
from lus_cli.study.hdf5_reading import open_hdf5
from lus_cli.study.ids import VideoId

INTEGERS = "frame_number", "scored"  # the datasets of integers
Maps = Mapping[str, np.ndarray]  # the datasets of one video, by name


def write_masks(path: Path, videos: Mapping[VideoId, Maps], weights: str = "") -> None:
    """Adds videos to the file, or frames to a video. A frame that is already stored is replaced."""
    with explaining_damage(path):
        stored = {video: read_maps(path, video) for video in stored_videos(path, videos)}
        merged = {video: merge_maps(stored.get(video, {}), maps) for video, maps in videos.items()}
    with adding(path, videos, weights) as (file, disk):
        for video, maps in merged.items():
            group = file.create_group(str(video))
            for name, values in maps.items():
                dtype = np.int32 if name in INTEGERS else np.float32
                compression = "gzip" if values.ndim > 1 else None
                group.create_dataset(name, data=values.astype(dtype), compression=compression)
            disk.raise_error()


def merge_maps(stored: Maps, new: Maps) -> Maps:
    """The masks of all frames in the order of their numbers. For a frame in both, that of `new`.

    The other datasets describe the frames of a video together. They cannot be merged, so a video
    that has them is replaced. Raises one of several exceptions if the datasets are inconsistent.
    """
    if set(stored) != {"frame_number", "mask"} or set(new) != set(stored):
        return new
    kept = ~np.isin(stored["frame_number"], new["frame_number"])
    numbers = np.concatenate([stored["frame_number"][kept], new["frame_number"]])
    masks = np.concatenate([stored["mask"][kept], new["mask"]])
    order = np.argsort(numbers)
    return {"frame_number": numbers[order], "mask": masks[order]}


def merge_files(path: Path, parts: Mapping[VideoId, Path], weights: str = "") -> None:
    """Adds videos to the file, each from a file of its own."""
    with adding(path, parts, weights) as (file, disk):
        for video, part in parts.items():
            with reading(part) as source:
                source.copy(str(video), file, str(video))
            disk.raise_error()


@contextlib.contextmanager
def adding(path: Path, videos: Iterable[VideoId], weights: str) -> Iterator[tuple[h5py.File, Disk]]:
    """A new file with the content of the old one, except these videos, which the block adds.

    It replaces the old file when the block succeeds. HDF5 does not free space in a file that is
    changed in place.
    """
    added = {str(video) for video in videos}
    with replacing(path) as part, explaining_damage(path), writing(part) as (file, disk):
        file.attrs["weights"] = weights
        if path.is_file():
            with reading(path) as old:
                names = [f"{p}/{e}/{a}" for p in old for e in old[p] for a in old[p][e]]
                for name in names:
                    if name not in added:
                        old.copy(name, file, name)
                        disk.raise_error()
        yield file, disk


def stored_videos(path: Path, videos: Iterable[VideoId]) -> set[VideoId]:
    """Those of the videos that the file holds. Empty if the file does not exist.

    Raises LusError if it cannot be read.
    """
    if not path.is_file():
        return set()
    with reading(path) as file:
        return {video for video in videos if str(video) in file}


def read_maps(path: Path, video: VideoId) -> dict[str, np.ndarray]:
    """The datasets of one video, by name. Raises LusError if they cannot be read."""
    with reading(path) as file:
        return {name: values[:] for name, values in file[str(video)].items()}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Opens the file. Raises LusError if it, or what the block reads of it, cannot be read."""
    with explaining_damage(path), explaining_refusal(path), open_hdf5(path) as file:
        yield file


@contextlib.contextmanager
def explaining_damage(path: Path) -> Iterator[None]:
    """Turns the many exceptions that h5py raises for a damaged file into a LusError."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path) from error
    except OSError as error:
        if error.errno is not None:  # an error of the disk, not of the file
            raise
        raise damaged(path) from error


def damaged(path: Path) -> LusError:
    return LusError(f"{path} is damaged", "delete it and run the command again")
