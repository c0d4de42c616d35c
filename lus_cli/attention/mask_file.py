"""masks.h5: where a model looked, as numbers.

A group patient/exam/area a video, with `frame_number` (frame,) int32 and `mask` (frame, row, column)
float32 in [0, 1]. Of a whole split also `scored` (scored frame,) int32, the numbers of the frames
that the answer rests on, `grad_cam` (scored frame, row, column) float32, 0 and more, and
`probability` (score,) float32. The attribute `weights` is the digest of those that made the maps.
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

NUMBERS = "frame_number", "scored"  # the datasets of whole numbers
Maps = Mapping[str, np.ndarray]  # the datasets of one video, by name


def write_masks(path: Path, videos: Mapping[VideoId, Maps], weights: str = "") -> None:
    """Adds videos to the file, and frames to a video. What is in it already stays, but for a frame
    that is given again."""
    with explaining_damage(path):
        before = {video: read_maps(path, video) for video in written(path, videos)}
        whole = {video: merged(before.get(video, {}), maps) for video, maps in videos.items()}
    with adding(path, videos, weights) as (file, disk):
        for video, maps in whole.items():
            group = file.create_group(str(video))
            for name, values in maps.items():
                kind = np.int32 if name in NUMBERS else np.float32
                packed = "gzip" if values.ndim > 1 else None
                group.create_dataset(name, data=values.astype(kind), compression=packed)
            disk.raise_error()


def merged(before: Maps, now: Maps) -> Maps:
    """The masks of all frames, in their order; of a frame in both, the one of `now`.

    What more is known of a video is of all its frames together, and is not merged but replaced.
    Raises one of many exceptions for what does not fit together.
    """
    if set(before) != {"frame_number", "mask"} or set(now) != set(before):
        return now
    stays = ~np.isin(before["frame_number"], now["frame_number"])
    numbers = np.concatenate([before["frame_number"][stays], now["frame_number"]])
    masks = np.concatenate([before["mask"][stays], now["mask"]])
    order = np.argsort(numbers)
    return {"frame_number": numbers[order], "mask": masks[order]}


def joined(path: Path, parts: Mapping[VideoId, Path], weights: str = "") -> None:
    """Adds to the file what lies in a file of its own for each video."""
    with adding(path, parts, weights) as (file, disk):
        for video, own in parts.items():
            with reading(own) as source:
                source.copy(str(video), file, str(video))
            disk.raise_error()


@contextlib.contextmanager
def adding(path: Path, videos: Iterable[VideoId], weights: str) -> Iterator[tuple[h5py.File, Disk]]:
    """A file that holds all of the one there is but these videos, which are to be added; put in its
    place when the block ends well. In a file that is changed HDF5 does not give space back."""
    others = {str(video) for video in videos}
    with replacing(path) as part, explaining_damage(path), writing(part) as (file, disk):
        file.attrs["weights"] = weights
        if path.is_file():
            with reading(path) as old:
                names = [f"{p}/{e}/{a}" for p in old for e in old[p] for a in old[p][e]]
                for name in names:
                    if name not in others:
                        old.copy(name, file, name)
                        disk.raise_error()
        yield file, disk


def written(path: Path, videos: Iterable[VideoId]) -> set[VideoId]:
    """Which of the videos are in the file; none if there is no file.

    Raises LusError if it cannot be read.
    """
    if not path.is_file():
        return set()
    with reading(path) as file:
        return {video for video in videos if str(video) in file}


def read_maps(path: Path, video: VideoId) -> dict[str, np.ndarray]:
    """Everything in the file about one video. Raises LusError if there is nothing to be read."""
    with reading(path) as file:
        return {name: values[:] for name, values in file[str(video)].items()}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Raises LusError, also for what is read of the file in the block."""
    with explaining_damage(path), explaining_refusal(path), open_hdf5(path) as file:
        yield file


@contextlib.contextmanager
def explaining_damage(path: Path) -> Iterator[None]:
    """Makes a LusError of what a damaged file makes of HDF5, which has no one exception for it."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path) from error
    except OSError as error:
        if error.errno is not None:  # the disk's fault, not the file's
            raise
        raise damaged(path) from error


def damaged(path: Path) -> LusError:
    return LusError(f"{path} is damaged", "delete it and run the command again")
