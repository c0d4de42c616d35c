"""masks.h5: where a model looked, as numbers.

A group patient/exam/area a video, with `frame_number` (frame,) int32 and `mask` (frame, row, column)
float32 in [0, 1]. Of a whole split also `scored` (scored frame,) int32, the numbers of the frames
that the answer rests on, `grad_cam` (scored frame, row, column) float32, 0 and more, and
`probability` (score,) float32.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from lus_cli.cache import replacing
from lus_cli.errors import LusError
from lus_cli.exam_tree import VideoId
from lus_cli.hdf5_writing import Disk, writing

NUMBERS = "frame_number", "scored"  # the datasets of whole numbers
Maps = Mapping[str, np.ndarray]  # the datasets of one video, by name


@contextlib.contextmanager
def adding(path: Path) -> Iterator[tuple[h5py.File, Disk]]:
    """A copy of the file, or a new one, to add to; put in its place when the block ends well."""
    with replacing(path) as part:
        new = not path.is_file()
        if not new:
            shutil.copyfile(path, part)
        with explaining_damage(path), writing(part, new=new) as (file, disk):
            yield file, disk


def write_masks(path: Path, videos: Mapping[VideoId, Maps]) -> None:
    """Adds videos to the file. Those already in it stay, one that is given again is replaced."""
    with adding(path) as (file, disk):
        for video, maps in videos.items():
            if str(video) in file:
                del file[str(video)]
            group = file.create_group(str(video))
            for name, values in maps.items():
                kind = np.int32 if name in NUMBERS else np.float32
                packed = "gzip" if values.ndim > 1 else None
                group.create_dataset(name, data=values.astype(kind), compression=packed)
            disk.tell_error()


def joined(path: Path, parts: Mapping[VideoId, Path]) -> None:
    """Adds to the file what lies in a file of its own for each video."""
    with adding(path) as (file, disk):
        for video, own in parts.items():
            with h5py.File(own, "r") as source:
                source.copy(str(video), file, str(video))
            disk.tell_error()


def written(path: Path, videos: Iterable[VideoId]) -> set[VideoId]:
    """Which of the videos are in the file; none if there is no file.

    Raises LusError if it cannot be read.
    """
    if not path.is_file():
        return set()
    with explaining_damage(path), h5py.File(path, "r") as file:
        return {video for video in videos if str(video) in file}


def read_maps(path: Path, video: VideoId) -> dict[str, np.ndarray]:
    """Everything in the file about one video. Raises LusError if there is nothing to be read."""
    with explaining_damage(path), h5py.File(path, "r") as file:
        return {name: values[:] for name, values in file[str(video)].items()}


@contextlib.contextmanager
def explaining_damage(path: Path) -> Iterator[None]:
    """Makes a LusError of what a damaged file makes of HDF5, which has no one exception for it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path) from error
    except OSError as error:
        if error.errno is not None:  # the disk's fault, not the file's
            raise
        raise damaged(path) from error


def damaged(path: Path) -> LusError:
    return LusError(f"{path} is damaged", "delete it and run the command again")
