"""Batches of videos: which of their frames are used, as which pictures, and how they are loaded.

Every random draw is a pure function of (seed, epoch, video, number of earlier occurrences of the
video in the epoch), so a resumed run draws the same as one that was never interrupted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lus_cli.cache.pictures import Pictures
from lus_cli.cache.video_cache import VideoCache
from lus_cli.processes import read_ahead
from lus_cli.recipes.recipe import Recipe

# Frames are kept in memory up to this size; the rest is read again in every epoch.
KEEP_BYTES = 4 * 2**30
AUGMENTATION, JITTER = 0, 1  # purposes, which distinguish random generators


@dataclass(frozen=True)
class Batch:
    """A few videos with the pictures of their time steps concatenated.

    `pictures` is uint8 (step, row, column[, channel]), or the feature maps of a frozen CNN, floating
    point (step, channel, row, column).
    """

    indices: list[int]  # of the videos in the cache
    pictures: Tensor
    lengths: Tensor  # (video,) int64: steps of each video
    scores: Tensor  # (video,) int64; -1 unlabelled
    turns: Sequence[int] = ()  # earlier occurrences of each video in the epoch; (): none

    def to(self, device: torch.device) -> Batch:
        """The batch with pictures and scores on a device; lengths stay on the CPU, which needs them."""
        pictures = self.pictures.to(device, non_blocking=True)
        return replace(self, pictures=pictures, scores=self.scores.to(device, non_blocking=True))


def select_frames(
    length: int,
    stride: int,
    frames_per_video: int,
    random: np.random.Generator | None = None,
) -> np.ndarray:
    """Positions of the frames of a video to use: (frame,) int.

    Every `stride`-th frame; if these are more than `frames_per_video` (0: no limit), that many of
    them, evenly spaced from first to last. With `random`, one frame is drawn from each of
    `frames_per_video` equal intervals instead.
    """
    positions = np.arange(0, length, stride)
    if not 0 < frames_per_video < len(positions):
        return positions
    if random is None:
        chosen = np.linspace(0, len(positions) - 1, frames_per_video)
        return positions[np.round(chosen).astype(int)]
    edges = np.linspace(0, len(positions), frames_per_video + 1)
    return positions[np.floor(random.uniform(edges[:-1], edges[1:])).astype(int)]


def places_of(positions: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """For each position, the place of it or of the next one among the scored positions, ascending."""
    return np.searchsorted(scored, positions).clip(max=len(scored) - 1)


class BatchLoader:
    """Reads batches of videos from the cache, one batch ahead.

    With `keep`, for videos that are read in every epoch, the pictures stay in memory as far as there
    is room: in the memory of `device` if it is a CUDA device, else in main memory. With jitter, whose
    pictures change, the frames do.
    """

    def __init__(
        self,
        videos: VideoCache,
        recipe: Recipe,
        device: torch.device | None = None,
        *,
        keep: bool = True,
    ) -> None:
        self.videos, self.recipe = videos, recipe
        self.pictures = pictures_of(recipe)
        self.device = device or torch.device("cpu")
        self.kept: dict[tuple[int, int], Tensor] = {}  # by video and copy
        self.room = KEEP_BYTES if keep else 0
        if keep and self.device.type == "cuda":
            self.room = torch.cuda.mem_get_info(self.device)[0] // 2  # bytes free now

    def positions(self, index: int, epoch: int | None = None, turn: int = 0) -> np.ndarray:
        """Positions of the frames of a video that the recipe uses: (frame,) int.

        In training (`epoch` not None), a recipe with jitter draws other frames in every epoch, and
        in every turn of a video within an epoch.
        """
        recipe, random = self.recipe, None
        if recipe.jitter and epoch is not None:
            random = random_of(recipe.seed, epoch, index, turn, JITTER)
        length = int(self.videos.lengths[index])
        return select_frames(length, recipe.stride, recipe.frames_per_video, random)

    def needed(self, index: int) -> np.ndarray:
        """Positions of all frames of a video that any epoch uses: with jitter, every frame."""
        length = int(self.videos.lengths[index])
        return np.arange(length) if self.recipe.jitter else self.positions(index)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a picture: (row, column[, channel])."""
        return self.pictures.shape(self.videos.frame_format.shape)

    def steps(self, index: int) -> int:
        """The number of pictures of a video."""
        recipe, length = self.recipe, int(self.videos.lengths[index])
        return steps_of(self.pictures, length, recipe.stride, recipe.frames_per_video)

    def total_steps(self, indices: Sequence[int]) -> int:
        """The number of pictures of several videos."""
        lengths = self.videos.lengths[list(indices)]
        _, firsts, videos = np.unique(lengths, return_index=True, return_counts=True)
        each = [self.steps(indices[first]) for first in firsts]
        return int(np.dot(each, videos))

    def pictures_of(self, index: int, epoch: int | None, turn: int = 0) -> Tensor:
        """The pictures of one video that the recipe uses: uint8 (step, row, column[, channel])."""
        copy = self.copy(index, epoch, turn)
        stored = self.kept.get((index, copy))
        if stored is None:
            stored = self.read(index, copy)
            if self.device.type == "cuda":
                stored = stored.pin_memory().to(self.device, non_blocking=True)
            if stored.nbytes <= self.room:
                self.room -= stored.nbytes
                self.kept[index, copy] = stored
        if not self.recipe.jitter:
            return stored
        positions = torch.from_numpy(self.positions(index, epoch, turn))
        return self.pictures.of(stored[positions.to(stored.device)])

    @property
    def copies(self) -> int:
        """The number of augmented copies of a video in training; only a FeatureLoader has some."""
        return 0

    def copy(self, index: int, epoch: int | None, turn: int) -> int:
        """Which copy of a video an epoch trains on; 0 is the video itself."""
        return 0

    def read(self, index: int, copy: int = 0) -> Tensor:
        """The pictures of one video, read from the cache; with jitter, the frames they are made of."""
        frames = torch.from_numpy(self.videos.read(index, self.needed(index)))
        return frames if self.recipe.jitter else self.pictures.of(frames)

    def load(
        self, indices: Sequence[int], epoch: int | None = None, turns: Sequence[int] = ()
    ) -> Batch:
        """The videos as one batch; for `turns` see Batch."""
        each = zip(indices, turns or [0] * len(indices), strict=True)
        pieces = [self.pictures_of(index, epoch, turn) for index, turn in each]
        return Batch(
            list(indices),
            torch.cat(pieces) if pieces else torch.zeros(0, *self.shape, dtype=torch.uint8),
            torch.tensor([len(piece) for piece in pieces], dtype=torch.int64),
            torch.from_numpy(self.videos.scores[list(indices)]),
            turns,
        )

    def batches(
        self,
        groups: Sequence[Sequence[int]],
        epoch: int | None = None,
        turns: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Batch]:
        """The batches of `groups` in order; the next one is read while one is used."""
        keys = list(zip(groups, turns or [()] * len(groups), strict=True))
        return read_ahead(lambda key: self.load(key[0], epoch, key[1]), keys)


def pictures_of(recipe: Recipe) -> Pictures:
    """How a recipe makes the pictures of the time steps."""
    return Pictures(recipe.windows, recipe.scan_lines, recipe.window_frames, recipe.whole_video)


@functools.cache  # a million videos may have only a few lengths
def steps_of(pictures: Pictures, length: int, stride: int, frames_per_video: int) -> int:
    """The number of pictures of a video of `length` frames."""
    return pictures.steps(len(select_frames(length, stride, frames_per_video)))


def in_batches(indices: Sequence[int], batch_size: int) -> list[list[int]]:
    """Every index once, in batches; the last batch may be smaller."""
    return [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]


def random_of(seed: int, epoch: int, index: int, turn: int, purpose: int) -> np.random.Generator:
    """The generator of one video's AUGMENTATION or JITTER in one turn of an epoch."""
    # NumPy ignores trailing zeros of a short key, so only later turns have a fifth number.
    key = [seed, epoch, index, purpose]
    return np.random.default_rng([*key, turn] if turn else key)
