"""Batches of videos: which, in what order, which of their frames, and how they are varied.

Everything drawn at random is a pure function of (seed, epoch, video), so an interrupted run that
goes on draws the same as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lus_cli.config import Recipe
from lus_cli.video_cache import VideoCache

# Selected frames are kept in memory up to this; beyond, they are read again every epoch.
KEEP_BYTES = 4 * 2**30
JITTER = 1  # tells the generator of frames from that of augmentation


@dataclass(frozen=True)
class Batch:
    """A few videos, their frames one after the other."""

    indices: list[int]  # where the videos lie in the cache
    frames: Tensor  # uint8 (frame, row, column[, channel])
    lengths: Tensor  # (video,) int64: frames of each video
    scores: Tensor  # (video,) int64; -1 unlabelled

    def to(self, device: torch.device) -> Batch:
        """The batch with frames and scores on a device; lengths stay where they steer."""
        return Batch(
            self.indices,
            self.frames.to(device, non_blocking=True),
            self.lengths,
            self.scores.to(device, non_blocking=True),
        )


def select_frames(
    length: int,
    stride: int,
    frames_per_video: int,
    random: np.random.Generator | None = None,
) -> np.ndarray:
    """Positions of the frames to use of a video: every `stride`-th, then, if still more than
    `frames_per_video` (0: no limit), so many of these, evenly spread from first to last.

    With `random` one is drawn from each of as many even stretches instead.
    """
    positions = np.arange(0, length, stride)
    if not 0 < frames_per_video < len(positions):
        return positions
    if random is None:
        spread = np.linspace(0, len(positions) - 1, frames_per_video)
        return positions[np.round(spread).astype(int)]
    edges = np.linspace(0, len(positions), frames_per_video + 1)
    return positions[np.floor(random.uniform(edges[:-1], edges[1:])).astype(int)]


class BatchLoader:
    """Reads batches of videos from the cache, one batch ahead of who uses them."""

    def __init__(self, videos: VideoCache, recipe: Recipe) -> None:
        self.videos, self.recipe = videos, recipe
        self.kept: dict[int, np.ndarray] = {}
        self.kept_bytes = 0

    def frames(self, index: int, epoch: int | None) -> np.ndarray:
        """The selected frames of one video: uint8 (frame, row, column[, channel]).

        `epoch` is None outside training; in training it decides where a recipe with jitter looks.
        """
        recipe, length = self.recipe, int(self.videos.lengths[index])
        random = None
        if recipe.jitter and epoch is not None:
            random = np.random.default_rng([recipe.seed, epoch, index, JITTER])
        positions = select_frames(length, recipe.stride, recipe.frames_per_video, random)
        if index not in self.kept:
            # With jitter every frame is wanted in time; without, only these.
            wanted = np.arange(length) if recipe.jitter else positions
            frames = self.videos.read(index, wanted)
            if self.kept_bytes + frames.nbytes > KEEP_BYTES:
                return frames[positions] if recipe.jitter else frames
            self.kept[index] = frames
            self.kept_bytes += frames.nbytes
        return self.kept[index][positions] if recipe.jitter else self.kept[index]

    def load(self, indices: Sequence[int], epoch: int | None = None) -> Batch:
        pieces = [self.frames(index, epoch) for index in indices]
        return Batch(
            list(indices),
            torch.from_numpy(np.concatenate(pieces)),
            torch.tensor([len(piece) for piece in pieces]),
            torch.from_numpy(self.videos.scores[list(indices)]),
        )

    def batches(self, groups: Sequence[Sequence[int]], epoch: int | None = None) -> Iterator[Batch]:
        """The batches of `groups` in order, the next one being read while one is used."""
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for group in groups:
                ready, coming = coming, reader.submit(self.load, group, epoch)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()


def grouped(indices: Sequence[int], batch_size: int) -> list[list[int]]:
    """Every index once, in batches; the last one may be smaller."""
    return [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]


def epoch_order(
    indices: Sequence[int], scores: np.ndarray, recipe: Recipe, epoch: int
) -> list[list[int]]:
    """The training batches of an epoch, shuffled over all patients.

    With `balanced_sampling` as many draws as videos, every score equally often: a rare score's
    videos come up again, none more than once more than another of its score.
    """
    random = np.random.default_rng([recipe.seed, epoch])
    if not recipe.balanced_sampling:
        return grouped([indices[i] for i in random.permutation(len(indices))], recipe.batch_size)
    present = sorted({int(scores[i]) for i in indices})
    chosen: list[int] = []
    for turn, score in enumerate(present):
        mine = [i for i in indices if scores[i] == score]
        # The remainder of the division goes to the first scores, so the total is exact.
        wanted = len(indices) // len(present) + (turn < len(indices) % len(present))
        rounds = -(-wanted // len(mine))
        drawn = np.concatenate([random.permutation(mine) for _ in range(rounds)])
        chosen += drawn[:wanted].tolist()
    return grouped([chosen[i] for i in random.permutation(len(chosen))], recipe.batch_size)


def augment(batch: Batch, recipe: Recipe, epoch: int) -> Batch:
    """The batch with each video varied as the recipe says, the same way in all its frames.

    Mirrored left to right, brighter or darker, moved: what another hand, gain or patient could have
    given. Never upside down: depth has a meaning in ultrasound.
    """
    if not (recipe.flip or recipe.gain or recipe.shift):
        return batch
    pieces = []
    for index, frames in zip(
        batch.indices, batch.frames.split(batch.lengths.tolist()), strict=True
    ):
        random = np.random.default_rng([recipe.seed, epoch, index])
        mirrored = bool(random.random() < 0.5)
        contrast, brightness = random.uniform(-recipe.gain, recipe.gain, 2)
        moves = random.uniform(-recipe.shift, recipe.shift, 2)
        if recipe.flip and mirrored:
            frames = frames.flip(2)
        if recipe.shift:
            frames = shifted(
                frames, *(round(m * n) for m, n in zip(moves, frames.shape[1:3], strict=True))
            )
        if recipe.gain:
            brighter = frames.float() * (1 + contrast) + 64 * brightness * (frames > 0)
            frames = brighter.clamp(0, 255).to(torch.uint8)
        pieces.append(frames)
    return Batch(batch.indices, torch.cat(pieces), batch.lengths, batch.scores)


def shifted(frames: Tensor, rows: int, columns: int) -> Tensor:
    """(frame, row, column[, channel]) moved down and right, black where nothing was."""
    moved = torch.zeros_like(frames)
    height, width = frames.shape[1:3]
    source = frames[
        :, max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    top, left = max(rows, 0), max(columns, 0)
    moved[:, top : top + source.shape[1], left : left + source.shape[2]] = source
    return moved
