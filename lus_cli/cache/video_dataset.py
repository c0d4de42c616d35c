"""videos.h5 as a PyTorch dataset, for training loops other than that of lus."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from lus_cli.cache.batches import select_frames
from lus_cli.cache.layout import Cache
from lus_cli.cache.split import PARTS, load_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.study.annotations import UNKNOWN


class VideoDataset(Dataset[tuple[Tensor, int]]):
    """The videos of videos.h5. An item is the frames of one video and its score.

    The frames are uint8 (frame, row, column[, channel]), in temporal order and without padding. The
    score is 0..3, or -1 for a video without one.

    The file is opened when the first video is read. Each worker of a DataLoader opens its own, because
    processes cannot share an open HDF5 file.

    Example:
        >>> dataset = VideoDataset("cache/videos.h5", patients=["1017"])
        >>> frames, score = dataset[0]
        >>> frames.dtype, frames.shape[1:], score in range(4)
        (torch.uint8, torch.Size([64, 64]), True)

    """

    def __init__(
        self,
        path: str | Path,
        patients: Collection[str] | None = None,
        *,
        unlabelled: bool = False,
        stride: int = 1,
        frames_per_video: int = 0,
    ) -> None:
        """Reads the tables of the file.

        Args:
            path: the file, such as cache/videos.h5.
            patients: the patients whose videos the dataset holds; None for all.
            unlabelled: whether it also holds videos without a score.
            stride: uses every `stride`-th frame.
            frames_per_video: the maximum number of evenly spaced frames; 0 for no limit.

        Raises:
            LusError: the file does not exist, or is damaged.
            ValueError: a patient has no video in the file.

        """
        self.videos = VideoCache(Path(path))
        absent = set(patients or ()) - set(self.videos.patients)
        if absent:
            raise ValueError(f"{path} has no video of {', '.join(sorted(absent))}")
        self.stride, self.frames_per_video = stride, frames_per_video
        # Where the videos lie in the file, and so in the lists of VideoCache: ids, patients, lengths.
        self.indices = [
            index
            for index, patient in enumerate(self.videos.patients)
            if (patients is None or patient in patients)
            and (unlabelled or self.videos.scores[index] != UNKNOWN)
        ]
        self.videos.close()
        self.process = os.getpid()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        index = self.indices[item]
        if self.process != os.getpid():  # a forked worker, whose file is that of its parent
            self.videos.close()
            self.process = os.getpid()
        length = int(self.videos.lengths[index])
        positions = select_frames(length, self.stride, self.frames_per_video)
        frames: np.ndarray = self.videos.read(index, positions)
        return torch.from_numpy(frames), int(self.videos.scores[index])


def open_cache(
    cache: str | Path,
    part: str = "all",
    *,
    unlabelled: bool = False,
    stride: int = 1,
    frames_per_video: int = 0,
) -> VideoDataset:
    """The videos of one part of the split of a cache.

    Args:
        cache: the folder that `lus prepare` wrote.
        part: train, validation, test, or all, which needs no split.
        unlabelled: whether videos without a score are included.
        stride: uses every `stride`-th frame.
        frames_per_video: the maximum number of evenly spaced frames; 0 for no limit.

    Raises:
        LusError: there is no such cache, it is damaged, or the split has no patient in this part.
        ValueError: there is no such part.

    Example:
        >>> dataset = open_cache("cache", "train", frames_per_video=4)
        >>> frames, score = dataset[0]
        >>> frames.shape
        torch.Size([4, 64, 64])

    """
    if part not in (*PARTS, "all"):
        raise ValueError(f"part is {part!r}, not one of {', '.join((*PARTS, 'all'))}")
    files = Cache(Path(cache))
    patients = None if part == "all" else load_split(files.split)[0].patients(part)
    return VideoDataset(
        files.videos,
        patients,
        unlabelled=unlabelled,
        stride=stride,
        frames_per_video=frames_per_video,
    )


def pad_videos(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Joins videos of different lengths into one batch: the `collate_fn` of a DataLoader.

    Returns:
        Frames, uint8 (video, frame, row, column[, channel]), zero-padded to the longest video;
        lengths, (video,) int64; scores, (video,) int64.

    Example:
        >>> short, long = torch.zeros(2, 8, 8), torch.ones(5, 8, 8)
        >>> frames, lengths, scores = pad_videos([(short, 0), (long, 3)])
        >>> frames.shape, lengths, scores
        (torch.Size([2, 5, 8, 8]), tensor([2, 5]), tensor([0, 3]))

    """
    videos = [frames for frames, _ in items]
    lengths = torch.tensor([len(frames) for frames in videos])
    return pad_sequence(videos, batch_first=True), lengths, torch.tensor([s for _, s in items])
